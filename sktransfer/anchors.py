"""Prompt anchors: words that represent classes."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
from scipy.sparse import issparse
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context, clone
from sklearn.preprocessing import normalize
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    StrOptions,
    validate_params,
)
from sklearn.utils.extmath import safe_sparse_dot
from sklearn.utils.multiclass import unique_labels
from sklearn.utils.validation import check_is_fitted, validate_data

from sktransfer.utils._array_api import to_numpy, unit_rows
from sktransfer.utils._validation import FLOAT_DTYPES, check_labels

__all__ = ["AnchorClassifier", "nearest_words", "word_embeddings"]


class AnchorClassifier(ClassifierMixin, BaseEstimator):
    r"""Classify texts by the words that represent each class.

    Parameters
    ----------
    anchors : dict
        The anchors of each class label: a word or a list of words (any text that
        `encoder` takes), or their embeddings, an array of shape (n_words, n_features)
        or (n_features,).
    encoder : transformer, default=None
        Embeds the samples, and the anchors that are words. If None, both X and
        `anchors` must hold embeddings.
    normalize : bool, default=False
        Whether to scale all embeddings to unit length, so that the scores are cosines.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels that have anchors, sorted.
    coef_ : ndarray of shape (n_classes, n_features)
        Mean embedding of the words of each class.
    encoder_ : transformer or None
        The fitted encoder.
    n_features_in_ : int
        Only if X holds embeddings.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Only if X is a data frame of embeddings.

    See Also
    --------
    word_embeddings : Embeddings of words.
    nearest_words : The words closest to an anchor.
    sktransfer.linear_model.LogMEClassifier : Learns virtual anchors from samples.

    Notes
    -----
    The predicted class is :math:`\arg\max_c \, E_x \cdot \bar E_c`, where
    :math:`\bar E_c` is the mean embedding of the words of class c. For two classes with
    one word each it is positive if :math:`E_S \cdot E_P > E_S \cdot E_N` [1]_. Ties
    go to the first class in `classes_`.

    Labels are not used. `predict_proba` is the soft-max of the inner products, which
    depend on the scale of the embeddings: its values are not calibrated.

    `encoder` is cloned before it is fitted, and the clone loads its own weights. To
    share weights, wrap it in :class:`sklearn.frozen.FrozenEstimator`.

    References
    ----------
    .. [1] K. You, Y. Liu, Z. Zhang, J. Wang, M. I. Jordan, M. Long, "Ranking and Tuning
       Pre-trained Models: A New Paradigm for Exploiting Model Hubs", JMLR 23, 2022,
       section 6.6.

    Examples
    --------
    Any transformer of texts can be the encoder; this one knows four words.

    >>> from sklearn.feature_extraction.text import CountVectorizer
    >>> from sktransfer.anchors import AnchorClassifier
    >>> words = ["good", "nice", "bad", "poor"]
    >>> encoder = CountVectorizer(vocabulary=words)
    >>> anchors = {"positive": ["good", "nice"], "negative": ["bad", "poor"]}
    >>> sentences = ["nice film", "good , nice plot", "poor acting", "bad if good"]
    >>> AnchorClassifier(anchors, encoder=encoder).fit().predict(sentences)
    array(['positive', 'positive', 'negative', 'negative'], dtype='<U8')

    :class:`~sktransfer.linear_model.LogMEClassifier` learns virtual anchors from
    labelled embeddings, which :func:`nearest_words` turns back into words.

    >>> from sktransfer.anchors import nearest_words
    >>> from sktransfer.linear_model import LogMEClassifier
    >>> X = encoder.transform(sentences).toarray()
    >>> virtual = LogMEClassifier().fit(X, ["good", "good", "bad", "bad"]).coef_
    >>> nearest, _ = nearest_words(virtual, encoder.transform(words), words, k=1)
    >>> nearest
    array([['poor'],
           ['nice']], dtype='<U4')
    """

    _parameter_constraints: dict = {
        "anchors": [dict],
        "encoder": [HasMethods(["fit", "transform"]), None],
        "normalize": ["boolean"],
    }

    def __init__(
        self,
        anchors: dict[Any, Any],
        *,
        encoder: Any = None,
        normalize: bool = False,
    ):
        self.anchors = anchors
        self.encoder = encoder
        self.normalize = normalize

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any = None, y: Any = None) -> AnchorClassifier:
        """Embed the anchors. Samples are needed only to fit `encoder`.

        Parameters
        ----------
        X : texts, or array-like of shape (n_samples, n_features), default=None
            What `encoder` takes, or embeddings.
        y : array-like of shape (n_samples,), default=None
            Labels, each of which must have anchors; passed to `encoder`.

        Returns
        -------
        self : object
            The fitted classifier.

        Raises
        ------
        ValueError
            If there are fewer than two classes, a class has no words, a label has no
            anchors, or the embeddings do not fit together.
        """
        if len(self.anchors) < 2:
            raise ValueError(
                "The 'anchors' parameter of AnchorClassifier must have at least 2 "
                f"classes. Got {list(self.anchors)}."
            )
        self.classes_ = unique_labels(list(self.anchors))
        if y is not None:
            self._check_labels(check_labels(y, X))
        self.encoder_ = None if self.encoder is None else clone(self.encoder)
        if self.encoder is not None and X is not None:
            self.encoder_.fit(X, y)
        means = {label: self._embed_anchors(label) for label in self.anchors}
        widths = {label: len(mean) for label, mean in means.items()}
        if len(set(widths.values())) > 1:
            raise ValueError(
                "The anchors of all classes must have the same number of features. "
                f"Got {widths}."
            )
        self.coef_ = np.stack([means[label] for label in self.classes_.tolist()])
        if self.encoder is None and X is None:
            self.n_features_in_ = self.coef_.shape[1]
        elif self.encoder is None:
            X = self._validate(X, reset=True)
            self._check_width(X.shape[1])
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Inner products of samples and the anchors of each class.

        Parameters
        ----------
        X : texts, or array-like of shape (n_samples, n_features)
            What `encoder` takes, or embeddings.

        Returns
        -------
        scores : ndarray of shape (n_samples, n_classes) or (n_samples,)
            For two classes, the second score minus the first.
        """
        scores = self._scores(X)
        return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores

    def predict(self, X: Any) -> np.ndarray:
        """Predict the class with the largest inner product.

        Parameters
        ----------
        X : texts, or array-like of shape (n_samples, n_features)
            What `encoder` takes, or embeddings.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
            Some of `classes_`.
        """
        scores = self._scores(X)
        return self.classes_[np.argmax(scores, axis=1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Soft-max of the inner products.

        Parameters
        ----------
        X : texts, or array-like of shape (n_samples, n_features)
            What `encoder` takes, or embeddings.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes)
            Each row sums to one.
        """
        return softmax(self._scores(X), axis=1)

    def _check_labels(self, y: np.ndarray) -> None:
        if unknown := sorted(set(y.tolist()) - set(self.classes_.tolist())):
            raise ValueError(
                f"y contains labels that have no anchors: {unknown}; expected some of "
                f"{self.classes_.tolist()}."
            )

    def _embed_anchors(self, label: Any) -> np.ndarray:
        """Mean embedding of the words of one class."""
        given = self.anchors[label]
        words = [given] if isinstance(given, str) else list(given)
        what = f"anchors of class {label!r}"
        if not words:
            raise ValueError(f"The {what} are empty: at least one word is needed.")
        if not isinstance(words[0], str):
            embedded = given if issparse(given) else np.atleast_2d(to_numpy(given))
        elif self.encoder is None:
            raise ValueError(
                f"The {what} are words, which need the 'encoder' parameter of "
                "AnchorClassifier; without it they must be embeddings. Got "
                "encoder=None."
            )
        else:
            embedded = self.encoder_.transform(words)
        mean = self._scaled(_check_embeddings(embedded, what)).mean(axis=0)
        return np.asarray(mean).ravel()

    def _validate(self, X: Any, *, reset: bool) -> Any:
        return validate_data(
            self, X, reset=reset, accept_sparse="csr", dtype=FLOAT_DTYPES
        )

    def _scaled(self, embeddings: Any) -> Any:
        return _unit_rows(embeddings) if self.normalize else embeddings

    def _scores(self, X: Any) -> np.ndarray:
        """Inner products, of shape (n_samples, n_classes)."""
        check_is_fitted(self)
        if self.encoder_ is None:
            embeddings = self._validate(X, reset=False)
        else:
            embeddings = _check_embeddings(self.encoder_.transform(X), "samples")
        self._check_width(embeddings.shape[1])
        return safe_sparse_dot(self._scaled(embeddings), self.coef_.T)

    def _check_width(self, n_features: int) -> None:
        if n_features != self.coef_.shape[1]:
            raise ValueError(
                f"The embeddings of samples have {n_features} features, but those of "
                f"the anchors have {self.coef_.shape[1]}."
            )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = False
        tags.input_tags.sparse = True
        tags.input_tags.two_d_array = self.encoder is None
        tags.input_tags.string = self.encoder is not None
        return tags


def _unit_rows(embeddings: Any) -> Any:
    """Rows of length one, or zero, whatever their unit; sparse ones stay sparse."""
    if not issparse(embeddings):
        return unit_rows(embeddings)
    # Largest entries of 1 first: scikit-learn leaves very short rows as they are.
    largest = abs(embeddings).max(axis=1).toarray().ravel()
    sizes = np.repeat(np.where(largest > 0, largest, 1), np.diff(embeddings.indptr))
    scaled = embeddings.copy()
    scaled.data = scaled.data / sizes
    return normalize(scaled, copy=False)


def _check_embeddings(embeddings: Any, name: str) -> Any:
    if not issparse(embeddings):
        embeddings = to_numpy(embeddings)
    return check_array(
        embeddings, accept_sparse="csr", dtype=FLOAT_DTYPES, input_name=name
    )


@validate_params(
    {
        "extractor": [HasMethods("transform")],
        "words": ["array-like", None],
        "source": [StrOptions({"encoder", "input"})],
    },
    prefer_skip_nested_validation=True,
)
def word_embeddings(
    extractor: Any, words: Sequence[str] | None = None, *, source: str = "encoder"
) -> tuple[list[str], np.ndarray]:
    """Embeddings of words, from a language model or from its input layer alone.

    Parameters
    ----------
    extractor : TransformersFeatureExtractor, or another transformer of texts
        Must be the former if `words` is None or `source` is "input".
    words : list of str, default=None
        The words. If None, all entries of the tokenizer's vocabulary that consist of
        letters and that it does not split.
    source : {"encoder", "input"}, default="encoder"
        "encoder" transforms each word as a text. "input" takes the rows of the input
        embedding matrix, averaged if the tokenizer splits the word.

    Returns
    -------
    words : list of str
        The words.
    embeddings : ndarray of shape (n_words, n_features)
        One row per word.

    Raises
    ------
    ValueError
        If the model has no input embedding of a word.
    TypeError
        If a tokenizer is needed and `extractor` has none.

    See Also
    --------
    nearest_words : The words whose embeddings are close to an anchor.

    Notes
    -----
    Only "encoder" embeddings are comparable with those of sentences. In most models
    "input" embeddings have the same width, but their directions mean something else.

    Examples
    --------
    >>> from sklearn.feature_extraction.text import CountVectorizer
    >>> from sktransfer.anchors import word_embeddings
    >>> encoder = CountVectorizer(analyzer="char", vocabulary=["a", "b", "d"])
    >>> words, embeddings = word_embeddings(encoder, ["bad", "add"])
    >>> embeddings.toarray()
    array([[1., 1., 1.],
           [1., 0., 2.]])
    """
    tokenizer = model = None
    if words is None or source == "input":
        if not hasattr(extractor, "load_tokenizer"):
            raise TypeError(
                "The vocabulary and the input embeddings are those of a language "
                "model: `extractor` must be a TransformersFeatureExtractor. Got an "
                f"object of type {type(extractor).__name__}."
            )
        model, tokenizer = extractor.load_module(), extractor.load_tokenizer()
    words = _vocabulary(tokenizer) if words is None else [str(word) for word in words]
    if source == "encoder":
        return words, _check_embeddings(extractor.transform(words), "word_embeddings")
    matrix = to_numpy(model.get_input_embeddings().weight.float())
    rows = []
    for word, ids in zip(words, _token_ids(tokenizer, words), strict=True):
        if not ids or tokenizer.unk_token_id in ids:
            raise ValueError(
                f"The model has no input embedding of the word {word!r}: its tokenizer "
                f"makes {tokenizer.convert_ids_to_tokens(ids)} of it."
            )
        rows.append(matrix[ids].mean(axis=0))
    return words, np.stack(rows)


def _token_ids(tokenizer: Any, words: list[str]) -> list[list[int]]:
    return tokenizer(words, add_special_tokens=False)["input_ids"]


def _vocabulary(tokenizer: Any) -> list[str]:
    """Words that are one token: entries of the vocabulary without their markers."""
    tokens = sorted(set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens))
    texts = {tokenizer.convert_tokens_to_string([token]).strip() for token in tokens}
    words = sorted(text for text in texts if text.isalpha())
    ids = _token_ids(tokenizer, words)
    unknown = [tokenizer.unk_token_id]
    return [
        word
        for word, own in zip(words, ids, strict=True)
        if len(own) == 1 and own != unknown
    ]


@validate_params(
    {
        "coef": ["array-like"],
        "word_embeddings": ["array-like", "sparse matrix"],
        "words": ["array-like"],
        "k": [Interval(Integral, 1, None, closed="left")],
    },
    prefer_skip_nested_validation=True,
)
def nearest_words(
    coef: Any, word_embeddings: Any, words: Sequence[str], k: int = 10
) -> tuple[np.ndarray, np.ndarray]:
    """Find the words whose embeddings are closest in direction to an anchor.

    Parameters
    ----------
    coef : array-like of shape (n_classes, n_features) or (n_features,)
        Anchors, such as `coef_` of :class:`~sktransfer.linear_model.LogMEClassifier`.
    word_embeddings : array-like of shape (n_words, n_features)
        The embeddings to search, in the same space as `coef`.
    words : list of str
        Their words.
    k : int, default=10
        The number of words for each class, or all of them if there are fewer.

    Returns
    -------
    nearest : ndarray of shape (n_classes, k)
        The words of each class, the nearest first.
    similarities : ndarray of shape (n_classes, k)
        Their cosine similarity to the anchor.

    Raises
    ------
    ValueError
        If the arrays have inconsistent shapes.

    See Also
    --------
    word_embeddings : The embeddings of a vocabulary.
    AnchorClassifier : Classify with anchors.

    Notes
    -----
    The anchors of a model without intercept also contain what all sentences share; use
    ``coef - coef.mean(axis=0)`` to see the differences between classes. An anchor of
    length zero (no evidence) has similarity 0 to every word.

    Examples
    --------
    >>> from sktransfer.anchors import nearest_words
    >>> words = ["good", "great", "bad"]
    >>> embeddings = [[1.0, 0.0], [3.0, 3.0], [-1.0, 0.2]]
    >>> nearest, similarities = nearest_words([[5.0, 0.5]], embeddings, words, k=2)
    >>> nearest
    array([['good', 'great']], dtype='<U5')
    >>> similarities.round(2)
    array([[1.  , 0.77]])
    """
    words = np.asarray(words)
    coef = np.atleast_2d(check_array(to_numpy(coef), ensure_2d=False))
    embeddings = _check_embeddings(word_embeddings, "word_embeddings")
    check_consistent_length(embeddings, words)
    if coef.shape[1] != embeddings.shape[1]:
        raise ValueError(
            f"coef has {coef.shape[1]} features, but word_embeddings has "
            f"{embeddings.shape[1]}: both must come from one space."
        )
    cosines = safe_sparse_dot(_unit_rows(coef), _unit_rows(embeddings).T)
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    return words[order], np.take_along_axis(cosines, order, axis=1)
