"""``autoseg_train --benchmark``: it needs no trained fold, prints where the time goes, and writes nothing."""

import json
from pathlib import Path

import pytest

from autoseg.cli import plan, train
from autoseg.cli._speed import describe_speed
from autoseg.documents import parse_document
from autoseg.train import benchmark
from autoseg.train.benchmark import Speed


@pytest.fixture(autouse=True)
def _only_the_fewest_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "SECONDS", 0.0)
    monkeypatch.setitem(benchmark.MATRIX, "cpu", 64)


def _files(root: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}


def test_it_prints_the_parts_and_writes_nothing(planned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = _files(planned)
    assert train.main(["--benchmark", "-d", "Phantom", "-a", "tiny", "--device", "cpu", "-w", str(planned)]) == 0
    text = capsys.readouterr().out
    for words in ("waiting for data", "augmentation", "forward", "backward", "optimiser", "patches/s", "% of the"):
        assert words in text
    assert _files(planned) == before


@pytest.mark.parametrize(("bare", "words"), [(1.6, "add 25.0 %"), (2.5, "add nothing that can be told from noise (-2")])
def test_what_the_loop_adds_is_never_a_gain(bare: float, words: str) -> None:
    speed = Speed(
        plan="p", device="d", precision="fp32", threads=1, workers=1, augmented_on="cpu", network="not compiled",
        patch_size=(8, 8, 8), patches=2, iterations=8, iteration_seconds=2.0, bare_seconds=bare, parts={}, meanwhile={},
        operations=10, attainable_rate=1.0, peak_memory_gb=None,
    )  # fmt: skip
    assert words in describe_speed(speed)


def test_json_is_the_document(planned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--benchmark", "--json", "-d", "Phantom", "-a", "tiny", "-f", "1", "-j", "1", "--device", "cpu"]
    assert train.main([*arguments, "-w", str(planned)]) == 0
    text = capsys.readouterr().out
    speed = parse_document(text, Speed, where="printed")
    assert speed.plan == "tiny" and speed.workers == 1 and json.loads(text)["schema"] == "autoseg.speed.1"


def test_a_second_stage_needs_no_first_one_trained(planned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["-d", "Phantom", "-w", str(planned)]
    assert plan.main([*options, "--from", "tiny", "--set", "previous_stage=tiny", "--name", "second"]) == 0
    before = _files(planned)
    assert train.main(["--benchmark", "-a", "second", "--device", "cpu", *options]) == 0
    assert "second on" in capsys.readouterr().out
    assert _files(planned) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ("-f (--fold) is missing",)),
        (["--benchmark", "-f", "9"], ("fold", "9")),
    ],
)
def test_mistakes_are_one_line(
    planned: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: tuple[str, ...]
) -> None:
    assert train.main([*arguments, "-d", "Phantom", "-a", "tiny", "-w", str(planned)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert all(word in line for word in words), line
    assert not (planned / "results").exists()
