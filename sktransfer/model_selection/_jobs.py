"""Parallel jobs, of which one that cannot be run does not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from sklearn.utils.parallel import Parallel


def run_jobs(
    jobs: Sequence[Callable[[], tuple]],
    n_jobs: int | None,
    substitute: Callable[[int, Exception], Any] | None,
) -> Iterator[Any]:
    """Yield the results of the jobs, in order, as they become ready.

    A job makes a call of a `delayed` function, perhaps more than once. A worker that
    dies, or a job or result that cannot be pickled, ends all jobs that are running
    without telling which of them it was. These are then run one by one, and the rest
    in parallel again. ``substitute(i, error)`` gives the result of a job that cannot be
    run; without it the first error is raised.
    """
    begun: list[Callable[[], tuple]] = []
    ours: list[Exception] = []  # errors of making a call, not of running it

    def call(job: Callable[[], tuple]) -> tuple:
        begun.append(job)
        try:
            return job()
        except Exception as error:
            ours.append(error)
            raise

    if n_jobs is not None:
        n_jobs = min(n_jobs, len(jobs))  # or idle workers would be started, too
    done, suspects = 0, 0
    while done < len(jobs):
        if suspects:
            alone = jobs[done]()
            try:
                (result,) = _run([alone], n_jobs)
            except Exception as error:
                result = substitute(done, error)
            yield result
            done, suspects = done + 1, suspects - 1
            continue
        before = done
        begun.clear()
        try:
            for result in _run(map(call, jobs[done:]), n_jobs):
                yield result
                done += 1
        except Exception as error:
            if substitute is None or not begun or error in ours:
                raise
            suspects = max(1, len(begun) - (done - before))


def _run(calls: Iterable[tuple], n_jobs: int | None) -> Iterable[Any]:
    try:
        parallel = Parallel(n_jobs=n_jobs, return_as="generator")
    except ValueError:  # by "multiprocessing" and others, which have lists only
        parallel = Parallel(n_jobs=n_jobs)
    return parallel(calls)
