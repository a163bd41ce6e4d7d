"""One thread at a time for objects that are changed while they are used."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

# Beside the objects, not in them: locks can be neither copied nor pickled.
_released = threading.Condition()
_holders: dict[int, tuple[int, int]] = {}  # id of an object -> thread, how often


@contextmanager
def exclusive(objects: Iterable[Any]) -> Iterator[None]:
    """Wait until no other thread uses any of the objects, and keep them to this one.

    All are taken at once, so that two threads whose objects overlap, such as a module
    and a part of it, cannot wait for each other. The thread that has an object may take
    it again.

    Parameters
    ----------
    objects : iterable
        They count by identity.

    Examples
    --------
    >>> from sktransfer.utils._exclusive import exclusive
    >>> module = object()
    >>> with exclusive([module]), exclusive([module]):
    ...     print("only this thread is here")
    only this thread is here
    """
    held = list(objects)  # alive, or another object could get the id
    wanted = set(map(id, held))
    me = threading.get_ident()
    taken: list[int] = []
    try:
        with _released:
            _released.wait_for(
                lambda: all(_holders.get(key, (me, 0))[0] == me for key in wanted)
            )
            for key in wanted:
                _holders[key] = me, _holders.get(key, (me, 0))[1] + 1
                taken.append(key)
        yield
    finally:
        with _released:
            for key in taken:
                _, depth = _holders.pop(key, (me, 1))
                if depth > 1:
                    _holders[key] = me, depth - 1
            _released.notify_all()


def _forget() -> None:
    """In a forked process the threads that held something do not exist."""
    global _released
    _released = threading.Condition()
    _holders.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
