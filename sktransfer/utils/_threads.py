"""Limits on the threads of linear algebra."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits

_lock = threading.Lock()
_n_inside, _limits = 0, None


@contextmanager
def one_blas_thread(wanted: bool = True) -> Iterator[None]:
    """Run small problems on one thread, which is what they use best.

    NumPy and SciPy bring a BLAS each. Where both have threads, those of the one that
    waits take the processors of the one that works. Contexts may overlap in several
    threads: the last to leave restores the limits.
    """
    global _n_inside, _limits
    if not wanted:
        yield
        return
    with _lock:
        if _n_inside == 0:
            _limits = threadpool_limits(1, user_api="blas")
        _n_inside += 1
    try:
        yield
    finally:
        with _lock:
            _n_inside -= 1
            if _n_inside == 0:
                _limits.restore_original_limits()
