"""What all extractors that run a torch module have in common."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from itertools import chain
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils._param_validation import (
    Interval,
    InvalidParameterError,
    StrOptions,
)

from sktransfer.feature_extraction._base import Extraction
from sktransfer.feature_extraction._batches import collate, describe, to_device
from sktransfer.feature_extraction._in_use import in_use
from sktransfer.feature_extraction._layers import SOURCE, Layers
from sktransfer.feature_extraction._module import ModuleOwner
from sktransfer.feature_extraction._pooling import pool, softmax
from sktransfer.feature_extraction._samples import (
    check_samples,
    is_array,
    read_samples,
)
from sktransfer.feature_extraction._taps import run_with_taps
from sktransfer.utils._optional import import_optional

torch = import_optional("torch", extra="torch", needed_by="BaseNetworkExtractor")


class BaseNetworkExtractor(ModuleOwner):
    """Base class of extractors that run a PyTorch module.

    A subclass has a parameter `network`, which names, makes or is the module, and
    writes :meth:`make_module`. It may have any of the parameters `layer`, `pooling`,
    `preprocess`, `collate_fn`, `source_head`, `batch_size`, `device` and `dtype` of
    :class:`TorchFeatureExtractor`; those that it lacks have their defaults. It may
    override the other hooks, which :meth:`iter_extract` calls in this order:
    :meth:`find_device`, :meth:`load_module`, :meth:`find_layers`,
    :meth:`iter_batches` and, for each batch, :meth:`run_batch`, which calls
    :meth:`forward` and :meth:`pool`.

    Attributes
    ----------
    not_in_module : set of str
        The parameters that :meth:`make_module` does not read. Setting any other one
        makes the module anew.

    See Also
    --------
    BaseExtractor : The contract of all extractors.
    TorchFeatureExtractor : Features from the layers of any module.

    Examples
    --------
    >>> import torch
    >>> from sktransfer.feature_extraction import BaseNetworkExtractor
    >>> class Thumbnails(BaseNetworkExtractor):
    ...     '''The pixels of small copies of images; `network` is their side.'''
    ...
    ...     pooling = "flatten"
    ...
    ...     def __init__(self, network=4):
    ...         self.network = network
    ...
    ...     def make_module(self):
    ...         return torch.nn.AdaptiveAvgPool2d(self.network)
    >>> Thumbnails().transform(torch.ones(5, 3, 8, 8)).shape
    (5, 48)
    """

    _parameter_constraints: dict = {
        "layer": [str, list, tuple, None],
        "pooling": [StrOptions({"mean", "max", "flatten"}), callable, tuple],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "device": [str, torch.device],
        "dtype": [StrOptions({"float32", "bfloat16", "float16"}), None],
    }

    # The defaults of parameters that a subclass may lack.
    layer: Any = None
    pooling: Any = "mean"
    preprocess: Any = None
    collate_fn: Any = None
    source_head: str | None = None
    batch_size = 64
    device: Any = "auto"
    dtype: str | None = None

    not_in_module = frozenset(
        "layer pooling preprocess collate_fn source_head batch_size device".split()
    )

    def iter_extract(
        self, X: Any, *, source_proba: bool = False
    ) -> Iterator[tuple[slice | np.ndarray, Extraction]]:
        """Features batch by batch, as torch tensors on the device of the network.

        From the first batch until the iterator is exhausted or closed, the module is in
        evaluation mode, on the device and reserved for the current thread; then it is
        left as it was found. Meanwhile this thread may run other extractions with the
        same module; other threads wait.

        Parameters
        ----------
        X : array, tensor, data frame, list or Dataset, of n_samples samples
            An array or tensor is cut into batches; lists hold arrays, tensors, or
            whatever `preprocess` and `collate_fn` take; a
            :class:`torch.utils.data.Dataset` must have a length, and of its (x, y)
            pairs x is the sample.
        source_proba : bool, default=False
            Whether to yield the source probabilities too.

        Yields
        ------
        rows : slice or ndarray of int
            The rows of the batch in the order of ``X``. Each row comes once; batches
            may come in any order.
        extraction : Extraction
            Float32 tensors: the features, by layer, and the source probabilities of
            these rows.

        Raises
        ------
        ValueError
            If a parameter is not valid or names a layer that does not exist; if X is
            empty; if a sample cannot be read or preprocessed, `collate_fn` fails, or
            the module fails on a batch. The error of the cause is chained.
        TypeError
            If X is not a collection of samples, or holds objects that cannot be
            batched without `preprocess` or `collate_fn`.

        Examples
        --------
        Rank a network without keeping its features. The labels must be a tensor on
        the same device:

        >>> import torch
        >>> from sktransfer.datasets import load_dataset, load_zoo
        >>> from sktransfer.linear_model import LogMEClassifier
        >>> X, y = load_dataset(return_X_y=True)
        >>> labels = torch.from_numpy(y)
        >>> ((_, extractor),) = load_zoo("plain-emoji", device="cpu")
        >>> model = LogMEClassifier()
        >>> for rows, batch in extractor.iter_extract(X):
        ...     model = model.partial_fit(batch.joined, labels[rows], classes=range(10))
        >>> whole = LogMEClassifier().fit(extractor.transform(X), y)
        >>> bool(abs(float(model.logme_) - whole.logme_) < 1e-4)
        True
        """
        self._validate_params()
        if source_proba:
            self.check_source_proba()
        X, _ = check_samples(X, self)
        device = self.find_device()
        module = self.load_module()
        running, layers = self.find_layers(module, source_proba=source_proba)
        with in_use(running, device, put_back=module is self.network):
            for rows, inputs in self.iter_batches(X, module, device):
                batch = self.run_batch(running, inputs, layers, rows, device)
                del inputs  # before there is another batch
                yield rows, batch
                del batch

    def with_module(
        self, module: torch.nn.Module, **params: Any
    ) -> BaseNetworkExtractor:
        """Copy the extractor, with another module in the place of its own.

        Parameters
        ----------
        module : torch.nn.Module
            Of the structure of the extractor's own. It is not copied.
        **params : dict
            Parameters to set in the copy.

        Returns
        -------
        extractor : BaseNetworkExtractor
            It runs `module`. Unless `network` is a module, its clones and pickles load
            the original again.
        """
        copied, known = copy.copy(self), self.get_params()
        for name, value in params.items():
            if name not in known and hasattr(BaseNetworkExtractor, name):
                setattr(copied, name, value)  # a class may lack it as a parameter
            else:
                copied.set_params(**{name: value})
        if isinstance(self.network, torch.nn.Module):
            return copied.set_params(network=module)
        copied._derived = {"module": (copied._module_params(), module)}
        return copied

    def find_device(self) -> torch.device:
        """Return the torch device that `device` names; ValueError if there is none."""
        if self.device == "auto":
            if torch.cuda.is_available():
                return torch.device("cuda")
            return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
        try:
            device = torch.device(self.device)
            torch.empty(1, device=device).cpu()  # "meta" would lose the weights
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise ValueError(
                f"The 'device' parameter of {type(self).__name__} must be 'auto' or "
                "the name of a torch device that is available. Got "
                f"{self.device!r} instead ({str(error).splitlines()[0]})."
            ) from error
        return device

    def find_layers(
        self, module: torch.nn.Module, *, source_proba: bool = False
    ) -> tuple[torch.nn.Module, Any]:
        """Find the layers that `layer` and `source_head` name.

        Parameters
        ----------
        module : torch.nn.Module
            As :meth:`load_module` returns it, or another one of its structure.
        source_proba : bool, default=False
            Whether the source probabilities are wanted too.

        Returns
        -------
        running : torch.nn.Module
            What to run: `module`, or a wrapper around it.
        layers : object
            The layers in it, for :meth:`run_batch`.
        """
        return module, Layers(
            module, self.layer, self.source_head, source_proba=source_proba
        )

    def iter_batches(
        self, X: Any, module: torch.nn.Module, device: torch.device
    ) -> Iterator[tuple[slice | np.ndarray, Any]]:
        """Read the samples batch by batch and move them to the device.

        Parameters
        ----------
        X, module, device : samples, torch.nn.Module, torch.device
            From :func:`check_samples`, :meth:`load_module` and :meth:`find_device`.

        Yields
        ------
        rows : slice (with start and stop) or ndarray of int
            The rows of the batch in the order of ``X``.
        inputs : object
            What :meth:`forward` takes.
        """
        tensors = chain(module.parameters(), module.buffers())
        dtypes = (t.dtype for t in tensors if t.is_floating_point())
        dtype = next(dtypes, torch.float32)
        preprocess = self.preprocess
        for start in range(0, len(X), self.batch_size):
            rows = slice(start, min(start + self.batch_size, len(X)))
            # No name for the batch: only that on the device is to stay alive.
            yield (
                rows,
                to_device(*self._read_batch(X, rows, preprocess), device, dtype),
            )

    def forward(self, module: torch.nn.Module, inputs: Any) -> Any:
        """Call the module, as :meth:`find_layers` returns it, on a batch of inputs.

        Mappings are passed as keyword arguments, lists and tuples as arguments.
        """
        if isinstance(inputs, Mapping):
            return module(**inputs)
        if type(inputs) in (list, tuple):
            return module(*inputs)
        return module(inputs)

    def pool(self, tensor: torch.Tensor, inputs: Any) -> torch.Tensor:
        """Pool a layer's output to float32 features of shape (n_samples, n_features).

        They must share no memory with `tensor`. `inputs` went into the module.
        """
        return pool(self._channels_first(tensor), self.pooling, inputs)

    def _channels_first(self, tensor: torch.Tensor) -> torch.Tensor:
        """A layer's output as the functions that pool it take it."""
        return tensor

    def run_batch(
        self,
        running: torch.nn.Module,
        inputs: Any,
        layers: Any,
        rows: slice | np.ndarray,
        device: torch.device,
        *,
        gradients: bool = False,
    ) -> Extraction:
        """Run one forward pass and pool the layers as they are computed.

        Parameters
        ----------
        running, inputs, layers, rows, device : Module, object, object, slice, device
            From :meth:`find_layers`, :meth:`iter_batches` and :meth:`find_device`.
        gradients : bool, default=False
            Whether to record what training needs, unless torch is told otherwise.

        Returns
        -------
        extraction : Extraction
            Float32 tensors on the device: the features, by layer, and the source
            probabilities if `layers` was asked for them.
        """
        if isinstance(rows, slice):
            rows = range(rows.start, rows.stop)

        def reduce(name: str, tensor: torch.Tensor) -> torch.Tensor:
            if name == SOURCE:
                proba = softmax(tensor)
                if len(proba) != len(rows):
                    raise ValueError(
                        "The source head must give one row of logits per sample. Got "
                        f"{len(proba)} rows for {len(rows)} samples."
                    )
                return proba
            pooled = self.pool(tensor, inputs)
            if pooled.ndim != 2 or len(pooled) != len(rows):
                raise ValueError(
                    f"The layer {name!r} of shape {tuple(tensor.shape)} was pooled to "
                    f"shape {tuple(pooled.shape)}, but features must have shape "
                    f"({len(rows)}, n_features): set `pooling` to a callable that "
                    "returns that. If it takes two arguments it gets the batch, too."
                )
            return pooled

        precision = nullcontext()
        if self.dtype in ("bfloat16", "float16"):
            precision = torch.autocast(device.type, dtype=getattr(torch, self.dtype))
        takes_means = self.pooling == "mean" or isinstance(self.pooling, tuple)
        if type(self).pool is not BaseNetworkExtractor.pool:
            takes_means = False
        # Not inference_mode, which is no faster here: what a module keeps of this pass
        # could never be trained with.
        recording = nullcontext() if gradients else torch.no_grad()
        try:
            with recording, precision:
                seen = run_with_taps(
                    lambda: self.forward(running, inputs),
                    layers.taps,
                    reduce,
                    candidates=layers.candidates,
                    n_samples=len(rows),
                    linear=layers.leaves if takes_means else (),
                )
        except torch.OutOfMemoryError as error:
            error.add_note(f"Try a lower batch_size than {self.batch_size}.")
            raise
        except Exception as error:
            what = self._describe_batch(running, inputs, rows)
            raise ValueError(f"{what}: {error}") from error
        return layers.collect(seen)

    def check_source_proba(self) -> None:
        if self.source_head is None:
            raise ValueError(
                "Source probabilities need the 'source_head' parameter of "
                f"{type(self).__name__}: the name of the submodule that gives the "
                "logits over the source classes, such as 'fc'. Got None."
            )

    def select_layer(self, name: str) -> BaseNetworkExtractor:
        if name == "mean" and isinstance(self.layer, (list, tuple)):
            others = [entry for entry in map(str, self.layer) if entry != "mean"]
            name = f"mean({', '.join(e for e in others if not e.startswith('mean('))})"
        return super().select_layer(name)

    def _validate_params(self) -> None:
        super()._validate_params()
        if isinstance(how := self.pooling, tuple) and not (
            len(how) == 2
            and how[0] == "grid"
            and isinstance(how[1], Integral)
            and how[1] >= 1
        ):
            raise InvalidParameterError(
                f"The 'pooling' parameter of {type(self).__name__} must be, where it "
                f"is a tuple, ('grid', k) with an int k of at least 1. Got {how!r} "
                "instead."
            )

    def _read_batch(self, X: Any, rows: slice, preprocess: Any) -> tuple[Any, bool]:
        """A batch, and whether its memory is no one else's."""
        if is_array(X) and preprocess is None and self.collate_fn is None:
            return X[rows], False
        samples = read_samples(X, rows.start, rows.stop, preprocess)
        if self.collate_fn is None:
            return collate(samples), True
        try:
            return self.collate_fn(samples), False
        except Exception as error:
            raise ValueError(
                f"`collate_fn` failed on samples {rows.start} to {rows.stop - 1}: "
                f"{type(error).__name__}: {error}"
            ) from error

    def _describe_batch(
        self, module: torch.nn.Module, inputs: Any, rows: range | np.ndarray
    ) -> str:
        """Say which module has failed on what."""
        return (
            f"{type(module).__name__} failed on the batch of samples {rows[0]} to "
            f"{rows[-1]}, {describe(inputs)}"
        )
