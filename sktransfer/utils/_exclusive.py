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
_wanted: dict[int, set[int]] = {}  # thread -> ids of the objects that it waits for


@contextmanager
def exclusive(objects: Iterable[Any]) -> Iterator[None]:
    """Wait until no other thread uses any of the objects, and keep them to this one.

    All are taken at once, by identity, so that two threads whose objects overlap, such
    as a module and a part of it, cannot wait for each other. The thread that has an
    object may take it again. A thread that waits for others while it has some, as an
    extractor does that is used inside another, may wait for a thread that waits for
    it: that raises a RuntimeError.
    """
    held = list(objects)  # alive, or another object could get the id
    wanted = set(map(id, held))
    me = threading.get_ident()
    taken: list[int] = []
    try:
        with _released:
            _wanted[me] = wanted
            try:
                _released.wait_for(lambda: _are_free(wanted, me))
            finally:
                del _wanted[me]
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


def _are_free(wanted: set[int], me: int) -> bool:
    others = _owners(wanted) - {me}
    seen: set[int] = set()
    ahead = set(others)
    while ahead:
        if me in ahead:
            raise RuntimeError(
                "Two threads would wait for each other for ever: each uses a module "
                "that the other one has. Extractors that are used inside others, in "
                "their `preprocess` for example, cannot be shared by threads; give "
                "each thread copies of its own."
            )
        seen |= ahead
        waited_for = (_owners(_wanted.get(thread, set())) for thread in ahead)
        ahead = set().union(*waited_for) - seen
    return not others


def _owners(keys: set[int]) -> set[int]:
    return {_holders[key][0] for key in keys if key in _holders}


def _forget() -> None:
    """In a forked process the threads that held something do not exist."""
    global _released
    _released = threading.Condition()
    _holders.clear()
    _wanted.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
