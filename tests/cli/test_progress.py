"""What a training shows on a terminal and elsewhere."""

import io

import pytest
from rich.console import Console

from autoseg.cli._progress import TrainingDisplay
from autoseg.train.log import IterationReport, StopReport


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
