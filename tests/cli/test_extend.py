"""A finished run is trained further as a plan of its own, through the commands."""

import hashlib
import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from autoseg.documents import read_document
from autoseg.plan.plan import Plan
from autoseg.train.state import training_digest

Captured = pytest.CaptureFixture[str]


def main(root: Path, name: str, *arguments: str) -> int:
    device = ("--device", "cpu", "-j", "1") if name == "train" else ()
    status: int = importlib.import_module(f"autoseg.cli.{name}").main(
        ["-d", "Phantom", *arguments, "-w", str(root), *device]
    )
    return status


def train(root: Path, plan: str, *more: str) -> int:
    return main(root, "train", "-a", plan, "-f", "0", *more)


def run_of(root: Path, plan: str) -> Path:
    return root / "results" / "Phantom" / plan / "fold_0"


def checkpoint(root: Path, plan: str) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(run_of(root, plan) / "checkpoints" / "last.pt", weights_only=True)
    return content


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(one == other)


@pytest.fixture(scope="module")
def source(planned_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the plan ``first``, whose fold 0 is trained; read only."""
    root = tmp_path_factory.mktemp("extend") / "workspace"
    shutil.copytree(planned_once, root, symlinks=True)
    short = ("--set", "training.epochs=2", "--set", "training.ema_decay=0.9", "--name", "first")
    assert main(root, "plan", "--from", "tiny", *short, "--no-preprocess") == 0
    assert train(root, "first") == 0
    return root


@pytest.fixture
def root(source: Path, tmp_path: Path) -> Path:
    """An own copy of ``source``."""
    shutil.copytree(source, tmp_path / "own", symlinks=True)
    return tmp_path / "own"


def extend(root: Path, *settings: str, name: str = "") -> int:
    words = [word for text in settings for word in ("--set", text)]
    return main(root, "plan", "--extend", "first", *words, *(("--name", name) if name else ()), "--no-preprocess")


def test_a_plan_that_extends_another_is_its_variant(root: Path, capsys: Captured) -> None:
    assert extend(root, "training.epochs=3") == 0
    settings = ("--set", "training.initial_weights=first", "--set", "training.epochs=3", "--name", "by_hand")
    assert main(root, "plan", "--from", "first", *settings, "--no-preprocess") == 0
    plans = [read_document(root / "plans" / "Phantom" / f"{n}.json", Plan) for n in ("first_extended", "by_hand")]
    assert training_digest(plans[0]) == training_digest(plans[1])
    assert plans[0].training.initial_weights == "first"
    assert "last checkpoint of the same fold of first" in plans[0].rationale["training.initial_weights"]
    capsys.readouterr()
    assert main(root, "plan", "--explain", "first_extended") == 0
    assert "training.initial_weights = first" in capsys.readouterr().out
    assert main(root, "plan", "--diff", "first", "first_extended") == 0
    assert "training.initial_weights" in capsys.readouterr().out


def test_the_weights_are_the_sources_and_the_run_says_so(root: Path, capsys: Captured) -> None:
    """At a learning rate that moves nothing, the network that comes out is the one that went in: the average."""
    assert extend(root, "training.epochs=1", "training.optimizer.learning_rate=1e-30") == 0
    capsys.readouterr()
    assert train(root, "first_extended") == 0
    assert "starting from the weights of first fold 0" in capsys.readouterr().out
    before, after = checkpoint(root, "first"), checkpoint(root, "first_extended")
    assert not same(before["network"], before["trained"])
    assert same(after["network"], before["network"]) and same(after["trained"], before["network"])
    assert after["epoch"] == 1 and len(after["history"]) == 1
    record = json.loads((run_of(root, "first_extended") / "initial.json").read_text())
    file = run_of(root, "first") / "checkpoints" / "last.pt"
    assert record == {
        "schema": "autoseg.initial.1", "plan": "first", "plan_sha256": before["plan_sha256"], "fold": 0, "epoch": 2,
        "checkpoint": "first/fold_0/checkpoints/last.pt",
        "checkpoint_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }  # fmt: skip
    log = (run_of(root, "first_extended") / "logs" / "train.log").read_text()
    assert "the first weights are those of first fold 0" in log

    assert main(root, "compare", "-a", "first", "-a", "first_extended") == 0
    folder = root / "reports" / "Phantom"
    assert "initial_weights</code>" in (folder / "report.html").read_text()
    costs = {one["name"]: one["cost"] for one in json.loads((folder / "summary.json").read_text())["plans"]}
    own = json.loads((run_of(root, "first_extended") / "logs" / "metrics.jsonl").read_text())["seconds"]
    both = own + costs["first"]["training_seconds"]
    assert costs["first_extended"]["training_seconds"] == pytest.approx(both)
    assert main(root, "compare", "-a", "first_extended") == 0
    (alone,) = json.loads((folder / "summary.json").read_text())["plans"]
    assert alone["cost"]["training_seconds"] == pytest.approx(both)


def test_an_interrupted_run_goes_on_without_the_source(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result is bit for bit the uninterrupted one, though the source's checkpoints are gone meanwhile."""
    assert extend(root, "training.epochs=3") == 0
    other = tmp_path / "other"
    shutil.copytree(root, other, symlinks=True)
    assert train(other, "first_extended") == 0

    from autoseg.train import loop

    save = loop.save_last

    def interrupted(state: Any, *rest: Any) -> None:
        save(state, *rest)
        if state.epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_last", interrupted)
        assert train(root, "first_extended") == 130
    record = (run_of(root, "first_extended") / "initial.json").read_text()
    shutil.rmtree(run_of(root, "first"))
    assert train(root, "first_extended") == 0
    one, two = checkpoint(other, "first_extended"), checkpoint(root, "first_extended")
    assert all(same(one[key], two[key]) for key in ("network", "trained", "optimizer"))
    assert (run_of(root, "first_extended") / "initial.json").read_text() == record


def test_a_source_that_is_not_there_or_not_finished_is_one_line(root: Path, capsys: Captured) -> None:
    assert extend(root, "training.epochs=3") == 0
    path = run_of(root, "first") / "checkpoints" / "last.pt"
    content = torch.load(path, weights_only=True)
    torch.save(content | {"epoch": 1, "history": content["history"][:1]}, path)
    capsys.readouterr()
    assert train(root, "first_extended") == 2
    (line,) = capsys.readouterr().err.splitlines()
    start = "plan first_extended starts from the weights of first, but fold 0 of first"
    command = "run autoseg_train -d Phantom -a first -f 0"
    assert line == f"error: {start} has 1 of 2 epochs; {command}"
    shutil.rmtree(run_of(root, "first"))
    assert train(root, "first_extended") == 2
    assert capsys.readouterr().err == f"error: {start} is not trained; {command}\n"
    assert train(root, "first_extended", "--time-budget", "1h") == 2
    assert capsys.readouterr().err == f"error: {start} is not trained; {command}\n"
    assert not run_of(root, "first_extended").parent.exists()
    assert main(root, "train", "-a", "first_extended", "--benchmark") == 0  # random weights are as fast


def test_weights_that_may_have_seen_the_validation_cases_are_refused(root: Path, capsys: Captured) -> None:
    assert extend(root) == 0
    path = root / "plans" / "Phantom" / "splits.json"
    content = json.loads(path.read_text())
    content["folds"] = [*content["folds"][1:], content["folds"][0]]
    path.write_text(json.dumps(content))
    capsys.readouterr()
    assert train(root, "first_extended") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "fold 0 of first was not validated on" in line and "splits.json has changed since" in line


SMALLER = (
    'network.config={"strides":[[1,1,1],[2,2,2]],"kernel_sizes":[[3,3,3],[3,3,3]],"features_per_stage":[4,6],'
    '"blocks_per_stage_encoder":[1,1],"blocks_per_stage_decoder":[1]}'
)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--from", "first", "--set", "training.initial_weights=fist", "--name", "x"], "did you mean 'first'"),
        (["--from", "first", "--set", "training.initial_weights=x", "--name", "x"], "is the plan itself"),
        (["--extend", "first", "--set", SMALLER], "network.config.features_per_stage is [4, 8] there and [4, 6] here"),
        (["--extend", "first", "--set", "network.architecture=unetr"], "is unet in 3-D there and unetr in 3-D here"),
        (["--extend", "first", "--set", "previous_stage=first"], "previous_stage is null there and first here"),
        (["--extend", "first", "--from", "tiny"], "leave --from tiny out"),
        (["--extend", "first", "--set", "training.initial_weights=tiny"], "leave it out, or use --from first"),
        (["--extend", "first", "-a", "unet"], "leave -a out"),
        (["--extend", "frist"], "did you mean 'first'"),
    ],
)
def test_weights_that_do_not_fit_are_one_line(root: Path, capsys: Captured, words: list[str], said: str) -> None:
    before = sorted((root / "plans" / "Phantom").iterdir())
    assert main(root, "plan", *words, "--no-preprocess") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert sorted((root / "plans" / "Phantom").iterdir()) == before


def test_plans_do_not_start_from_each_other(root: Path, capsys: Captured) -> None:
    assert extend(root, name="second") == 0
    settings = ("--set", "training.initial_weights=second", "--name")
    assert main(root, "plan", "--from", "second", *settings, "third", "--no-preprocess") == 0
    capsys.readouterr()
    assert main(root, "plan", "--from", "tiny", "--set", "training.initial_weights=third", "--name", "second") == 2
    assert "'third' starts from the weights of 'second' itself" in capsys.readouterr().err
