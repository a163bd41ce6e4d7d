"""L2-SP: stay close to the weights of the start."""

from __future__ import annotations

from collections.abc import Callable

from sktransfer.tuning.penalties._base import (
    BasePenalty,
    PenaltyBatch,
    PenaltyContext,
)
from sktransfer.utils._optional import import_optional

torch = import_optional("torch", extra="tuning", needed_by="sktransfer.tuning")


class L2SP(BasePenalty):
    r"""L2-SP: weight decay towards the pre-trained weights instead of zero.

    Parameters
    ----------
    weight : float, default=0.01
        Factor of the penalty, alpha. Like a weight decay, it does not depend on the
        number of parameters, samples or classes.

    See Also
    --------
    FeatureMapDistance : Stay close to what the layers compute instead.
    sktransfer.tuning.FineTuneClassifier : Takes this as its `penalty`.

    Notes
    -----
    With pre-trained parameters w, which start at w^0, the loss gains

    .. math:: \frac\alpha2 \sum_j (w_j - w^0_j)^2

    over all parameters that are trained, including those of normalisations. Frozen
    parameters and the running statistics of batch normalisation are left out. Shared
    parameters count once. In :class:`ZooTuning` the sum is over the weights of all
    sources, their alignments and the gates.

    The paper adds :math:`\frac\beta2 \|w_{head}\|^2` for the head. This is what the
    `weight_decay` of the estimator does, and there it applies to all parameters:
    together with "sgd" they pull the pre-trained ones to
    :math:`w^0 \alpha / (\alpha + \beta)`. At the default ``weight_decay=5e-4`` that is
    0.95 w^0. For a pull to w^0 itself use ``weight_decay=0``.

    Gradient steps are stable only if the learning rate is below about 2 / alpha, and
    with momentum 0.9 well below. A large `weight` needs a small `lr`.

    References
    ----------
    .. [1] X. Li, Y. Grandvalet, F. Davoine, "Explicit Inductive Bias for Transfer
       Learning with Convolutional Networks", ICML 2018.

    Examples
    --------
    >>> from sktransfer.datasets import load_dataset, load_zoo
    >>> from sktransfer.tuning import FineTuneClassifier, L2SP
    >>> X, y = load_dataset(return_X_y=True)
    >>> ((_, network),) = load_zoo(["plain-emoji"])
    >>> def distance(weight):
    ...     penalty = L2SP(weight=weight)
    ...     model = FineTuneClassifier(network, penalty=penalty, max_epochs=3)
    ...     model.set_params(weight_decay=0, random_state=0).fit(X[:100], y[:100])
    ...     return model.history_[-1, "train_penalty"]
    >>> bool(distance(1) < distance(0.01))
    True
    """

    def __init__(self, *, weight: float = 0.01):
        self.weight = weight

    def bind(self, context: PenaltyContext) -> Callable[[PenaltyBatch], torch.Tensor]:
        """Pair the parameters with their start.

        Parameters
        ----------
        context : PenaltyContext
            The network, its start and the data.

        Returns
        -------
        callable
            ``term(batch)``, which does not depend on the batch.
        """
        pairs = [
            (w, context.start[name])
            for name, w in context.module.named_parameters()
            if w.requires_grad
        ]

        def term(batch: PenaltyBatch) -> torch.Tensor:
            zero = batch.outputs.new_zeros(())
            return sum(((w - start).square().sum() for w, start in pairs), zero) / 2

        return term
