"""Zoo-tuning: a network whose weights are mixed from those of several."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from numbers import Real
from typing import Any, ClassVar

from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval

from sktransfer.tuning._backbone import Backbone, as_extractor
from sktransfer.tuning._mixed_layer import MixedLayer, is_mixable
from sktransfer.tuning._penalties import check_pairs
from sktransfer.utils._optional import import_optional

torch = import_optional("torch", extra="tuning", needed_by="sktransfer.tuning")


class ZooTuning(BaseEstimator):
    r"""A network to fine-tune, mixed layer by layer from networks of its structure.

    Parameters
    ----------
    target : TorchFeatureExtractor, torch.nn.Module, callable or str
        The network that is deployed: one of the sources, and the model of all others.
    teachers : list of (extractor, LogME) tuples
        The other sources, as ``ModelSelector.teachers(k)`` gives them. The target, if
        it is among them, counts once; their LogME plays no part.
    lite : bool, default=True
        Whether all samples share one gate: in training the mean over the batch, then
        its running mean. The fitted network is a plain one, as fast as the target. If
        False, every sample has weights of its own, then and later.
    align : bool, default=True
        Whether to learn, for every source of a convolution or linear layer, how to
        recombine its output channels.
    share : float, default=0.9
        Weight of the target in the mixture at the start. Channels of networks that
        were trained apart do not correspond, and a balanced mixture of them starts
        from nearly nothing.

    See Also
    --------
    FineTuneClassifier : Takes this as its `module`.
    BayesianTuning : For teachers of any structure.

    Notes
    -----
    Of an input x, a layer with weights w_k in source k becomes the layer with weights

    .. math:: \sum_k a_k(x) A_k w_k, \qquad
              a(x) = \mathrm{softmax}\big(G \,\mathrm{pool}(x) + g\big)

    where A_k recombines output channels, the identity at first and always for
    normalisations, and pool is the mean of every input channel. G, g, A and all w are
    learnt with the loss of the task, at the backbone's learning rate. In the published
    code gates are sigmoids of a small network, only convolutions are mixed, and only
    those larger than 1 x 1 have alignments; the soft-max keeps the scale of the
    weights, which not every network normalises away. Running statistics start as the
    mixture of the sources'.

    Convolutions, linear layers and normalisations are mixed. The target's `source_head`
    is left out, and so are the sources' own normalisations of the input, which are
    taken from the target.

    References
    ----------
    .. [1] Y. Shu, Z. Kou, Z. Cao, J. Wang, M. Long, "Zoo-Tuning: Adaptive Transfer from
       a Zoo of Models", ICML 2021.

    Examples
    --------
    >>> from sktransfer.datasets import load_target, load_zoo
    >>> from sktransfer.linear_model import LogMEClassifier
    >>> from sktransfer.tuning import FineTuneClassifier, ZooTuning
    >>> X, y = load_target(return_X_y=True)
    >>> (_, target), (_, other) = load_zoo(["plain-emoji", "plain-handwritten"])
    >>> module = ZooTuning(target, [(other, LogMEClassifier())])
    >>> model = FineTuneClassifier(module, max_epochs=1).fit(X[:100], y[:100])
    >>> type(model.module_).__name__
    'PlainNet'
    """

    _parameter_constraints: ClassVar[dict] = {
        "target": [str, callable, BaseEstimator],
        "teachers": [list, tuple],
        "lite": ["boolean"],
        "align": ["boolean"],
        "share": [Interval(Real, 0, 1, closed="neither")],
    }

    def __init__(
        self,
        target: Any,
        teachers: Sequence[tuple[Any, Any]],
        *,
        lite: bool = True,
        align: bool = True,
        share: float = 0.9,
    ):
        self.target = target
        self.teachers = teachers
        self.lite = lite
        self.align = align
        self.share = share

    def make_backbone(self, *, batch_size: int, device: str) -> Backbone:
        """The mixed network, ready to be trained.

        Parameters
        ----------
        batch_size : int
        device : str

        Returns
        -------
        Backbone

        Raises
        ------
        ValueError
            If a teacher is not of the target's structure, naming the first layer that
            differs, or a layer with weights is of a kind that cannot be mixed.
        """
        self._validate_params()
        target = as_extractor(self.target)
        module = copy.deepcopy(target.load_module())
        head = target.source_head
        layers = [name for name, _ in _own_weights(module, head)]
        for name in layers:
            if not is_mixable(module.get_submodule(name)):
                raise ValueError(
                    "ZooTuning mixes convolutions, linear layers and normalisations. "
                    f"The layer {name!r} of the target has weights and is none of "
                    f"them: {_shown(module.get_submodule(name))}."
                )
        sources = [module]
        own = target.fingerprint()
        for i, (extractor, _) in enumerate(check_pairs(self.teachers)):
            extractor = as_extractor(extractor)
            if extractor.fingerprint() == own:
                continue
            source = extractor.load_module()
            if difference := structural_difference(module, source, head):
                raise ValueError(
                    "ZooTuning needs teachers of the target's structure, but "
                    f"teachers[{i}] has {difference}. BayesianTuning takes them all."
                )
            sources.append(source)
        options = {"share": self.share, "align": self.align, "lite": self.lite}
        mixed = {
            name: MixedLayer([s.get_submodule(name) for s in sources], **options)
            for name in layers
        }
        for name, layer in mixed.items():
            module.set_submodule(name, layer)
        return Backbone(target, module, batch_size=batch_size, device=device)

    def fold(self, module: torch.nn.Module) -> torch.nn.Module:
        """A plain network of a mixed one, its gates fixed at their running means.

        Parameters
        ----------
        module : torch.nn.Module
            As ``FineTuneClassifier.module_`` is with ``lite=False``.

        Returns
        -------
        torch.nn.Module
            Of the target's class. For ``lite=True`` it computes the same.
        """
        module = copy.deepcopy(module)
        for name, layer in list(module.named_modules()):
            if isinstance(layer, MixedLayer):
                module.set_submodule(name, layer.fold())
        return module


def structural_difference(
    target: torch.nn.Module, source: torch.nn.Module, head: str | None
) -> str | None:
    """What the first layer is that differs between two networks; None if none does.

    Parameters
    ----------
    target, source : torch.nn.Module
    head : str or None
        The submodule that may differ.

    Returns
    -------
    str or None

    Examples
    --------
    >>> from torch import nn
    >>> from sktransfer.tuning._zoo_tuning import structural_difference
    >>> one, two = (nn.Sequential(nn.Conv1d(4, n, 3)) for n in (2, 3))
    >>> print(structural_difference(one, two, None))
    Conv1d(4, 3, kernel_size=(3,), stride=(1,)) as layer '0', where the target has
    Conv1d(4, 2, kernel_size=(3,), stride=(1,))
    """
    nothing = (None, None)
    for (name, layer), (other_name, other) in zip_longest(
        _described(target, head), _described(source, head), fillvalue=nothing
    ):
        if (name, layer) == (other_name, other):
            continue
        if name == other_name:
            return f"{other} as layer {name!r}, where the target has {layer}"
        if other_name is None:
            return f"no layer {name!r}, where the target has {layer}"
        return f"{other} as layer {other_name!r}, which the target does not have there"
    return None


def _described(module: torch.nn.Module, head: str | None) -> Iterator[tuple[str, str]]:
    """Names of all submodules but the head's, and what they are."""
    weighted = dict(_own_weights(module, head))
    for name, layer in module.named_modules():
        if not _is_in(name, head):
            yield name, _shown(layer) if name in weighted else type(layer).__name__


def _own_weights(
    module: torch.nn.Module, head: str | None
) -> Iterator[tuple[str, torch.nn.Module]]:
    """The submodules that have parameters themselves, but for the head's."""
    for name, layer in module.named_modules():
        has_own = next(layer.parameters(recurse=False), None) is not None
        if has_own and not _is_in(name, head):
            yield name, layer


def _is_in(name: str, head: str | None) -> bool:
    return head is not None and (name == head or name.startswith(f"{head}."))


def _shown(layer: torch.nn.Module) -> str:
    return f"{type(layer).__name__}({layer.extra_repr()})"
