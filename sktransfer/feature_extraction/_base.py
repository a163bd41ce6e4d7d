"""The extractor protocol: what every feature extractor has in common."""

from __future__ import annotations

import copy
import functools
import inspect
from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.exceptions import NotFittedError
from sklearn.utils.metaestimators import available_if

from sktransfer.feature_extraction._collect import check_extraction, collect
from sktransfer.feature_extraction._fingerprint import digest
from sktransfer.feature_extraction._samples import (
    check_samples,
    is_array,
    read_samples,
)
from sktransfer.feature_extraction._tokens import split_tokens
from sktransfer.utils._array_api import get_namespace


class _Pair(NamedTuple):
    features: dict[str, Any]
    source_proba: Any = None


class Extraction(_Pair):
    """Features and source probabilities of some samples, and all layers behind them.

    It unpacks to the pair ``features, source_proba``.

    Attributes
    ----------
    features : dict of str to array of shape (n_samples, n_features)
        The features of each layer, by name, in the order asked for.
    source_proba : array of shape (n_samples, n_source_classes) or None
        The model's own probabilities of the classes it was pre-trained on; None
        where they were not asked for.
    layers : dict of str to array of shape (n_samples, n_features) or None
        The outputs of all layers of the network, pooled, in the order of depth; None
        where they were not asked for.
    """

    layers: dict[str, Any] | None = None

    def __new__(
        cls,
        features: dict[str, Any],
        source_proba: Any = None,
        layers: dict[str, Any] | None = None,
    ) -> Extraction:
        self = super().__new__(cls, features, source_proba)
        self.layers = layers
        return self

    @property
    def joined(self) -> Any:
        """The features of all layers side by side, in order."""
        layers = list(self.features.values())
        if len(layers) == 1:
            return layers[0]
        xp, _ = get_namespace(**{f"layer {i}": x for i, x in enumerate(layers)})
        return xp.concat(layers, axis=1)


class BaseExtractor(TransformerMixin, BaseEstimator, metaclass=ABCMeta):
    """Base class of all extractors: transformers from raw inputs to features.

    The contract of an extractor:

    1. It is stateless: the features of a sample depend on the parameters and on that
       sample alone, so that samples can be extracted in parts.
    2. ``fit`` learns nothing; it checks the parameters and may be left out.
    3. A subclass writes either ``extract(X)``, which returns all features at once, or
       ``iter_extract(X)``, which yields them in batches. The other one, and all other
       methods, are derived from it.
    4. It reads each sample once, however many layers are asked for.
    5. Features are float32, of shape (n_samples, n_features), in the order of ``X``.
       Where ``gives_tokens`` is True, each row is a part of a sample, such as a word
       of a sentence, and the rows of all samples follow each other; ``len(sample)``
       counts its parts. ``transform`` then returns one array per sample.
       Where there are several layers, a parameter ``layer`` selects one.
    6. Source probabilities come from the same pass; their rows sum to one. A subclass
       that has them overrides :meth:`check_source_proba`. So do all layers of the
       network, for scores that read them: a subclass that shows them takes the argument
       ``all_layers`` and overrides :meth:`check_all_layers`. Neither changes the
       features.
    7. It changes neither ``X``, nor a model handed to it, nor any global state.
    8. Weights are loaded at first use and left out of pickles where possible.
    9. Equal fingerprints mean equal results, in any process, on any machine.
    10. NaN or infinite features are passed on: judging them is up to the caller.

    Attributes
    ----------
    gives_tokens : bool
        Whether the rows of the features are parts of samples.
    not_in_fingerprint : set of str
        Parameters that change the speed of the extraction, but not the features.

    See Also
    --------
    BaseNetworkExtractor : Base class of extractors that run a PyTorch module.

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

    not_in_fingerprint = frozenset({"batch_size", "device"})

    gives_tokens = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Derive one of `extract` and `iter_extract` from the other."""
        super().__init_subclass__(**kwargs)
        first = {
            name: next(i for i, own in enumerate(cls.__mro__) if name in vars(own))
            for name in ("extract", "iter_extract")
        }
        if first["extract"] < first["iter_extract"]:  # maybe that of a mixin
            cls.iter_extract = _at_once(cls.extract)
        elif first["iter_extract"] < first["extract"]:
            cls.extract = _collected(cls.iter_extract)

    @abstractmethod
    def extract(
        self, X: Any, *, source_proba: bool = False, all_layers: bool = False
    ) -> Extraction:
        """Features, and source probabilities and all layers if wanted, in one pass.

        Parameters
        ----------
        X : collection of n_samples raw inputs
            The class says what it may hold.
        source_proba : bool, default=False
            Whether to return the source probabilities too.
        all_layers : bool, default=False
            Whether to return all layers of the network too, whatever layers give the
            features. An extractor that cannot need not have this argument.

        Returns
        -------
        extraction : Extraction
            The named tuple ``(features, source_proba)``: a dict of float32 arrays
            (n_samples, n_features) by layer, and None or a float32 array (n_samples,
            n_source_classes). Its attribute `layers` is None or a dict of float32
            arrays, the outputs of all layers in the order of depth.

        Raises
        ------
        ValueError
            If source probabilities or all layers are asked for and there are none, or
            for the reasons that :meth:`iter_extract` names.
        """

    @abstractmethod
    def iter_extract(
        self, X: Any, *, source_proba: bool = False, all_layers: bool = False
    ) -> Iterator[tuple[Any, Extraction]]:
        """Features batch by batch, on the device where they are computed.

        Parameters
        ----------
        X : collection of n_samples raw inputs
            See :meth:`extract`.
        source_proba : bool, default=False
            Whether to yield the source probabilities too.
        all_layers : bool, default=False
            Whether to yield all layers too; see :meth:`extract`.

        Yields
        ------
        rows : slice or array of int
            The rows of the batch in the order of ``X``. Each row comes once; batches
            may come in any order.
        extraction : Extraction
            The features, source probabilities and layers of these rows.
        """

    def check_source_proba(self) -> None:
        """Raise a ValueError that says why there are no source probabilities.

        A subclass that has source probabilities overrides this method, and returns
        where it can give them.
        """
        raise ValueError(f"{type(self).__name__} has no source probabilities.")

    def check_all_layers(self) -> None:
        """Raise a ValueError that says why the layers of the network are not shown.

        A subclass that shows them overrides this method, and returns where it can.
        """
        raise ValueError(f"{type(self).__name__} shows no layers of a network.")

    def pin_weights(self, pinned: str | None = None) -> None:
        """Make later loads of the weights fail if these have changed.

        An extractor without weights to load has nothing to pin.

        Parameters
        ----------
        pinned : str, default=None
            The `pinned_weights` of another extractor. None pins the weights loaded now,
            or those of the next load.
        """

    @property
    def pinned_weights(self) -> str | None:
        """Digest of the weights that :meth:`pin_weights` has pinned, or None."""
        return None

    def release(self) -> None:
        """Free what can be loaded again, above all the weights."""

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any = None, y: Any = None) -> BaseExtractor:
        """Check the parameters. Nothing is learnt, and no weights are loaded.

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
            Float32 features. Where ``gives_tokens`` is True, an array of objects: for
            each sample an array (n_parts, n_features).
        """
        X = self._read_once(X)
        extraction = check_extraction(self.extract(X), self, "extract must return")
        widths = {name: f.shape[1] for name, f in extraction.features.items()}
        self._cache()["widths"] = widths
        return self._per_sample(extraction.joined, X)

    def transform_layers(self, X: Any) -> dict[str, np.ndarray]:
        """Features of each layer, from one pass over the samples.

        Parameters
        ----------
        X : collection of n_samples raw inputs
            See :meth:`extract`.

        Returns
        -------
        features : dict of str to ndarray of shape (n_samples, n_features)
            What :meth:`transform` returns, by the name of the layer.
        """
        X = self._read_once(X)
        extraction = check_extraction(self.extract(X), self, "extract must return")
        layers = extraction.features
        return {name: self._per_sample(rows, X) for name, rows in layers.items()}

    @available_if(lambda extractor: extractor.check_source_proba() is None)
    def source_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the classes that the model was pre-trained on.

        The method exists only where the extractor has such probabilities
        (``hasattr(extractor, "source_proba")``). For the features as well, call
        :meth:`extract`, which returns both from one pass.

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
        """Copy the extractor, restricted to one of its layers.

        Parameters
        ----------
        name : str
            A key of what :meth:`transform_layers` returns.

        Returns
        -------
        extractor : BaseExtractor
            A copy with ``layer`` set. It shares the model, whether that was given as a
            parameter or loaded since.

        Raises
        ------
        TypeError
            If the class has no parameter ``layer``.
        """
        if "layer" not in self.get_params(deep=False):
            raise TypeError(
                f"{type(self).__name__} returns several layers, so its class needs a "
                "parameter 'layer': the name of one layer, or None for all. To rank "
                "them as one, return their concatenation."
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
            For example "block1_0", "block1_1".

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
        """Return a digest of what this extractor computes, for use as a cache key.

        It covers the class, the parameters except those that only change the speed
        (``batch_size``, ``device``), and the identity of the weights. Functions and
        classes of installed libraries count by name and version, everything else by
        content: your own functions and classes by their code and what it refers to.
        Files count by size and time if they are named by a parameter that a network is
        made from or, where a function makes it, in its arguments, constants or globals;
        a file that is found in another way does not.

        Returns
        -------
        fingerprint : str
            64 hexadecimal digits, the same in every process and after pickling.

        Raises
        ------
        TypeError
            If a parameter cannot be identified by its content, such as a lock or a
            TorchScript module.
        """
        return digest([type(self), self._fingerprint_params()])

    def set_params(self, **params: Any) -> BaseExtractor:
        if params:
            self._cache().pop("widths", None)  # of the features as they were
        return super().set_params(**params)

    def _read_once(self, X: Any) -> Any:
        """Samples that are counted by their parts, too, read from a dataset."""
        if not self.gives_tokens:
            return X
        held, n_samples = check_samples(X, self)
        is_held = is_array(held) or isinstance(held, (list, tuple))
        return X if is_held else read_samples(held, 0, n_samples)

    def _per_sample(self, rows: Any, X: Any) -> Any:
        if not self.gives_tokens:
            return rows
        X, n_samples = check_samples(X, self)
        return split_tokens(rows, read_samples(X, 0, n_samples))

    def _cache(self) -> dict[str, Any]:
        """What was derived from the parameters so far; no part of the state."""
        return self.__dict__.setdefault("_derived", {})

    def _fingerprint_params(self) -> dict[str, Any]:
        params = self.get_params(deep=False)
        return {k: v for k, v in params.items() if k not in self.not_in_fingerprint}

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


# They call the method of the class that wrote it, not that of `self`: a subclass may
# override either of the two and call `super()`.


def _at_once(extract: Callable) -> Callable:
    """Make `iter_extract` of `extract`: a single batch."""

    @functools.wraps(BaseExtractor.iter_extract)
    def iter_extract(self, X, **wanted):
        yield slice(None), extract(self, X, **wanted)

    return _derived(iter_extract, extract)


def _collected(iter_extract: Callable) -> Callable:
    """Make `extract` of `iter_extract`."""

    @functools.wraps(BaseExtractor.extract)
    def extract(self, X, **wanted):
        X = self._read_once(X)
        return Extraction(*collect(iter_extract(self, X, **wanted), X, self))

    return _derived(extract, iter_extract)


def _derived(method: Callable, origin: Callable) -> Callable:
    """The method, which takes the arguments of the one that it is made of."""
    method.__isabstractmethod__ = False
    method.__signature__ = inspect.signature(origin)
    return method


def takes_all_layers(method: Callable) -> bool:
    """Whether a method has the argument `all_layers`, which older ones lack."""
    parameters = inspect.signature(method).parameters
    kinds = {parameter.kind for parameter in parameters.values()}
    return "all_layers" in parameters or inspect.Parameter.VAR_KEYWORD in kinds
