"""What functions and classes are made of, and which of them a library answers for."""

from __future__ import annotations

import dis
import functools
import importlib.util
import operator
import platform
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

# Attributes of a class that are not its code, or that appear when it is used.
_NOT_CODE = frozenset(
    """
    __abstractmethods__ __annotate__ __annotate_func__ __annotations__
    __annotations_cache__ __dataclass_fields__ __dataclass_params__ __dict__ __doc__
    __firstlineno__ __module__ __orig_bases__ __parameters__ __qualname__
    __slotnames__ __static_attributes__ __type_params__ __weakref__ _abc_impl
    """.split()
)
_GLOBAL = {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
_MISSING = "<not there>"
_IMPORT = "import"  # no name, for it is a keyword
# Flags of code that change what a call does: *args, **kwargs, generators, coroutines.
_FLAGS = 0x04 | 0x08 | 0x20 | 0x80 | 0x200


def is_importable(value: Any) -> bool:
    """Whether a function or class is found again, in any process, by its name."""
    module = getattr(value, "__module__", None)
    name = getattr(value, "__qualname__", "")
    if module in (None, "__main__") or module not in sys.modules:
        return False
    try:
        return operator.attrgetter(name)(sys.modules[module]) is value
    except AttributeError:  # "<lambda>", "make.<locals>.inner"
        return False


@functools.lru_cache(maxsize=10_000)
def library_version(module: str, file: str | None = None) -> str | None:
    """The version of the installed library that a module belongs to.

    None for the user's own code, which may change without notice. Code is a library's
    if it lies in a folder that packages are installed into. `file` tells where a
    module is that is not imported yet.
    """
    package = module.partition(".")[0]
    found = sys.modules.get(package)
    if package in sys.stdlib_module_names:
        # A script's folder comes first on the path: its "queue.py" hides the library's.
        place = getattr(found, "__file__", None) or file
        stdlib = Path(sysconfig.get_path("stdlib")).resolve()
        if place is None or stdlib in Path(place).resolve().parents:
            return platform.python_version()
    version = str(getattr(found, "__version__", ""))
    if package == "sktransfer":
        return version
    places = [*(getattr(found, "__path__", None) or ())]
    places = places or [getattr(found, "__file__", None) or file]
    for place in filter(None, places):
        # The folder of a package that is not imported has to be counted out.
        folder = Path(place).parents[0 if found else module.count(".")]
        if folder.name in ("site-packages", "dist-packages"):
            return version
        if next(folder.glob("*.dist-info"), None) is not None:
            return version
    return None


def module_parts(module: str) -> tuple[str, Any]:
    """What tells a module: its name and, if it is the user's own, its source."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if module not in sys.modules:
        with suppress(ImportError, ValueError, AttributeError):
            spec = importlib.util.find_spec(module)
            file = None if spec is None else spec.origin
    if library_version(module, file) is not None:
        return module, None
    try:
        return module, Path(file or "").read_bytes()
    except OSError:
        return module, _MISSING


def function_parts(function: FunctionType) -> list[Any]:
    """What tells a function: code, defaults, attributes and all that it refers to."""
    cells = []
    for cell in function.__closure__ or ():
        try:
            cells.append(cell.cell_contents)
        except ValueError:  # empty as yet
            cells.append(_MISSING)
    return [
        function.__code__,
        function.__defaults__,
        function.__kwdefaults__,
        vars(function),
        cells,
        list(_globals_of(function.__code__, function.__globals__)),
    ]


def code_parts(code: CodeType) -> list[Any]:
    """What tells code, wherever it stands."""
    return [
        code.co_code,
        code.co_names,
        code.co_consts,
        code.co_varnames,
        code.co_freevars,
        code.co_cellvars,
        code.co_argcount,
        code.co_posonlyargcount,
        code.co_kwonlyargcount,
        code.co_flags & _FLAGS,
        code.co_exceptiontable,
    ]


def class_parts(kind: type) -> list[Any]:
    """What tells a class: its name, its kind, its bases and its own attributes."""
    own = {name: v for name, v in vars(kind).items() if name not in _NOT_CODE}
    return [kind.__qualname__, type(kind), kind.__bases__, own]


def _globals_of(code: CodeType, names: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The names that code reads from its module, with their present values.

    A library's module stands for all that it has. Of the user's own only the attribute
    counts that is asked for.
    """
    for first, *rest in _chains(code):
        if first == _IMPORT:
            inner = f"{names.get('__package__')}.{rest[0]}".rstrip(".")
            yield rest[0], module_parts(inner if inner in sys.modules else rest[0])
            continue
        value = names.get(first, _MISSING)  # a built-in one, most of the time
        path = [first]
        while rest and _is_own_module(value):
            path.append(rest.pop(0))
            value = getattr(value, path[-1], _MISSING)
        if value is not _MISSING:
            yield ".".join(path), value


def _is_own_module(value: Any) -> bool:
    return isinstance(value, ModuleType) and library_version(value.__name__) is None


@functools.lru_cache(maxsize=10_000)
def _chains(code: CodeType) -> tuple[tuple[str, ...], ...]:
    """Global names and the attributes asked of them, also in functions inside."""
    chains: dict[tuple[str, ...], None] = {}
    chain: tuple[str, ...] = ()
    for step in dis.get_instructions(code):
        if chain and step.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            chain = (*chain, step.argval)
            continue
        if chain:
            chains[chain] = None
        chain = (step.argval,) if step.opname in _GLOBAL else ()
        if step.opname == "IMPORT_NAME":
            chains[_IMPORT, step.argval] = None
    if chain:
        chains[chain] = None
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            chains.update(dict.fromkeys(_chains(constant)))
    return tuple(chains)
