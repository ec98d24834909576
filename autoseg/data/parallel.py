"""Working through cases in threads: reading, resampling and compressing release Python's lock."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def map_cases(
    function: Callable[[T], R], items: Sequence[T], *, num_workers: int, on_done: Callable[[T], None] | None = None
) -> list[R]:
    """Return ``[function(item) for item in items]``, computed by ``num_workers`` threads.

    The first error cancels what has not started, waits for what runs, and is raised. Ctrl-C cancels too and does not
    wait.

    Args:
        function: called once an item; must be safe to run in several threads.
        items: what to work on.
        num_workers: number of threads; with 1 everything runs in the calling thread.
        on_done: called in the calling thread with each finished item, in the order of finishing.
    """
    if num_workers <= 1:
        return [_call(function, item, on_done) for item in items]
    pool = ThreadPoolExecutor(max_workers=num_workers)
    try:
        futures = {pool.submit(function, item): item for item in items}
        for future in as_completed(futures):
            future.result()
            if on_done:
                on_done(futures[future])
        return [future.result() for future in futures]
    except BaseException as error:
        pool.shutdown(wait=isinstance(error, Exception), cancel_futures=True)
        raise
    finally:
        pool.shutdown(wait=False)


def _call(function: Callable[[T], R], item: T, on_done: Callable[[T], None] | None) -> R:
    result = function(item)
    if on_done:
        on_done(item)
    return result
