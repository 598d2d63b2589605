"""Distributes work over processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


def in_processes(work: Callable[[Job], Result], jobs: Sequence[Job], *, workers: int) -> Iterator[Result]:
    """Yield results of jobs as they finish, from spawned processes; one worker or job runs in this process in order.

    Each process uses one thread unless OMP_NUM_THREADS says otherwise. Closing the iterator cancels pending jobs and
    ends running ones.
    """
    if workers == 1 or len(jobs) < 2:
        yield from map(work, jobs)
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("spawn")
    others = multiprocessing.active_children()
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context, initializer=_leave_interrupts) as pool:
        futures = [pool.submit(work, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in multiprocessing.active_children():
                if worker not in others:
                    worker.terminate()
            raise


def _leave_interrupts() -> None:
    """Ignore Ctrl-C in workers: it reaches all processes of a terminal, and the parent ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
