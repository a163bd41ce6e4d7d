"""Imports of optional packages."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

# Packages that import most of themselves lazily: the module that shows if they work.
_IMPORTS_LATER = {"transformers": "transformers.modeling_utils"}

# Errors of torchvision, and of what imports it, when it was built for another torch.
_MISMATCHED = (
    "operator torchvision::nms does not exist",
    "PyTorch and torchvision were compiled with different",
)


def import_optional(
    name: str, *, extra: str, needed_by: str = "This part of sktransfer"
) -> ModuleType:
    """Import a module, or raise an ImportError that tells how to install it.

    `extra` is the extra of sktransfer that installs it, and `needed_by` the subject of
    the message. If torch and torchvision do not match, the message says so.
    """
    try:
        module = import_module(name)
        if name in _IMPORTS_LATER:
            import_module(_IMPORTS_LATER[name])
    except (ImportError, RuntimeError) as error:
        if _is_mismatch(error):
            reason = (
                f"torch {_version('torch')} and torchvision {_version('torchvision')} "
                "do not match; they must be builds for each other, from the same index"
            )
            command = "pip install --force-reinstall torch torchvision"
        elif isinstance(error, ImportError):
            reason, command = error, f'pip install "sktransfer[{extra}]"'
        else:
            raise
        raise ImportError(
            f"{needed_by} needs {name}, which could not be imported ({reason}). "
            f"Install it with: {command}",
            name=name,
        ) from error
    return module


def lazy_exports(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` of a package that imports names on demand.

    `homes` gives the private module of each public name.
    """

    def get(name: str) -> Any:
        if name in homes:
            return getattr(import_module(f"{package}.{homes[name]}"), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return get, names


def _is_mismatch(error: BaseException | None) -> bool:
    """Whether torchvision raised the error, or one that led to it."""
    while error is not None:
        if any(text in str(error) for text in _MISMATCHED):
            return True
        error = error.__cause__ or error.__context__
    return False


def _version(package: str) -> str:
    """The version with its build, such as "+cpu", which metadata may leave out."""
    file = Path(find_spec(package).origin).with_name("version.py")
    stated = re.search(r"__version__ = '(.+?)'", file.read_text(encoding="utf-8"))
    return stated[1] if stated else metadata.version(package)
