"""The selector that evaluates all candidates on all samples."""

from __future__ import annotations

from sktransfer.model_selection._base import BaseModelSelector
from sktransfer.model_selection._evaluate import Evaluate


class ModelSelector(BaseModelSelector):
    r"""Rank pre-trained models by how well they will transfer to labelled data.

    Every extractor turns the data into features once; metrics score the features
    against the target; the best, with a LogME head, is ready to predict.

    Parameters
    ----------
    extractors : list of (str, transformer) tuples
        Candidates by name: extractors, any scikit-learn transformers, or pipelines of
        them. An extractor with several layers is run once and gives a row for each.
    scoring : str, list of str, scorer or dict, default="logme"
        Metrics, by name (see :func:`~sktransfer.metrics.get_scorer_names`) or as
        :func:`~sktransfer.metrics.make_transferability_scorer` takes them.
    refit : bool or str, default=True
        Whether to keep the best model; with several metrics the name of the one that
        decides, True being the first.
    task : {"auto", "classification", "regression", "multilabel"}, default="auto"
        How to read the target, for every metric; ``"auto"`` takes columns of 0 and 1
        for several labels, integers and text for classes, and floats, even whole ones,
        for numbers.
    n_jobs : int, default=None
        Candidates at work at the same time; see joblib's `parallel_config` for
        backends, other machines among them.
    memory : str or joblib.Memory, default=None
        Where to keep extracted features: a later run, or the same run after it was
        killed, extracts only what is missing.
    error_score : "raise" or number, default=np.nan
        The score of a candidate that fails, whose row tells the reason; ``"raise"``
        stops at the first failure.
    verbose : int, default=0
        Above 0, the task and a line for each candidate are printed. For a progress bar
        use ``set_callbacks(sklearn.callback.ProgressBar())``.

    Attributes
    ----------
    results_ : dict of str to ndarray
        One entry a row (candidate, or layer of one): ``name``, ``layer``, a column for
        each metric, ``logme_std_error`` (nats), ``rank`` (from 1, by the metric that
        decides), ``rank_<metric>`` if there are several, ``n_features``,
        ``extract_time`` and ``score_time`` (seconds), ``error`` (empty if there was
        none).
    ranking_ : list of str
        Labels of the rows (``name`` or ``name/layer``) from best to worst; failed ones
        last.
    best_index_ : int
        Row of the best.
    best_name_ : str
    best_score_ : float
    best_extractor_ : transformer
        Fitted. With `refit` only, like `best_estimator_`.
    best_estimator_ : Pipeline
        ``Pipeline([("extract", best_extractor_), ("logme", LogME…)])``, fitted. Between
        the two, for features of words, a step that puts all words below each other.
    probability_better_ : ndarray of shape (n_rows, n_rows)
        Probability that row i has the larger LogME than row j on this many samples;
        for more samples the order may change. With LogME among the metrics only. NaN
        where it is unknown: of rows that failed or have no standard error.
    task_ : str
    scorer_ : TransferabilityScorer
    classes_ : ndarray of shape (n_classes,)
        For classification.
    n_features_in_ : int
        If the best extractor has it.

    See Also
    --------
    WholeDataset : For the same ranking by `GridSearchCV`.
    sktransfer.datasets.load_zoo : Small pre-trained networks to try it with.

    Notes
    -----
    `score` is the LogME of the best model's features on other data.

    Where an extractor gives several layers, the TransRate of each is multiplied by
    :func:`~sktransfer.metrics.layer_factor` (against the last of them), so that a layer
    does not win by its width.

    Only the best network so far stays in memory, on the device where it ran. Others are
    loaded again when one of the :meth:`teachers` is used, and so is the best after a
    run in worker processes, from `memory` or from a pickle. What is loaded must be what
    was scored: a factory that gives other weights at every call is refused then.

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
    -0.538
    >>> print(f"{selector.probability_better_[1, 0]:.3f}")
    1.000
    """

    def _run_selection(self, evaluate: Evaluate) -> None:
        evaluate()

    def _max_evaluations(self) -> int:
        return len(self.extractors)
