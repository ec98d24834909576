"""Signals become a flag, then an interruption; the handlers before come back."""

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from autoseg.train.interruption import SIGNALS, StopFlag, TrainingInterrupted, catch_signals


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_the_first_signal_sets_the_flag(number: signal.Signals) -> None:
    told: list[str] = []
    with (
        pytest.raises(TrainingInterrupted, match=f"stopped by {number.name}; 3 finished epochs are kept"),
        catch_signals(told.append) as stop,
    ):
        stop.check(3)
        signal.raise_signal(number)
        assert told == [number.name]
        assert stop.signal_name == number.name
        stop.check(3)


def test_the_second_signal_interrupts_at_once() -> None:
    reached = []
    with pytest.raises(KeyboardInterrupt) as caught, catch_signals():
        signal.raise_signal(signal.SIGTERM)
        reached.append(1)
        signal.raise_signal(signal.SIGINT)
        reached.append(2)
    assert reached == [1] and not isinstance(caught.value, TrainingInterrupted)


def test_a_signal_after_the_last_check_is_not_lost() -> None:
    with pytest.raises(TrainingInterrupted, match="training itself is finished"), catch_signals():
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_the_handlers_before_come_back(error: type[BaseException] | None) -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    try:
        with catch_signals():
            assert [signal.getsignal(number) for number in SIGNALS] != before
            if error is not None:
                raise error
    except (ValueError, KeyboardInterrupt):
        pass
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_another_thread_leaves_the_signals_alone() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]

    def inside() -> bool:
        with catch_signals() as stop:
            return [signal.getsignal(number) for number in SIGNALS] == before and stop.signal_name is None

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(inside).result()


def test_nothing_finished_yet() -> None:
    with pytest.raises(TrainingInterrupted, match="no epoch was finished yet"):
        StopFlag("SIGINT").check(0)
    assert issubclass(TrainingInterrupted, KeyboardInterrupt)
