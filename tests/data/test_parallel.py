"""Cases in threads: results in order, progress in the calling thread, the first error ends it."""

import threading

import pytest

from autoseg.data.parallel import map_cases


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_the_order_of_the_items(workers: int) -> None:
    first_may_end = threading.Event()

    def work(item: int) -> int:
        if item == 0 and workers > 1:
            assert first_may_end.wait(10)  # so that item 0 finishes last
        return item * item

    seen: list[int] = []

    def note(item: int) -> None:
        assert threading.current_thread() is threading.main_thread()
        seen.append(item)
        if len(seen) == 4:
            first_may_end.set()

    assert map_cases(work, range(5), num_workers=workers, on_done=note) == [0, 1, 4, 9, 16]
    assert sorted(seen) == list(range(5)) and (workers == 1 or seen[-1] == 0)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_error_is_raised_and_what_has_not_started_is_cancelled(workers: int) -> None:
    started = []

    def work(item: int) -> None:
        started.append(item)
        raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match=r"item \d"):
        map_cases(work, range(100), num_workers=workers)
    assert len(started) < 100


def test_nothing_to_do() -> None:
    assert map_cases(str, [], num_workers=4) == []
