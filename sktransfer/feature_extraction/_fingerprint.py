"""Digests of parameters that are equal in every process where the values are equal."""

from __future__ import annotations

import copyreg
import functools
import hashlib
import operator
import os
import pickle
import stat
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    MappingProxyType,
    MethodType,
    ModuleType,
)
from typing import Any

import numpy as np

from sktransfer.feature_extraction._code import (
    class_parts,
    code_parts,
    function_parts,
    is_importable,
    library_version,
    module_parts,
)

_SCALARS = (type(None), bool, int, float, complex, type(Ellipsis))
_BYTES = 2**24  # of an array that are copied at a time, where they must be

# What a torch module holds besides its attributes: tensors, submodules and hooks, which
# are digested one by one, and settings for training, saving and loading.
_NOT_AN_ATTRIBUTE = frozenset(
    """
    name_or_path training _buffers _forward_hooks _forward_pre_hooks _modules
    _parameters _backward_hooks _backward_pre_hooks _compiled_call_impl
    _forward_hooks_always_called _forward_hooks_with_kwargs
    _forward_pre_hooks_with_kwargs _is_full_backward_hook
    _load_state_dict_post_hooks _load_state_dict_pre_hooks
    _non_persistent_buffers_set _state_dict_hooks _state_dict_pre_hooks
    """.split()
)
# The attributes that identify callables and descriptors of these kinds.
_PARTS = {
    MethodType: ("__self__", "__name__"),
    functools.partial: ("func", "args", "keywords"),
    property: ("fget", "fset", "fdel"),
    classmethod: ("__func__",),
    staticmethod: ("__func__",),
    functools.cached_property: ("func",),
    functools._lru_cache_wrapper: ("__wrapped__",),
}


class UndigestibleError(TypeError):
    """A value cannot be identified by its content, so it cannot be a cache key."""


def digest(value: Any, *, with_files: bool = False) -> str:
    """Digest of a value, the same in every process, for a cache key.

    Functions and classes of installed libraries count by name and version. The user's
    own count by their code and all that it refers to, as far as that is not a
    library's; modules by their tensors, hooks and attributes; arrays and tensors by
    their bytes; other objects by their class and pickled state. With `with_files`, the
    files count, by size and time, that a text or path in the value names: in the
    arguments, constants and globals of functions, too. `joblib.hash` would not do: it
    gives equal tensors, and equal modules, different digests, and knows functions by
    their names alone.

    Raises UndigestibleError if something in the value has no content to identify it.
    """
    hasher = _Hasher(with_files=with_files)
    hasher.feed(value)
    return hasher.hexdigest()


def digest_samples(X: Any) -> str:
    """Digest of raw samples; file paths count with the size and time of the file.

    The samples of a data set are read, one after the other, for what it reads may
    have changed. Raises UndigestibleError, too, if it cannot be read or gives other
    samples each time.
    """
    if _is_dataset(X):
        return digest(digest_each(X, range(len(X))))
    stamps = _Hasher()
    n_files = 0
    stamp_of = functools.lru_cache(100_000)(_stamp)  # words come again and again
    for i, path in enumerate(_paths(X)):
        if (stamp := stamp_of(path)) is not None:
            stamps.feed((i, stamp))
            n_files += 1
    own = digest(X)
    return digest([own, stamps.hexdigest()]) if n_files else own


def digest_each(X: Any, rows: Sequence[int]) -> list[str]:
    """Digest each of some samples, 64 characters at most, reading no others."""
    stamp_of = functools.lru_cache(100_000)(_stamp)  # words come again and again

    def of_one(sample: Any) -> str:
        paths = enumerate(_paths(sample))
        stamps = [(i, stamp) for i, path in paths if (stamp := stamp_of(path))]
        return digest((sample, stamps) if stamps else (sample,))

    if _is_dataset(X):
        digests = [of_one(_read_item(X, i)) for i in rows]
        for k in {len(rows) * k // 8 for k in range(8)} if len(rows) else ():
            if of_one(_read_item(X, rows[k])) != digests[k]:
                raise UndigestibleError(
                    f"{type(X).__name__} returns a different sample {rows[k]} at each "
                    "read, as with random augmentation."
                )
        return digests
    kind = X.dtype.kind if isinstance(X, np.ndarray) else None
    if isinstance(X, (list, tuple)) or (kind and kind in "OUST"):
        return [of_one(X[i]) for i in rows]
    if kind and kind in "biufc":
        form = digest([X.dtype.str, X.shape[1:]]).encode()
        return [hashlib.sha256(form + X[i].tobytes()).hexdigest() for i in rows]
    whole = digest_samples(X)
    return [f"{whole[:40]}/{i}" for i in rows]


def digest_files(path: str | os.PathLike) -> str:
    """Digest of a file's content, or of a folder's files and their names."""
    path = Path(path)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return digest(
            [(f.relative_to(path).as_posix(), digest_files(f)) for f in files]
        )
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Hasher:
    """Digests values one after the other.

    Each value is preceded by its kind and length, so no two of them read the same.
    """

    def __init__(self, *, with_files: bool = False):
        self._with_files = with_files
        self._sha = hashlib.sha256()
        self._around: dict[int, int] = {}  # ids of the values around this one
        # Functions and classes that were fed. They are kept alive, or another object
        # could get the id of one that is gone.
        self._code: dict[int, tuple[int, Any]] = {}
        self._waiting: deque[Any] = deque()

    def hexdigest(self) -> str:
        return self._sha.hexdigest()

    def feed(self, value: Any) -> None:
        """Take in a value; an UndigestibleError names what cannot be."""
        try:
            self._feed(value)
            # Sequentially rather than recursively: functions may call each other in
            # long chains and in circles.
            while self._waiting:
                self._feed_all(self._waiting.popleft()())
        except RecursionError as error:
            raise UndigestibleError(
                f"Cannot make a fingerprint of an object of type {type(value)}: it is "
                "nested too deeply."
            ) from error

    def _put(self, kind: str, data: bytes | memoryview = b"") -> None:
        self._sha.update(f"{kind}:{len(data)}:".encode())
        if data:
            self._sha.update(data)

    def _feed(self, value: Any) -> None:
        kind = type(value)
        if self._with_files and isinstance(value, (str, os.PathLike)):
            self._put("file", repr(_stamp(str(value))).encode())
        if kind is str:
            self._put("str", value.encode("utf-8", "surrogatepass"))
        elif kind in (bytes, bytearray):
            self._put(kind.__name__, value)
        elif kind in _SCALARS:
            self._put(kind.__name__, repr(value).encode())
        elif isinstance(value, ModuleType):
            self._put("module")
            name = value.__name__
            self._feed_all([*module_parts(name), library_version(name)])
        elif isinstance(value, (type, FunctionType, BuiltinFunctionType)) and (
            not self._is_method(value)
        ):
            self._feed_code(value)
        elif id(value) in self._around:  # an object that refers to itself
            self._put(f"outer {len(self._around) - self._around[id(value)]}")
        else:
            with self._inside(value):
                self._feed_object(value)

    @contextmanager
    def _inside(self, value: Any) -> Iterator[None]:
        self._around[id(value)] = len(self._around)
        try:
            yield
        finally:
            del self._around[id(value)]

    def _feed_all(self, parts: Any) -> None:
        self._put(f"all {len(parts)}")
        for part in parts:
            self._feed(part)

    @staticmethod
    def _is_method(value: Any) -> bool:
        """Whether a function that is written in C belongs to an object."""
        owner = getattr(value, "__self__", None)
        return isinstance(value, BuiltinFunctionType) and not (
            owner is None or isinstance(owner, ModuleType)
        )

    def _feed_code(self, value: Any) -> None:
        name = f"{value.__module__}.{value.__qualname__}"
        version = library_version(str(value.__module__))
        is_c = isinstance(value, BuiltinFunctionType)
        if is_c or (version is not None and is_importable(value)):
            self._put("name", f"{name} {version}".encode())
            return
        if id(value) not in self._code:
            self._code[id(value)] = len(self._code), value
            parts = class_parts if isinstance(value, type) else function_parts
            self._waiting.append(functools.partial(parts, value))
        self._put(f"{'class' if isinstance(value, type) else 'function'}")
        self._put(str(self._code[id(value)][0]))

    def _feed_object(self, value: Any) -> None:
        kind = type(value)
        if kind in (list, tuple):
            self._put(kind.__name__)
            self._feed_all(value)
        elif kind in (set, frozenset):
            self._put(kind.__name__)
            self._feed_all(sorted(map(digest, value)))
        elif kind in (dict, MappingProxyType):
            self._put("dict")
            by_name = all(type(key) is str for key in value)
            for key in sorted(value, key=None if by_name else digest):
                self._feed(key)
                self._feed(value[key])
            self._put("end")
        elif self._is_method(value):  # in C
            self._put("method")
            self._feed_all([value.__self__, value.__name__])
        elif isinstance(value, CodeType):
            self._put("code")
            self._feed_all(code_parts(value))
        elif own := next((k for k in _PARTS if isinstance(value, k)), None):
            self._put(own.__name__)
            self._feed_all([getattr(value, name) for name in _PARTS[own]])
        elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
            self._feed_array(value)
        elif not self._feed_of_library(value):
            self._feed_pickled(value)

    def _feed_array(self, value: np.ndarray) -> None:
        if isinstance(value, np.ma.MaskedArray):
            self._put("mask")
            self._feed_array(np.ma.getmaskarray(value))
        if type(value) not in (np.ndarray, np.memmap):
            self._feed(type(value))
            if not isinstance(value, np.ma.MaskedArray):
                self._feed(getattr(value, "__dict__", None))
        value = np.asarray(value)
        self._put("array", repr((value.shape, value.dtype)).encode())
        if not value.nbytes:
            return
        if value.flags.c_contiguous:
            self._sha.update(value.reshape(-1).view(np.uint8).data)
            return
        n_rows = max(1, _BYTES * len(value) // value.nbytes)
        for start in range(0, len(value), n_rows):
            rows = np.ascontiguousarray(value[start : start + n_rows])
            self._sha.update(rows.reshape(-1).view(np.uint8).data)

    def _feed_of_library(self, value: Any) -> bool:
        """Digest an object of an optional library; False if it is none.

        The library has been imported already, if the value is from it.
        """
        torch = sys.modules.get("torch")
        own = sys.modules.get("sktransfer.feature_extraction._base")
        configs = sys.modules.get("transformers.configuration_utils")
        config = getattr(configs, "PretrainedConfig", ())
        if torch is not None and isinstance(value, torch.Tensor):
            self._feed_tensor(value)
        elif torch is not None and isinstance(value, torch.nn.Module):
            self._feed_module(value)
        elif own is not None and isinstance(value, own.BaseExtractor):
            self._put("extractor", value.fingerprint().encode())
        elif torch is not None and isinstance(value, torch.fx.Graph):
            self._put("graph", str(value).encode())
        elif isinstance(value, config):
            self._put("config")
            # Not where it was loaded from.
            self._feed_all([type(value), {**value.to_dict(), "_name_or_path": None}])
        else:
            return False
        return True

    def _feed_tensor(self, value: Any) -> None:
        torch = sys.modules["torch"]
        if type(value) not in (torch.Tensor, torch.nn.Parameter):
            self._feed_all([type(value), getattr(value, "__dict__", None)])
        try:
            data = value.detach().cpu().resolve_conj().resolve_neg().contiguous()
            data = data.reshape(-1).view(torch.uint8).numpy()
        except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:
            raise UndigestibleError(
                f"Cannot make a fingerprint of a tensor of type {type(value)}: {error}"
            ) from error
        self._put("tensor", repr((tuple(value.shape), str(value.dtype))).encode())
        self._put("data", data.data)

    def _feed_module(self, value: Any) -> None:
        torch = sys.modules["torch"]
        if isinstance(value, torch.jit.ScriptModule):
            raise UndigestibleError(
                "Cannot make a fingerprint of a TorchScript module: its code and "
                "constants are not accessible."
            )
        compiled = sys.modules.get("torch._dynamo.eval_frame")
        if compiled is not None and isinstance(value, compiled.OptimizedModule):
            self._put("compiled")
            self._feed(value._orig_mod)
            return
        self._put("nn.Module")
        self._feed(type(value))
        for name in ("_parameters", "_buffers", "_modules"):
            own = vars(value).get(name, {})  # whose order may be that of the calls
            self._feed_all([part for pair in own.items() for part in pair])
        for name in ("_forward_hooks", "_forward_pre_hooks"):
            self._feed_all(list(vars(value)[name].values()))  # keys count up for ever
        try:
            state = value.__getstate__()  # without what it makes anew in each process
        except Exception:  # parametrized modules have none
            state = None
        state = state if isinstance(state, dict) else vars(value)
        self._feed({k: v for k, v in state.items() if k not in _NOT_AN_ATTRIBUTE})

    def _feed_pickled(self, value: Any) -> None:
        reduce = copyreg.dispatch_table.get(type(value))
        try:
            reduced = value.__reduce_ex__(4) if reduce is None else reduce(value)
        except Exception as error:
            raise UndigestibleError(
                f"Cannot make a fingerprint of {value!r}: it cannot be pickled."
            ) from error
        self._put("object")
        if isinstance(reduced, str):  # the name of a global, such as a torch.dtype
            try:
                module = sys.modules[pickle.whichmodule(value, reduced)]
                found = operator.attrgetter(reduced)(module)
            except (AttributeError, KeyError):
                found = None
            if found is not value:  # as of np.frompyfunc, whose function is not at hand
                raise UndigestibleError(
                    f"Cannot make a fingerprint of {value!r}: it is not found by its "
                    f"name {reduced!r}."
                )
            self._feed_all([type(value).__module__, reduced])
            return
        make, args, state, items, pairs = (*reduced, *[None] * 5)[:5]
        self._feed_all([make, args, state])
        for part in items or ():
            self._feed(part)
        self._put("pairs")
        for part in pairs or ():
            self._feed(part)
        self._put("end")


def _is_dataset(X: Any) -> bool:
    """Whether X gives samples when asked for them, rather than holding them."""
    holds = isinstance(X, (list, tuple, str, bytes, Mapping, np.ndarray))
    is_table = hasattr(X, "to_numpy") or (hasattr(X, "shape") and hasattr(X, "dtype"))
    reads = hasattr(X, "__len__") and hasattr(X, "__getitem__")
    return reads and not holds and not is_table


def _read_item(X: Any, i: int) -> Any:
    try:
        sample = X[i]
    except Exception as error:
        raise UndigestibleError(
            f"Sample {i} of {type(X).__name__} cannot be read "
            f"({type(error).__name__}: {error})"
        ) from error
    return sample[0] if isinstance(sample, tuple) else sample


def _paths(sample: Any) -> Iterator[str | os.PathLike]:
    """All in a sample, or in samples, that may be the path of a file."""
    if isinstance(sample, (str, os.PathLike)):
        yield sample
    elif isinstance(sample, Mapping):
        for part in sample.values():
            yield from _paths(part)
    elif isinstance(sample, (list, tuple)):
        for part in sample:
            yield from _paths(part)
    elif hasattr(sample, "to_numpy"):
        yield from _paths(sample.to_numpy())
    elif isinstance(sample, np.ndarray) and sample.dtype.kind in "OUT":
        for part in sample.flat:
            yield from _paths(part)


def _stamp(path: str | os.PathLike) -> Any:
    """Size and time of a file, or of all in a folder; None for what is a text."""
    try:
        found = os.stat(path)
        if stat.S_ISREG(found.st_mode):
            return found.st_size, found.st_mtime_ns
        # As a str, "." or "/" may also be a word of a text.
        if stat.S_ISDIR(found.st_mode) and not isinstance(path, str):
            inside = sorted(file for file in Path(path).rglob("*") if file.is_file())
            return [(str(file), _stamp(file)) for file in inside]
    except (OSError, ValueError):
        pass
    return None
