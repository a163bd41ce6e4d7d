"""Zoo-tuning: a network whose weights are mixed from those of several."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from numbers import Real
from typing import Any, ClassVar

from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval

from sktransfer.feature_extraction._in_use import copy_module
from sktransfer.tuning._backbone import Backbone, as_extractor
from sktransfer.tuning._mixed_layer import MixedLayer, is_mixable
from sktransfer.tuning.penalties._teachers import check_teachers
from sktransfer.utils._optional import import_optional

torch = import_optional("torch", extra="tuning", needed_by="sktransfer.tuning")


class ZooTuning(BaseEstimator):
    r"""A network to fine-tune, mixed layer by layer with others of the same structure.

    Parameters
    ----------
    network : TorchFeatureExtractor, torch.nn.Module, callable or str
        The network to deploy. It is one of the sources, and the others must have its
        structure.
    teachers : list of (extractor, LogME) tuples
        The other sources, as returned by ``ModelSelector.teachers(k)``. The network
        itself, if it is among them, counts once. Their LogME is not used.
    lite : bool, default=True
        Whether all samples share one gate: the mean over the batch in training, its
        running mean afterwards. The fitted network is then a plain one, as fast as
        `network`. If False, every sample has weights of its own, in predictions too.
    align : bool, default=True
        Whether to learn, for every source of a convolution or linear layer, how to
        recombine its output channels.
    initial_weight : float, default=0.9
        Weight of `network` in the mixture at the start. Channels of networks that were
        trained separately do not correspond, so a balanced mixture starts from almost
        nothing.

    See Also
    --------
    FineTuneClassifier : Takes this as its `network`.
    BayesianTuning : For teachers of any structure.

    Notes
    -----
    For an input x, a layer with weights w_k in source k becomes a layer with weights

    .. math:: \sum_k a_k(x) A_k w_k, \qquad
              a(x) = \mathrm{softmax}\big(G \,\mathrm{pool}(x) + g\big)

    where A_k recombines output channels (the identity at first, and always for
    normalisations) and pool is the mean of every input channel. G, g, A and all w are
    learnt with the loss of the task, at the backbone's learning rate. Running
    statistics start as the mixture of the sources'. In the published code, gates are
    sigmoids of a small network, only convolutions are mixed, and only those larger
    than 1 x 1 are aligned. The softmax used here keeps the scale of the weights, since
    not every network normalises it away.

    Convolutions, linear layers and normalisations are mixed. The `source_head` of the
    network is left out. The normalisation of inputs is that of the network.

    References
    ----------
    .. [1] Y. Shu, Z. Kou, Z. Cao, J. Wang, M. Long, "Zoo-Tuning: Adaptive Transfer from
       a Zoo of Models", ICML 2021.

    Examples
    --------
    >>> from sktransfer.datasets import load_dataset, load_zoo
    >>> from sktransfer.linear_model import LogMEClassifier
    >>> from sktransfer.tuning import FineTuneClassifier, ZooTuning
    >>> X, y = load_dataset(return_X_y=True)
    >>> (_, network), (_, other) = load_zoo(["plain-emoji", "plain-handwritten"])
    >>> mixture = ZooTuning(network, [(other, LogMEClassifier())])
    >>> model = FineTuneClassifier(mixture, max_epochs=1).fit(X[:100], y[:100])
    >>> type(model.module_).__name__
    'PlainNet'
    """

    _parameter_constraints: ClassVar[dict] = {
        "network": [str, callable, BaseEstimator],
        "teachers": [list, tuple],
        "lite": ["boolean"],
        "align": ["boolean"],
        "initial_weight": [Interval(Real, 0, 1, closed="neither")],
    }

    def __init__(
        self,
        network: Any,
        teachers: Sequence[tuple[Any, Any]],
        *,
        lite: bool = True,
        align: bool = True,
        initial_weight: float = 0.9,
    ):
        self.network = network
        self.teachers = teachers
        self.lite = lite
        self.align = align
        self.initial_weight = initial_weight

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
            If a teacher does not have the structure of `network`, or a layer with
            weights is of a kind that cannot be mixed.
        """
        self._validate_params()
        network = as_extractor(self.network)
        module, own = copy_module(network.load_module()), network.fingerprint()
        head = network.source_head
        layers = [name for name, _ in _own_weights(module, head)]
        for name in layers:
            if not is_mixable(module.get_submodule(name)):
                raise ValueError(
                    "ZooTuning mixes convolutions, linear layers and normalisations. "
                    f"The layer {name!r} of the network has weights and is none of "
                    f"them: {_shown(module.get_submodule(name))}."
                )
        sources = [module]
        for i, (extractor, _) in enumerate(check_teachers(self.teachers)):
            extractor = as_extractor(extractor)
            if extractor.fingerprint() == own:
                continue
            source = extractor.load_module()
            if difference := structural_difference(module, source, head):
                raise ValueError(
                    "ZooTuning needs teachers of the network's structure, but "
                    f"teachers[{i}] has {difference}. BayesianTuning accepts teachers "
                    "of any structure."
                )
            sources.append(source)
        for name in layers:
            mixed = MixedLayer(
                [source.get_submodule(name) for source in sources],
                initial_weight=self.initial_weight,
                align=self.align,
                lite=self.lite,
            )
            module.set_submodule(name, mixed)
        kind = _LiteBackbone if self.lite else Backbone
        return kind(network, module, batch_size=batch_size, device=device)

    def fold(self, module: torch.nn.Module) -> torch.nn.Module:
        """Make a plain network of a mixed one, its gates fixed at their running means.

        Parameters
        ----------
        module : torch.nn.Module
            Such as ``FineTuneClassifier.module_`` with ``lite=False``.

        Returns
        -------
        torch.nn.Module
            Has the class of the network. With ``lite=True`` it computes the same.
        """
        return _fold(module)


class _LiteBackbone(Backbone):
    """A mixed network that becomes a plain one after training."""

    def finish(self) -> None:
        self.replace(_fold(self.module))


def _fold(module: torch.nn.Module) -> torch.nn.Module:
    module = copy.deepcopy(module)
    for name, layer in list(module.named_modules()):
        if isinstance(layer, MixedLayer):
            module.set_submodule(name, layer.fold())
    return module


def structural_difference(
    network: torch.nn.Module, source: torch.nn.Module, head: str | None
) -> str | None:
    """The first layer that differs between two networks, outside the submodule `head`.

    Examples
    --------
    >>> from torch import nn
    >>> from sktransfer.tuning._zoo_tuning import structural_difference
    >>> one, two = (nn.Sequential(nn.Conv1d(4, n, 3)) for n in (2, 3))
    >>> print(structural_difference(one, two, None))
    Conv1d(4, 3, kernel_size=(3,), stride=(1,)) as layer '0', where the network has
    Conv1d(4, 2, kernel_size=(3,), stride=(1,))
    """
    pairs = zip_longest(_described(network, head), _described(source, head))
    for own, other in pairs:
        if own == other:
            continue
        if other is None:
            return "no layer {!r}, where the network has {}".format(*own)
        name, layer = other
        if own is None or own[0] != name:
            return f"{layer} as layer {name!r}, which the network does not have there"
        return f"{layer} as layer {name!r}, where the network has {own[1]}"
    return None


def _described(module: torch.nn.Module, head: str | None) -> Iterator[tuple[str, str]]:
    """Names and descriptions of all submodules outside the head."""
    weighted = dict(_own_weights(module, head))
    for name, layer in module.named_modules():
        if not _is_in(name, head):
            yield name, _shown(layer) if name in weighted else type(layer).__name__


def _own_weights(
    module: torch.nn.Module, head: str | None
) -> Iterator[tuple[str, torch.nn.Module]]:
    """The submodules outside the head that have parameters of their own."""
    for name, layer in module.named_modules():
        has_own = next(layer.parameters(recurse=False), None) is not None
        if has_own and not _is_in(name, head):
            yield name, layer


def _is_in(name: str, head: str | None) -> bool:
    return head is not None and (name == head or name.startswith(f"{head}."))


def _shown(layer: torch.nn.Module) -> str:
    return f"{type(layer).__name__}({layer.extra_repr()})"
