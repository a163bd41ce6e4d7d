"""Features from the layers of a PyTorch module."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from itertools import chain
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions

from sktransfer.feature_extraction._base import (
    BaseExtractor,
    Extraction,
    check_samples,
    is_array,
    read_samples,
)
from sktransfer.feature_extraction._batches import (
    collate,
    describe,
    start_copy_to_host,
    to_device,
    write,
)
from sktransfer.feature_extraction._code import is_importable
from sktransfer.feature_extraction._factory import (
    digest_made,
    digest_module,
    import_factory,
)
from sktransfer.feature_extraction._fingerprint import digest
from sktransfer.feature_extraction._in_use import in_use, parts_of
from sktransfer.feature_extraction._layers import Layers, pool, run_with_taps, softmax
from sktransfer.feature_extraction._weights import check_weights
from sktransfer.utils._exclusive import exclusive
from sktransfer.utils._optional import import_optional

torch = import_optional("torch", extra="torch", needed_by="TorchFeatureExtractor")

_SOURCE = "source probabilities"  # no submodule's name has a space


class TorchFeatureExtractor(BaseExtractor):
    """Features, and source probabilities, from the layers of a PyTorch module.

    Parameters
    ----------
    module : str, callable or torch.nn.Module
        The pre-trained module, best given as something that makes it: an import name
        ``"package.module:factory"``, or a function, class or
        :func:`functools.partial` called without arguments. It is made at the first
        use and stays out of clones and pickles. A module itself is cloned and pickled
        with its weights; where it is used, it is left as it was found: weights,
        device, training mode and gradients. Threads may share it: they take turns.

    layer : str, list of str or None, default=None
        The layers that give the features:

        - the name of a submodule (as in ``named_modules``): its output;
        - a wildcard such as ``"block*"``, ``"encoder.layers.*"``: all submodules that
          match, in the order of the module. A wildcard does not reach across a dot;
        - ``"output"``: the module's own output;
        - ``"penultimate"``: what goes into `source_head`;
        - ``"mean"``, in a list: the mean of all the other layers of the list, which
          must be of equal width. ``"mean(block*)"``, or ``"mean(block1, block2)"``,
          is the mean alone, without the layers it is made of;
        - None: ``"penultimate"`` where `source_head` names a submodule, ``"output"``
          otherwise.

        A submodule called "output" or "penultimate" goes before the special meaning.
        Of outputs that are tuples, dicts or dataclasses, the first tensor counts; of a
        submodule that runs more than once, the last run.

    pooling : {"mean", "max", "flatten"} or callable, default="mean"
        How a layer's output becomes (n_samples, n_features): pooled over all axes but
        the first and that of the features, which is the last of three axes (samples,
        tokens, features), and the second of four or more (samples, channels, height,
        width). Outputs with two axes are kept. A callable gets the float32 tensor and
        returns a tensor of shape (n_samples, n_features). One that takes two arguments
        gets the batch as well, which tells the padding of a sequence or the graph of
        a node.

    preprocess : callable, default=None
        Applied to each sample (a PIL image, an array, a file path); the tensors or
        arrays that it returns are stacked to batches. If None, arrays and tensors are
        batched as they are, and lists of them stacked.

    collate_fn : callable, default=None
        Makes a batch of a list of samples, as that of
        :class:`torch.utils.data.DataLoader` does. None stacks arrays and tensors, and
        mappings of them key by key. The batch is moved to the device, however deep
        its tensors and arrays are; other objects, such as batches of graphs, by their
        own method ``to``. The module is called with

        - ``module(**batch)`` where the batch is a mapping;
        - ``module(*batch)`` where it is a list or tuple (not a named one);
        - ``module(batch)`` otherwise. Return ``(batch,)`` to have it so in any case.

    source_head : str, default=None
        The submodule whose output is the logits over the source classes, or
        ``"output"`` if that is the module's own output.

    batch_size : int, default=64
        The number of samples in one forward pass.

    device : str, default="auto"
        Where to compute, as torch names it. "auto" is the first available of "cuda",
        "mps" and "cpu".

    dtype : {"float32", "bfloat16", "float16"} or None, default=None
        The precision to compute with: None is the module's own, "float32" converts
        the weights (a copy of them, where a module was given), the others run under
        :class:`torch.autocast`. Features are float32 in any case.

    See Also
    --------
    BaseExtractor : What all extractors have in common.

    Notes
    -----
    All layers, and the source probabilities, come from one forward pass a batch, in
    evaluation mode and without gradients. Layers are pooled on the device, in float32,
    as soon as they are computed.

    Floating-point inputs are converted to the precision of the module's weights.
    Integers (token indices, images in uint8) are left alone.

    In :meth:`fingerprint`, an import name and a factory that can be imported count by
    their code and arguments, so let those tell the weights. Modules, and what lambdas
    and functions of a notebook make, count by class, tensors, hooks and attributes.

    Examples
    --------
    >>> import numpy as np
    >>> from torch import nn
    >>> from sktransfer.feature_extraction import TorchFeatureExtractor
    >>> def make_module():
    ...     return nn.Sequential(
    ...         nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10)
    ...     )
    >>> images = np.zeros((5, 3, 6, 6), dtype=np.float32)
    >>> extractor = TorchFeatureExtractor(make_module, layer=["1", "2"])
    >>> extractor.transform(images).shape
    (5, 136)
    >>> {name: f.shape for name, f in extractor.transform_layers(images).items()}
    {'1': (5, 8), '2': (5, 128)}
    >>> extractor = TorchFeatureExtractor(make_module, source_head="3")
    >>> features, proba = extractor.extract(images, source_proba=True)
    >>> list(features), features["penultimate"].shape, proba.shape
    (['penultimate'], (5, 128), (5, 10))

    Sequences of different lengths, padded:

    >>> import torch
    >>> sequences = [torch.ones(2, 3), torch.ones(4, 3)]
    >>> def pad(samples):
    ...     return nn.utils.rnn.pad_sequence(samples, batch_first=True)
    >>> extractor = TorchFeatureExtractor(nn.Identity, collate_fn=pad, pooling="max")
    >>> extractor.transform(sequences).shape
    (2, 3)
    """

    _parameter_constraints: dict = {
        "module": [str, callable],
        "layer": [str, list, tuple, None],
        "pooling": [StrOptions({"mean", "max", "flatten"}), callable],
        "preprocess": [callable, None],
        "collate_fn": [callable, None],
        "source_head": [str, None],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "device": [str, torch.device],
        "dtype": [StrOptions({"float32", "bfloat16", "float16"}), None],
    }

    def __init__(
        self,
        module: str | Callable[[], torch.nn.Module] | torch.nn.Module,
        *,
        layer: str | Sequence[str] | None = None,
        pooling: str | Callable[..., torch.Tensor] = "mean",
        preprocess: Callable[[Any], Any] | None = None,
        collate_fn: Callable[[list], Any] | None = None,
        source_head: str | None = None,
        batch_size: int = 64,
        device: str | torch.device = "auto",
        dtype: str | None = None,
    ):
        self.module = module
        self.layer = layer
        self.pooling = pooling
        self.preprocess = preprocess
        self.collate_fn = collate_fn
        self.source_head = source_head
        self.batch_size = batch_size
        self.device = device
        self.dtype = dtype

    def extract(self, X: Any, *, source_proba: bool = False) -> Extraction:
        """Features of all layers, and source probabilities if wanted, in one pass.

        Parameters
        ----------
        X : array, tensor, data frame, list or Dataset, of n_samples samples
            An array or tensor is cut into batches; lists hold arrays, tensors, or
            whatever `preprocess` and `collate_fn` take; a
            :class:`torch.utils.data.Dataset` must have a length, and of its (x, y)
            pairs x is the sample.

        source_proba : bool, default=False
            Whether to give the source probabilities too.

        Returns
        -------
        extraction : Extraction
            The named tuple ``(features, source_proba)``: a dict of float32 arrays
            (n_samples, n_features) by layer, and None or a float32 array (n_samples,
            n_source_classes).

        Raises
        ------
        ValueError
            If a parameter is not valid or names a layer that is not there; if X is
            empty; if a sample cannot be read or preprocessed, `collate_fn` fails, or
            the module fails on a batch. The error of the cause is chained.

        TypeError
            If X is not a collection of samples, or holds file paths, images or other
            objects and neither `preprocess` nor `collate_fn` is set.
        """
        self._validate_params()
        if source_proba:
            self._check_source_proba()
        X, n_samples = check_samples(X, self)
        device = self._find_device()
        module = self._load_module()
        layers = Layers(module, self.layer, self.source_head)
        batches = self._batches(X, n_samples, module, device)
        with in_use(module, device, put_back=module is self.module):
            return self._run_batches(
                module, batches, n_samples, layers, device, source_proba
            )

    def set_params(self, **params: Any) -> TorchFeatureExtractor:
        """Set the parameters; see :meth:`sklearn.base.BaseEstimator.set_params`.

        Parameters
        ----------
        **params : dict
            Parameters of the extractor. A new `module` or `dtype` lets go of the
            module made so far.

        Returns
        -------
        self : object
            The extractor itself.
        """
        if not params.keys().isdisjoint({"module", "dtype"}):
            self._cache().pop("module", None)
        return super().set_params(**params)

    def select_layer(self, name: str) -> TorchFeatureExtractor:
        """An extractor like this one that gives one of its layers only.

        Parameters
        ----------
        name : str
            A key of what :meth:`transform_layers` returns.

        Returns
        -------
        extractor : TorchFeatureExtractor
            A copy with `layer` set; a module given as a parameter is shared with it.
        """
        if name == "mean" and not isinstance(self.layer, str):
            others = [entry for entry in map(str, self.layer) if entry != "mean"]
            name = f"mean({', '.join(e for e in others if not e.startswith('mean('))})"
        return super().select_layer(name)

    # What subclasses may put in the place of: the module, the batches and the call.

    def _make_module(self) -> torch.nn.Module:
        """Make the module that `module` names or makes."""
        factory = self.module
        if isinstance(factory, str):
            factory = import_factory(factory)
        module = factory()
        if not isinstance(module, torch.nn.Module):
            raise TypeError(
                "The 'module' parameter of TorchFeatureExtractor must be a "
                "torch.nn.Module, or make one when called without arguments. Got "
                f"{self.module!r}, which makes an object of type "
                f"{type(module).__name__}."
            )
        return module

    def _batches(
        self, X: Any, n_samples: int, module: torch.nn.Module, device: torch.device
    ) -> Iterator[tuple[slice | np.ndarray, Any]]:
        """Yield the rows of each batch (anything that indexes rows) and its inputs."""
        tensors = chain(module.parameters(), module.buffers())
        dtypes = (t.dtype for t in tensors if t.is_floating_point())
        dtype = next(dtypes, torch.float32)
        for start in range(0, n_samples, self.batch_size):
            rows = slice(start, min(start + self.batch_size, n_samples))
            # No name for the batch: only that on the device is to stay alive.
            yield rows, to_device(*self._read_batch(X, rows), device, dtype)

    def _for_tuning(self, module: torch.nn.Module) -> tuple[torch.nn.Module, Layers]:
        """What fine-tuning is to run in the module's place, and the layers in it."""
        return module, Layers(module, self.layer, self.source_head)

    def _forward(self, module: torch.nn.Module, inputs: Any) -> Any:
        if isinstance(inputs, Mapping):
            return module(**inputs)
        if type(inputs) in (list, tuple):
            return module(*inputs)
        return module(inputs)

    def _describe_batch(
        self, module: torch.nn.Module, inputs: Any, samples: np.ndarray
    ) -> str:
        """Say which module has failed on what."""
        return (
            f"{type(module).__name__} failed on the batch of samples {samples[0]} to "
            f"{samples[-1]}, {describe(inputs)}"
        )

    def _pool(self, tensor: torch.Tensor, inputs: Any) -> torch.Tensor:
        return pool(tensor, self.pooling, inputs)

    # The machinery that they share.

    def _read_batch(self, X: Any, rows: slice) -> tuple[Any, bool]:
        """A batch, and whether its memory is no one else's."""
        if is_array(X) and self.preprocess is None and self.collate_fn is None:
            return X[rows], False
        samples = read_samples(X, rows.start, rows.stop, self.preprocess)
        if self.collate_fn is None:
            return collate(samples), True
        try:
            return self.collate_fn(samples), False
        except Exception as error:
            raise ValueError(
                f"`collate_fn` failed on samples {rows.start} to {rows.stop - 1}: "
                f"{type(error).__name__}: {error}"
            ) from error

    def _run_batches(
        self, module, batches, n_samples, layers, device, source_proba
    ) -> Extraction:
        taps = {**layers.taps, _SOURCE: layers.head} if source_proba else layers.taps
        outputs: dict[str, np.ndarray] = {}
        unwritten = deque()
        behind = 1 if device.type == "cuda" else 0
        indices = np.arange(n_samples)
        for rows, inputs in batches:
            seen = self._run(module, inputs, taps, indices[rows], device)
            results = layers.collect(seen)
            if source_proba:
                results[_SOURCE] = seen[_SOURCE]
            unwritten.append((rows, *start_copy_to_host(results, device)))
            del inputs, seen, results  # before there is another batch
            # CUDA works on this batch while the last one is written.
            if len(unwritten) > behind:
                write(outputs, n_samples, *unwritten.popleft())
        for last in unwritten:
            write(outputs, n_samples, *last)
        proba = outputs.pop(_SOURCE, None)
        return Extraction(outputs, proba)

    def _run(
        self, module, inputs, taps, samples, device, *, gradients: bool = False
    ) -> dict[str, torch.Tensor]:
        """One forward pass: the pooled layers and source probabilities of a batch.

        With `gradients` it records what fine-tuning needs, unless told otherwise.
        """

        def reduce(name: str, tensor: torch.Tensor) -> torch.Tensor:
            if name == _SOURCE:
                proba = softmax(tensor)
                if len(proba) != len(samples):
                    raise ValueError(
                        "The source head must give one row of logits a sample. Got "
                        f"{len(proba)} rows for {len(samples)} samples."
                    )
                return proba
            pooled = self._pool(tensor, inputs)
            if pooled.ndim != 2 or len(pooled) != len(samples):
                raise ValueError(
                    f"The layer {name!r} of shape {tuple(tensor.shape)} was pooled to "
                    f"shape {tuple(pooled.shape)}, but features must have shape "
                    f"({len(samples)}, n_features): set `pooling` to a callable that "
                    "returns that. If it takes two arguments it gets the batch, too."
                )
            return pooled

        precision = nullcontext()
        if self.dtype in ("bfloat16", "float16"):
            precision = torch.autocast(device.type, dtype=getattr(torch, self.dtype))
        # Not inference_mode, which is no faster here: what a module keeps of this pass
        # could never be trained with.
        recording = nullcontext() if gradients else torch.no_grad()
        try:
            with recording, precision:
                return run_with_taps(
                    lambda: self._forward(module, inputs), taps, reduce
                )
        except torch.OutOfMemoryError as error:
            error.add_note(f"Try a lower batch_size than {self.batch_size}.")
            raise
        except Exception as error:
            raise ValueError(
                f"{self._describe_batch(module, inputs, samples)}: {error}"
            ) from error

    def _load_module(self) -> torch.nn.Module:
        """The module, made at the first call."""
        if isinstance(self.module, torch.nn.Module):
            return self._in_dtype(self.module)
        # Networks are made one at a time: they draw from the one random state of torch.
        with exclusive([self, torch.default_generator]):
            cache, source = self._cache(), (self.module, self.dtype)
            if "module" not in cache or cache["module"][0] != source:
                cache.pop("module", None)  # make room for the new one
                module = self._make_module()
                module = module.float() if self.dtype == "float32" else module
                if "weights" in cache:
                    cache["weights"] = check_weights(module, cache["weights"], self)
                cache["module"] = source, module
            return cache["module"][1]

    def _in_dtype(self, module: torch.nn.Module) -> torch.nn.Module:
        """A module handed in, or a copy of it where `dtype` converts its weights."""
        if self.dtype == "float32" and any(
            t.is_floating_point() and t.dtype != torch.float32
            for t in chain(module.parameters(), module.buffers())
        ):
            with exclusive(parts_of(module)):
                module = copy.deepcopy(module)
            module.float()
        return module

    def _find_device(self) -> torch.device:
        if self.device == "auto":
            if torch.cuda.is_available():
                return torch.device("cuda")
            return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
        try:
            device = torch.device(self.device)
            torch.empty(1, device=device).cpu()  # "meta" would lose the weights
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise ValueError(
                "The 'device' parameter of TorchFeatureExtractor must be 'auto' or "
                "the name of a torch device that is available. Got "
                f"{self.device!r} instead ({str(error).splitlines()[0]})."
            ) from error
        return device

    def _check_source_proba(self) -> None:
        if self.source_head is None:
            raise ValueError(
                "Source probabilities need the 'source_head' parameter of "
                f"{type(self).__name__}: the name of the submodule that gives the "
                "logits over the source classes, such as 'fc'. Got None."
            )

    def _fingerprint_params(self) -> dict[str, Any]:
        params = super()._fingerprint_params()
        factory = getattr(self.module, "func", self.module)  # that of a partial
        if isinstance(factory, torch.nn.Module):
            params["module"] = digest_module(factory)
        elif isinstance(factory, str):
            with suppress(ValueError):  # the extraction will say what is wrong
                named = factory, import_factory(factory)
                params["module"] = digest(named, with_files=True)
        elif is_importable(factory):
            params["module"] = digest(self.module, with_files=True)
        else:
            # No name that holds elsewhere: the weights themselves have to tell.
            params["module"] = digest_made(self._load_module(), self._cache())
        return params

    def __sklearn_clone__(self) -> TorchFeatureExtractor:
        shared = isinstance(self.module, torch.nn.Module)
        with exclusive(parts_of(self.module) if shared else ()):
            return super().__sklearn_clone__()

    def __getstate__(self) -> dict[str, Any]:
        weights = {"module", "digest of the module"}
        derived = {k: v for k, v in self._cache().items() if k not in weights}
        return {**super().__getstate__(), "_derived": derived}
