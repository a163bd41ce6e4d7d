"""The selector that evaluates all candidates on all samples."""

from __future__ import annotations

from sktransfer.model_selection._base import BaseModelSelector
from sktransfer.model_selection._evaluate import Evaluate


class ModelSelector(BaseModelSelector):
    r"""Rank pre-trained models by how well they will transfer to labelled data.

    Each extractor turns the data into features once, and metrics score the features
    against the target. The best extractor and a LogME head then predict.

    Parameters
    ----------
    extractors : list of (str, transformer) tuples
        Candidates by name: extractors, other scikit-learn transformers, or pipelines of
        them. An extractor with several layers runs once and gives one row per layer.
    scoring : str, list of str, Metric, scorer or dict, default="frozen"
        What the network is for, or metrics. ``"frozen"`` is for features that stay as
        they are, under a head such as that of `best_estimator_`: it ranks by
        ``loo_log_likelihood``. ``"fine_tuning"`` is for networks that will be
        fine-tuned whole: it ranks by ``deep_logme``, which looks at all layers. Both
        add ``loo_accuracy`` (for numbers ``loo_r2``) and ``logme``.
        Metrics are given by name, such as ``"logme"`` (see
        :func:`~sktransfer.metrics.get_scorer_names`), or in any form that
        :func:`~sktransfer.metrics.make_transferability_scorer` takes.
    refit : bool or str, default=True
        Whether to keep the best model. With several metrics, the name of the one that
        decides; True stands for the first.
    task : {"auto", "classification", "regression", "multilabel"}, default="auto"
        How all metrics read the target. ``"auto"`` takes columns of 0 and 1 for several
        labels, integers and text for classes, and floats, even whole ones, for numbers.
    fit_intercept : bool or "auto", default="auto"
        Whether LogME and the head of the best model have an intercept. With ``"auto"``
        the head has one, and LogME has one for regression: for classes it is that of
        the papers.
    n_jobs : int, default=None
        Number of candidates evaluated in parallel. See joblib's `parallel_config` for
        backends, including those that use other machines.
    memory : str or joblib.Memory, default=None
        Where to keep extracted features. A later run, or one that was killed and is
        started again, extracts only what is missing: of an extractor the samples that
        are new, of a transformer that learns from its samples all of them.
    error_score : "raise" or number, default=np.nan
        Score of a candidate that fails; its row has the reason. ``"raise"`` stops at
        the first failure.
    verbose : int, default=0
        If positive, print the task and one line per candidate. For a progress bar use
        ``set_callbacks(sklearn.callback.ProgressBar())``.

    Attributes
    ----------
    results_ : dict of str to ndarray
        One entry per row (candidate, or layer of one): ``name``, ``layer``, a column
        per metric, ``<metric>_std_error`` for metrics that have one, ``<metric>_gain``
        over features that say nothing where that is known, ``rank`` (from 1, by the
        metric that decides), ``rank_<metric>`` if there are several,
        ``n_samples``, ``n_features``, ``extract_time`` and ``score_time`` (seconds),
        ``error`` (empty if there was none).
    ranking_ : list of str
        Labels of the rows (``name`` or ``name/layer``) from best to worst, failed ones
        last.
    best_index_ : int
        Row of the best.
    best_name_ : str
    best_score_ : float
    best_extractor_ : transformer
        Fitted. Like `best_estimator_`, only with `refit`.
    best_estimator_ : Pipeline
        ``Pipeline([("extract", best_extractor_), ("logme", LogME…)])``, fitted. The
        head has one prior for all classes, and the ``loo_`` attributes. For features of
        words, a step between the two concatenates those of all sentences.
    probability_better_ : ndarray of shape (n_rows, n_rows)
        Probability that row i has a larger score than row j on this many samples; with
        more samples the order may change. The score is that of the metric that decides
        or, if that has no standard error, of the first metric that has one; without any
        there is no such attribute. NaN for rows that failed or lack a standard error.
    probability_better_by_metric_ : dict of str to ndarray of shape (n_rows, n_rows)
        The same of each metric that has a standard error. Absent if none has.
    no_information_ : dict of str to float
        The value of each metric, where it is known, for features that say nothing about
        the target, on the samples of the best row: a LogME in the limit of an infinite
        prior precision, the share of the most frequent class, an R^2 of 0.
    task_ : str
    scorer_ : TransferabilityScorer
    classes_ : ndarray of shape (n_classes,)
        Only for classification.
    n_features_in_ : int
        Only if the best extractor has it.

    See Also
    --------
    BaseModelSelector : For other policies than all candidates on all samples.
    WholeDataset : For the same ranking by `GridSearchCV`.
    sktransfer.datasets.load_zoo : Small pre-trained networks to try it with.

    Notes
    -----
    If an extractor gives several layers, the TransRate of each is multiplied by
    :func:`~sktransfer.metrics.layer_factor`, relative to the last of them, so that no
    layer wins by its width.

    Only the best network so far stays in memory, on the device where it ran. The others
    are loaded again when one of the :meth:`teachers` is used. So is the best after a
    run in worker processes, from `memory` or from a pickle. The weights that are loaded
    must be those that were scored: a factory that gives other weights at every call is
    refused.

    References
    ----------
    .. [1] K. You, Y. Liu, Z. Zhang, J. Wang, M. I. Jordan, M. Long, "Ranking and Tuning
       Pre-trained Models: A New Paradigm for Exploiting Model Hubs", JMLR 23, 2022.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from sklearn.decomposition import PCA
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sktransfer.model_selection import ModelSelector
    >>> X, y = load_wine(return_X_y=True)
    >>> selector = ModelSelector([("pca", PCA(2)), ("scaled", StandardScaler())])
    >>> selector.fit(X, y).ranking_
    ['scaled', 'pca']
    >>> print(f"{selector.best_score_:.3f}")
    -0.025
    >>> print(f"{selector.probability_better_[1, 0]:.3f}")
    1.000
    """

    def _run_selection(self, evaluate: Evaluate) -> None:
        evaluate()

    def _max_evaluations(self) -> int | None:
        # A subclass may have a policy of its own.
        own = type(self)._run_selection is ModelSelector._run_selection
        return len(self.extractors) if own else None
