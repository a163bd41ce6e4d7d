"""Importing the packages that sktransfer can do without."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


def import_optional(
    name: str, *, extra: str, needed_by: str = "This part of sktransfer"
) -> ModuleType:
    """Import an optional package, or say how to get it.

    Parameters
    ----------
    name : str
        The module to import, as in an import statement.
    extra : str
        The extra of sktransfer that installs it.
    needed_by : str, default="This part of sktransfer"
        What cannot work without it: the subject of the error message.

    Returns
    -------
    module : module
        The imported module.

    Raises
    ------
    ImportError
        If the module cannot be imported, be it absent or broken.

    Examples
    --------
    >>> from sktransfer.utils._optional import import_optional
    >>> import_optional("json", extra="json").__name__
    'json'
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            f"{needed_by} needs {name}, which could not be imported ({error}). "
            f'Install it with: pip install "sktransfer[{extra}]"',
            name=name,
        ) from error
