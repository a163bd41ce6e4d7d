"""The contract between a penalty and the training."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval

from sktransfer.utils._optional import import_optional

torch = import_optional("torch", extra="tuning", needed_by="sktransfer.tuning")


def _yield_all(items: Iterable[Any], name: str) -> Iterable[Any]:
    """The items, without anybody to see their progress."""
    return items


@dataclass(frozen=True, kw_only=True)
class PenaltyContext:
    """What a penalty can use when it is bound, before training starts.

    Attributes
    ----------
    module : torch.nn.Module
        The network that is trained, without the head.
    start : dict of str to torch.Tensor
        A detached copy of the parameters of `module` at the start, by name.
    X : raw samples
        The n_samples labelled samples given to ``fit``, including any validation
        samples.
    y : ndarray of shape (n_samples,) or (n_samples, n_targets)
        The labels or numbers given to ``fit``.
    train : ndarray of int
        The rows of `X` that are trained on: all but the validation samples.
    unlabelled : raw samples or None
        The n_unlabelled samples without labels given to ``fit``.
    classes : ndarray of shape (n_classes,) or None
        The sorted labels; None for regression.
    center, scale : ndarray of shape (n_targets,) or None
        Means and standard deviations of the numbers: the head learns to give
        (y - center) / scale. None for labels.
    features : callable
        Maps raw samples to the features of `module` in evaluation mode, of shape
        (n_samples, n_features). Call it while binding, before the weights move.
    precompute : bool
        Whether the same samples come back in every epoch, so that everything that
        depends on them alone can be computed in advance. False under augmentation.
    layers : callable or None
        ``layers()``, called while binding, makes the training run a frozen copy of
        `module` beside it, on the same inputs. It returns an object with two methods.
        ``iter_start(X)`` yields the layers of the copy for raw samples, batch by batch.
        ``take_pairs()``, called in the term, is a list of (layers of `module`, with
        gradients; layers of the copy) for the parts of the batch, most often one.
        Layers are dicts of tensors (n_samples, n_features) by name, as
        ``extract(X, all_layers=True)`` of the extractor gives them.
    track : callable
        ``track(items, name)`` yields the items of long work while binding, and shows
        the progress if anybody looks.

    See Also
    --------
    BasePenalty : Takes this in ``bind``.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from sktransfer.tuning import PenaltyContext
    >>> network = torch.nn.Linear(3, 2)
    >>> context = PenaltyContext(
    ...     module=network,
    ...     start={n: w.detach().clone() for n, w in network.named_parameters()},
    ...     X=np.ones((4, 3), dtype=np.float32), y=np.arange(4) % 2,
    ...     train=np.arange(4), unlabelled=None, classes=np.arange(2),
    ...     center=None, scale=None, features=lambda X: X, precompute=True,
    ... )
    >>> list(context.start)
    ['weight', 'bias']
    """

    module: torch.nn.Module
    start: Mapping[str, torch.Tensor]
    X: Any
    y: np.ndarray
    train: np.ndarray
    unlabelled: Any
    classes: np.ndarray | None
    center: np.ndarray | None
    scale: np.ndarray | None
    features: Callable[[Any], np.ndarray]
    precompute: bool
    layers: Callable[[], Any] | None = None
    track: Callable[[Iterable[Any], str], Iterable[Any]] = _yield_all


@dataclass(frozen=True, kw_only=True)
class PenaltyBatch:
    """A batch of training as the term of a penalty sees it: labelled samples first.

    Attributes
    ----------
    features : torch.Tensor of shape (n, n_features)
        Features of the network that is tuned, with gradients.
    outputs : torch.Tensor of shape (n, n_outputs)
        What the head makes of them: logits of the classes, or numbers.
    X : raw samples
        The n samples, after augmentation.
    rows : ndarray of shape (n,)
        Their positions in ``context.X``; unlabelled samples are counted from n_samples.

    See Also
    --------
    PenaltyContext : What is known before training starts.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from sktransfer.tuning import PenaltyBatch
    >>> X = np.ones((2, 3), dtype=np.float32)
    >>> batch = PenaltyBatch(
    ...     features=torch.ones(2, 5), outputs=torch.zeros(2, 4), X=X, rows=np.arange(2)
    ... )
    >>> len(batch.rows)
    2
    """

    features: torch.Tensor
    outputs: torch.Tensor
    X: Any
    rows: np.ndarray


class BasePenalty(BaseEstimator, metaclass=ABCMeta):
    """Base class of penalties, which add ``weight * term`` to the loss of each batch.

    The contract of a penalty:

    1. ``__init__`` only stores parameters. One of them is ``weight``.
    2. ``check(y, classes)`` raises an error if the penalty does not suit the task. It
       is called before any network runs. By default it validates the parameters.
    3. ``bind(context)`` is called once, before training, and returns the term. It
       changes nothing in the context.
    4. ``term(batch)`` is the penalty of a :class:`PenaltyBatch`, a tensor with one
       number.
    5. If the term is a :class:`torch.nn.Module`, its parameters are learnt at the
       learning rate of the head, its state is part of checkpoints, and after training
       it is the attribute `penalty_`, without what its ``__getstate__`` leaves out. Any
       other callable is used in training only.
    6. A penalty that depends on samples is a mean over them, so that `weight` does not
       depend on the batch size.
    7. ``uses_unlabelled`` says whether the penalty learns from unlabelled samples. If
       it does not, batches hold none.

    Parameters
    ----------
    weight : float, default=1.0
        Factor of the penalty. With 0 the network learns as without a penalty.

    See Also
    --------
    BayesianTuning : Stay close to the teachers' predictions.
    FeatureDistillation : Stay close to the teachers' features.
    PenaltyContext : What ``bind`` takes.
    PenaltyBatch : What the term takes.

    Examples
    --------
    The squared distance of the parameters from their start:

    >>> from sktransfer.datasets import load_dataset, load_zoo
    >>> from sktransfer.tuning import BasePenalty, FineTuneClassifier
    >>> class StartingPoint(BasePenalty):
    ...     def bind(self, context):
    ...         def term(batch):
    ...             named = context.module.named_parameters()
    ...             return sum((w - context.start[n]).square().sum() for n, w in named)
    ...         return term
    >>> X, y = load_dataset(return_X_y=True)
    >>> ((_, network),) = load_zoo(["plain-emoji"])
    >>> model = FineTuneClassifier(network, penalty=StartingPoint(), max_epochs=2)
    >>> "train_penalty" in model.fit(X[:100], y[:100]).history_[-1]
    True
    """

    uses_unlabelled: ClassVar[bool] = False

    _parameter_constraints: ClassVar[dict] = {
        "weight": [Interval(Real, 0, None, closed="left")]
    }

    def __init__(self, *, weight: float = 1.0):
        self.weight = weight

    def check(self, y: np.ndarray, classes: np.ndarray | None) -> None:
        """Raise an error if the penalty does not suit the task.

        Parameters
        ----------
        y : ndarray of shape (n_samples,) or (n_samples, n_targets)
            Labels or numbers.
        classes : ndarray of shape (n_classes,) or None
            The sorted labels; None for regression.
        """
        self._validate_params()

    @abstractmethod
    def bind(self, context: PenaltyContext) -> Callable[..., torch.Tensor]:
        """Make the term that is added to the loss of every batch.

        Parameters
        ----------
        context : PenaltyContext
            The network, its start and the data.

        Returns
        -------
        callable
            ``term(batch)``, a :class:`torch.nn.Module` if it has something to learn.
        """
