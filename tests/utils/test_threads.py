"""Limits on the threads of linear algebra."""

import threading

import pytest
from threadpoolctl import threadpool_info

from sktransfer.utils._threads import one_blas_thread


def n_threads():
    return [i["num_threads"] for i in threadpool_info() if i["user_api"] == "blas"]


def test_the_last_of_overlapping_contexts_restores_the_limits():
    before = n_threads()
    inside, leave = threading.Event(), threading.Event()

    def first_to_enter():
        with one_blas_thread():
            inside.set()
            leave.wait(30)

    other = threading.Thread(target=first_to_enter)
    other.start()
    assert inside.wait(30)
    with one_blas_thread():
        leave.set()
        other.join()
        assert set(n_threads()) == {1}
    assert n_threads() == before


def test_errors_restore_the_limits():
    before = n_threads()
    with pytest.raises(KeyError), one_blas_thread():
        raise KeyError
    assert n_threads() == before
    with one_blas_thread(wanted=False):
        assert n_threads() == before
