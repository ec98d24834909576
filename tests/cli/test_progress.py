"""What a training shows on a terminal and elsewhere."""

import io

import pytest
from rich.console import Console

from autoseg.cli import _progress
from autoseg.cli._progress import SignsOfLife, TrainingDisplay, progress_bar
from autoseg.train.log import IterationReport, ResumeReport, StopReport


@pytest.mark.parametrize(("name", "words"), [("SIGINT", "Ctrl-C again"), ("SIGTERM", "SIGTERM again")])
def test_who_asks_to_stop_is_told_when(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str, words: str
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")  # standard error takes itself for a terminal
    with TrainingDisplay(Console(file=io.StringIO())) as display:
        display.show(IterationReport("training", 1, 9, 3, 250))
        display.show(StopReport(name))
    text = capsys.readouterr().err
    assert "epoch 1/9, training" in text and "3/250" in text
    assert f"stopping after this iteration; {words} stops at once" in text


def test_elsewhere_all_of_it_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainingDisplay(Console(file=io.StringIO())) as display:
        display.show(IterationReport("training", 1, 9, 3, 250))
        display.show(StopReport("SIGINT"))
    assert capsys.readouterr() == ("", "")


def test_what_goes_on_says_from_where() -> None:
    out = Console(file=io.StringIO(), width=40)
    with TrainingDisplay(out) as display:
        display.show(ResumeReport(7))
        display.show(ResumeReport(6, ("last.pt: it is cut short or damaged",)))
    assert out.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "going on after epoch 7",
        "warning: last.pt: it is cut short or damaged; taking the checkpoint before it",
        "going on after epoch 6",
    ]


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, as one entry that a test sets."""
    now = [0.0]
    monkeypatch.setattr(_progress.time, "monotonic", lambda: now[0])
    return now


def test_a_long_wait_elsewhere_shows_signs_of_life_and_a_short_one_none(
    capsys: pytest.CaptureFixture[str], now: list[float]
) -> None:
    with progress_bar("predicting", 4) as advance:
        for seconds in (50.0, 20.0, 10.0, 300.0):
            now[0] += seconds
            advance()
    assert capsys.readouterr() == ("", "predicting: 2 of 4, 1 min 10 s left\n")


def test_a_long_epoch_elsewhere_shows_signs_of_life(capsys: pytest.CaptureFixture[str], now: list[float]) -> None:
    with TrainingDisplay(Console(file=io.StringIO())) as display:
        for iteration in range(1, 4):
            now[0] += 400.0
            display.show(IterationReport("training", 1, 9, iteration, 250))
    assert capsys.readouterr().err == "epoch 1/9, training: iteration 2 of 250\n"


def test_a_sign_is_due_once(now: list[float]) -> None:
    signs = SignsOfLife(60.0)
    assert not signs.due()
    now[0] = 60.0
    assert signs.due() and not signs.due()
    now[0] = 120.0
    assert signs.due()
