"""Extractors with a torch module: made once, kept, told apart by its weights."""

from __future__ import annotations

import copy
import os
from abc import abstractmethod
from itertools import chain
from typing import Any

from sktransfer.feature_extraction._base import BaseExtractor
from sktransfer.feature_extraction._fingerprint import digest
from sktransfer.feature_extraction._in_use import copy_module, parts_of
from sktransfer.feature_extraction._weights import check_weights, digest_module
from sktransfer.utils._exclusive import exclusive
from sktransfer.utils._optional import import_optional

torch = import_optional("torch", extra="torch", needed_by="BaseNetworkExtractor")


class ModuleOwner(BaseExtractor):
    """An extractor whose `network` names, makes or is a torch module."""

    network: Any
    dtype: str | None
    not_in_module: frozenset[str]

    @abstractmethod
    def make_module(self) -> torch.nn.Module:
        """Make the torch module, with its weights, on the CPU.

        :meth:`load_module` calls it, unless `network` is a module.
        """

    def load_module(self) -> torch.nn.Module:
        """Return the torch module, made at the first call and kept.

        If `network` is a module, return it, converted to `dtype` if that is set. A
        ValueError is raised if the weights differ from those pinned.
        """
        if isinstance(self.network, torch.nn.Module):
            return self._in_dtype(self.network)
        # Networks are made one at a time: they draw from the one random state of torch.
        with exclusive([self, torch.default_generator]):
            cache, source = self._cache(), self._module_params()
            if "module" not in cache or _differ(cache["module"][0], source):
                cache.pop("module", None)  # make room for the new one
                module = self.make_module()
                module = module.float() if self.dtype == "float32" else module
                if "weights" in cache:
                    cache["weights"] = check_weights(module, cache["weights"], self)
                cache["module"] = source, module
            return cache["module"][1]

    def pin_weights(self, pinned: str | None = None) -> None:
        cache = self._cache()
        # None is noted at the next load.
        cache["weights"] = pinned or cache.get("weights")
        if cache["weights"] is None and "module" in cache:
            cache["weights"] = check_weights(cache["module"][1], None, self)

    @property
    def pinned_weights(self) -> str | None:
        return self._cache().get("weights")

    def release(self) -> None:
        self._derived = self._without_module()

    def set_params(self, **params: Any) -> ModuleOwner:
        if not self.not_in_module.issuperset(params):
            self._cache().pop("module", None)
            self._cache().pop("weights", None)
        return super().set_params(**params)

    def _module_params(self) -> dict[str, Any]:
        """What tells one module from another, `network` included."""
        return {
            # Of a dict or list a copy, for it may be changed in place.
            name: copy.copy(value) if isinstance(value, (dict, list)) else value
            for name, value in self.get_params(deep=False).items()
            if name not in self.not_in_module
        }

    def _in_dtype(self, module: torch.nn.Module) -> torch.nn.Module:
        """A module handed in, or a copy of it where `dtype` converts its weights."""
        if self.dtype == "float32" and any(
            t.is_floating_point() and t.dtype != torch.float32
            for t in chain(module.parameters(), module.buffers())
        ):
            return copy_module(module).float()
        return module

    def _fingerprint_params(self) -> dict[str, Any]:
        params = super()._fingerprint_params()
        for name, value in self._module_params().items():
            if name in params and isinstance(value, (str, os.PathLike)):
                params[name] = digest(value, with_files=True)
        if isinstance(self.network, torch.nn.Module):
            params["network"] = digest_module(self.network)
        return params

    def _without_module(self) -> dict[str, Any]:
        cache = self._cache()
        return {name: cache[name] for name in ("widths", "weights") if name in cache}

    def __sklearn_clone__(self) -> ModuleOwner:
        shared = isinstance(self.network, torch.nn.Module)
        with exclusive(parts_of(self.network) if shared else ()):
            return super().__sklearn_clone__()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_derived": self._without_module()}


def _differ(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether any parameter is another one."""
    try:
        return old != new
    except (ValueError, RuntimeError):  # other arrays or tensors
        return True
