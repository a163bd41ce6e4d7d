"""The extractor protocol: what every feature extractor has in common."""

from __future__ import annotations

import copy
import os
from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.exceptions import NotFittedError
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import _num_samples

from sktransfer.feature_extraction._fingerprint import digest
from sktransfer.feature_extraction._weights import check_weights


class Extraction(NamedTuple):
    """What one pass over the samples gives.

    Attributes
    ----------
    features : dict of str to ndarray of shape (n_samples, n_features)
        The features of each layer, by name, in the order asked for.

    source_proba : ndarray of shape (n_samples, n_source_classes) or None
        The model's own probabilities of the classes it was pre-trained on; None
        where they were not asked for.
    """

    features: dict[str, np.ndarray]
    source_proba: np.ndarray | None = None

    @property
    def joined(self) -> np.ndarray:
        """The features of all layers side by side, in order."""
        layers = list(self.features.values())
        return layers[0] if len(layers) == 1 else np.concatenate(layers, axis=1)


def _offers_source_proba(extractor: BaseExtractor) -> bool:
    extractor._check_source_proba()
    return True


class BaseExtractor(TransformerMixin, BaseEstimator, metaclass=ABCMeta):
    """Base class of all extractors: transformers from raw inputs to features.

    The contract of an extractor:

    1. It is stateless: what it gives depends on its parameters and the input alone.
    2. ``fit`` learns nothing; it checks the parameters and may be left out.
    3. ``extract(X)`` is the one method to write; all others are made from it.
    4. It reads each sample once, however many layers are asked for.
    5. Features are float32, of shape (n_samples, n_features), in the order of ``X``.
       Where ``gives_tokens`` is True, the rows are those of the parts of all samples,
       such as the words of sentences, one after the other; ``transform`` gives an
       array for each sample.
       Where it gives several layers, a parameter ``layer`` names the one to give.
    6. Source probabilities come from the same pass; their rows sum to one.
    7. It changes neither ``X``, nor a model handed to it, nor any global state.
    8. Weights are loaded at the first use and left out of pickles where possible.
    9. Equal fingerprints mean equal results, in any process, on any machine.
    10. NaN or infinite features are handed on: judging them is up to the caller.

    See Also
    --------
    TorchFeatureExtractor : Features from the layers of a PyTorch module.

    Examples
    --------
    >>> import numpy as np
    >>> from sktransfer.feature_extraction import BaseExtractor, Extraction
    >>> class Moments(BaseExtractor):
    ...     '''Mean and standard deviation over all but the first axis.'''
    ...
    ...     def extract(self, X, *, source_proba=False):
    ...         axes = tuple(range(1, X.ndim))
    ...         moments = np.stack([X.mean(axes), X.std(axes)], axis=1)
    ...         return Extraction({"moments": moments.astype(np.float32)})
    >>> Moments().transform(np.array([[0.0, 2.0], [4.0, 10.0]]))
    array([[1., 1.],
           [7., 3.]], dtype=float32)
    """

    _parameter_constraints: dict = {}

    # Parameters that change how fast the features come, but not the features.
    _not_in_fingerprint: tuple[str, ...] = ("batch_size", "device")

    gives_tokens = False

    @abstractmethod
    def extract(self, X: Any, *, source_proba: bool = False) -> Extraction:
        """Features of all layers, and source probabilities if wanted, in one pass.

        Parameters
        ----------
        X : collection of n_samples raw inputs
            What it may hold is up to the extractor.

        source_proba : bool, default=False
            Whether to give the source probabilities too.

        Returns
        -------
        extraction : Extraction
            The named tuple ``(features, source_proba)``.

        Raises
        ------
        ValueError
            If the extractor has no source probabilities, and they are asked for.
        """

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any = None, y: Any = None) -> BaseExtractor:
        """Check the parameters. Nothing is learnt, no weights are loaded.

        Parameters
        ----------
        X : collection of n_samples raw inputs, default=None
            Only checked for being a collection of samples.

        y : Ignored
            Present for API consistency.

        Returns
        -------
        self : object
            The extractor itself.
        """
        if X is not None:
            check_samples(X, self)
        self._cache()
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Features of the samples; those of several layers side by side, in order.

        Parameters
        ----------
        X : collection of n_samples raw inputs
            See :meth:`extract`.

        Returns
        -------
        features : ndarray of shape (n_samples, n_features)
            Float32 features.
        """
        extraction = self.extract(X)
        widths = {name: f.shape[1] for name, f in extraction.features.items()}
        self._cache()["widths"] = widths
        return extraction.joined

    def transform_layers(self, X: Any) -> dict[str, np.ndarray]:
        """Features of each layer, from one pass over the samples.

        Parameters
        ----------
        X : collection of n_samples raw inputs
            See :meth:`extract`.

        Returns
        -------
        features : dict of str to ndarray of shape (n_samples, n_features)
            Float32 features by the name of their layer.
        """
        return self.extract(X).features

    @available_if(_offers_source_proba)
    def source_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the classes that the model was pre-trained on.

        The method is there only where the extractor has such probabilities
        (``hasattr(extractor, "source_proba")``). To have the features as well, call
        :meth:`extract`, which gives both from one pass.

        Parameters
        ----------
        X : collection of n_samples raw inputs
            See :meth:`extract`.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_source_classes)
            Float32 probabilities; each row sums to one.
        """
        return self.extract(X, source_proba=True).source_proba

    def select_layer(self, name: str) -> BaseExtractor:
        """An extractor like this one that gives one of its layers only.

        Parameters
        ----------
        name : str
            A key of what :meth:`transform_layers` returns.

        Returns
        -------
        extractor : BaseExtractor
            A copy with ``layer`` set. The model is shared with it, whether it was
            given as a parameter or loaded since.

        Raises
        ------
        TypeError
            If the class has no parameter ``layer``.
        """
        if "layer" not in self.get_params(deep=False):
            raise TypeError(
                f"{type(self).__name__} gives several layers, of which one is asked "
                "for: its class needs a parameter 'layer', the name of the one to give "
                "or None for all. To rank them as one, give their concatenation."
            )
        selected = copy.copy(self)
        selected._derived = dict(self._cache())  # with the weights, if loaded
        return selected.set_params(layer=name)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the features: the layer's name and a running number.

        Parameters
        ----------
        input_features : Ignored
            Present for API consistency.

        Returns
        -------
        names : ndarray of str objects of shape (n_features,)
            Such as "block1_0", "block1_1", ...

        Raises
        ------
        NotFittedError
            Before the first call of :meth:`transform`: only a pass through the model
            tells how many features there are.
        """
        if "widths" not in self._cache():
            raise NotFittedError(
                f"This {type(self).__name__} instance has not transformed anything "
                "yet. Call 'transform' before asking for feature names: the number of "
                "features is known only then."
            )
        widths = self._cache()["widths"]
        names = [f"{name}_{i}" for name, n in widths.items() for i in range(n)]
        return np.array(names, dtype=object)

    def fingerprint(self) -> str:
        """A digest that identifies what this extractor computes, as a cache key.

        It is made of the class, the parameters but those that only change the speed
        (``batch_size``, ``device``), and the identity of the weights. Functions and
        classes of installed libraries count by name and version, everything else by
        content: your own functions and classes by their code and what it refers to.
        Where a function makes the network, files count, by size and time, that its
        arguments, constants or globals name; one that it finds in another way does not.

        Returns
        -------
        fingerprint : str
            64 hexadecimal digits, the same in every process and after pickling.

        Raises
        ------
        TypeError
            If a parameter holds something that cannot be told by its content, such as
            a lock or a TorchScript module.
        """
        return digest([type(self), self._fingerprint_params()])

    def set_params(self, **params: Any) -> BaseExtractor:
        """Set the parameters; see :meth:`sklearn.base.BaseEstimator.set_params`.

        Parameters
        ----------
        **params : dict
            Parameters of the extractor.

        Returns
        -------
        self : object
            The extractor itself.
        """
        if params:
            self._cache().pop("widths", None)  # of the features as they were
        if not {"layer", *self._not_in_fingerprint}.issuperset(params):
            self._cache().pop("weights", None)  # others may be meant from now on
        return super().set_params(**params)

    def _cache(self) -> dict[str, Any]:
        """What was derived from the parameters so far; no part of the state."""
        return self.__dict__.setdefault("_derived", {})

    def _pin_weights(self) -> None:
        """Have a later load of a network fail if it gives other weights."""
        cache = self._cache()
        pinned = cache.setdefault("weights", None)  # noted at the next load
        if pinned is None and "module" in cache:
            cache["weights"] = check_weights(cache["module"][1], None, self)

    def _release(self) -> None:
        """Let go of what can be loaded again, the weights above all."""
        kept = {k: v for k, v in self._cache().items() if k in ("widths", "weights")}
        self._derived = kept

    def _fingerprint_params(self) -> dict[str, Any]:
        params = self.get_params(deep=False)
        return {k: v for k, v in params.items() if k not in self._not_in_fingerprint}

    def _check_source_proba(self) -> None:
        """Raise a ValueError that says what to do if there are none."""
        raise ValueError(f"{type(self).__name__} has no source probabilities.")

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.no_validation = True
        tags.transformer_tags.preserves_dtype = []
        tags.input_tags.three_d_array = True
        tags.input_tags.allow_nan = True
        return tags


def is_array(X: Any) -> bool:
    """Whether X is an array or tensor, which can be cut along its first axis."""
    return hasattr(X, "shape") and hasattr(X, "dtype")


def check_samples(X: Any, estimator: object) -> tuple[Any, int]:
    """Check that X is a collection of samples, and count them.

    Parameters
    ----------
    X : array, tensor, sequence, data frame or map-style dataset
        One item, or one row, a sample.

    estimator : object
        Named in the errors.

    Returns
    -------
    X : array, tensor, list or dataset
        Data frames become arrays; arrays of objects or text become lists.

    n_samples : int
        At least 1.

    Raises
    ------
    TypeError
        If X is a single sample, has no length or is sparse.

    ValueError
        If X is empty.

    Examples
    --------
    >>> from sktransfer.feature_extraction._base import check_samples
    >>> check_samples(("a.png", "b.png"), None)
    (('a.png', 'b.png'), 2)
    """
    name = type(estimator).__name__
    if issparse(X):
        raise TypeError(
            f"Sparse data was passed for X, but {name} needs dense data. Use "
            "'.toarray()' to convert it to a dense array."
        )
    if isinstance(X, (str, bytes, os.PathLike, Mapping)):
        raise TypeError(
            f"{name} expects a collection of samples: an array, a tensor, a list or a "
            f"Dataset with a length. Got one {type(X).__name__} instead."
        )
    if hasattr(X, "to_numpy"):
        X = X.to_numpy()
    n_samples = _num_samples(X)
    if n_samples < 1:
        raise ValueError(
            f"Found array with 0 sample(s) (shape={tuple(getattr(X, 'shape', (0,)))}) "
            f"while a minimum of 1 is required by {name}."
        )
    if isinstance(X, np.ndarray) and X.dtype.kind in "OUST":
        X = list(X)  # file paths, images: nothing to compute with as it stands
    return X, n_samples


def read_samples(
    X: Any, start: int, stop: int, preprocess: Callable | None = None
) -> list:
    """Samples ``start`` to ``stop - 1`` one by one, preprocessed.

    Parameters
    ----------
    X : array, tensor, sequence or map-style dataset
        As :func:`check_samples` returns it. Where a dataset gives tuples such as
        (x, y), x is the sample.

    start, stop : int
        The samples to read.

    preprocess : callable, default=None
        Applied to each sample.

    Returns
    -------
    samples : list
        The ``stop - start`` samples.

    Raises
    ------
    ValueError
        If a sample cannot be read or preprocessed; names it, by path if it is one.

    Examples
    --------
    >>> from sktransfer.feature_extraction._base import read_samples
    >>> read_samples([1, 4, 9, 16], 1, 3, preprocess=str)
    ['4', '9']
    """
    is_dataset = not is_array(X) and not isinstance(X, (list, tuple))
    samples = []
    for i in range(start, stop):
        what = f"Sample {i} could not be read from X"
        try:
            sample = X[i]
            if is_dataset and isinstance(sample, tuple):
                sample = sample[0]
            if preprocess is not None:
                path = isinstance(sample, (str, os.PathLike))
                what = "`preprocess` failed on sample " + (
                    f"{i} ({os.fspath(sample)!r})" if path else str(i)
                )
                sample = preprocess(sample)
        except Exception as error:
            raise ValueError(f"{what}: {type(error).__name__}: {error}") from error
        samples.append(sample)
    return samples
