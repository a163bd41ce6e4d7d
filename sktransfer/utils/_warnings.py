"""Collect warnings thread by thread.

`warnings.catch_warnings` changes settings of the whole process. Threads that enter and
leave it in turn restore each other's settings, and in the end the warnings of the
process go to a list that is never read.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

_lock = threading.Lock()
_users = 0
_settings = ExitStack()
_this_thread = threading.local()


@contextmanager
def warnings_by_thread() -> Iterator[None]:
    """Have every warning given, to the collector of its thread if there is one.

    The settings are changed once, by the first to enter, and put back by the last to
    leave, so this goes around all threads that collect.
    """
    global _users
    with _lock:
        if not _users:
            _settings.enter_context(warnings.catch_warnings())
            warnings.simplefilter("always")
            _give_to_threads()
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                _settings.close()


@contextmanager
def collect_warnings() -> Iterator[list[tuple[str, type[Warning]]]]:
    """Collect the text and category of each different warning of this thread."""
    caught: dict[tuple[str, type[Warning]], None] = {}
    found: list[tuple[str, type[Warning]]] = []
    outer = getattr(_this_thread, "caught", None)
    _this_thread.caught = caught
    try:
        with warnings_by_thread():
            yield found
    finally:
        _this_thread.caught = outer
        found.extend(caught)


def _forget() -> None:
    """In a forked process the thread that held the lock does not exist."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _give_to_threads() -> None:
    show = warnings.showwarning

    def give(message: Any, category: type[Warning], *args: Any, **kwargs: Any) -> None:
        caught = getattr(_this_thread, "caught", None)
        if caught is None:
            show(message, category, *args, **kwargs)
        else:
            caught[str(message), category] = None

    warnings.showwarning = give


def as_warning(text: str, category: type[Warning]) -> Warning:
    """A warning of the category, or of the next that is made of a text alone."""
    for kind in category.__mro__:
        try:
            return kind(text)
        except TypeError:
            continue
    return UserWarning(text)
