"""A search on real images: 12 short trials by two workers on one SQLite file, one of them killed; then the tuned plan
and the plan itself, trained and compared. And two workers on a PostgreSQL, where there is one.

    python tests/benchmarks/tune.py DATASET [--keep FOLDER] [--cases N]

DATASET is a folder in nnU-Net's layout, of which the first N cases are used. PostgreSQL's programs (Debian:
``apt-get install postgresql``) and psycopg are found by themselves. Writes docs/benchmarks/tune.json and tune.md; with
--keep the workspace stays, and with it the study's report.
"""

import argparse
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = ROOT / "docs" / "benchmarks" / "tune"
TRIALS, EPOCHS, PLAN_EPOCHS, KILL_AFTER, ITERATIONS = 12, 4, 8, 4, 5
SMALL = (
    f"training.iterations_per_epoch={ITERATIONS}",
    "training.validation_iterations=1",
    "training.batch_size=2",
    f"training.epochs={PLAN_EPOCHS}",
)
WIDTHS = [4, 8, 16, 32, 32]
FEW = {"schema": "autoseg.space.1", "parameters": {"learning_rate_factor": {"low": 0.3, "high": 3.0, "log": True}}}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--cases", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = options.keep or Path(name)
        dataset = take_cases(options.dataset, root / "raw", options.cases)
        make_plan(root, dataset)
        found = {"dataset": dataset, "cases": options.cases, "postgresql": search_in_postgresql(root, dataset)}
        found |= search(root, dataset)
        found |= compare(root, dataset)
    OUTPUT.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    OUTPUT.with_suffix(".md").write_text(page(found))


def take_cases(source: Path, raw: Path, count: int) -> str:
    """Make a dataset of links to the first cases of another one, and return its name."""
    name = json.loads((source / "dataset.json").read_text()).get("name", source.name)
    target = raw / source.name
    if target.exists():
        return str(name)
    labels = sorted((source / "labelsTr").glob("*.nii.gz"))[:count]
    for folder in ("imagesTr", "labelsTr"):
        (target / folder).mkdir(parents=True)
    for label in labels:
        (target / "labelsTr" / label.name).symlink_to(label.resolve())
        for image in (source / "imagesTr").glob(label.name.replace(".nii.gz", "_*.nii.gz")):
            (target / "imagesTr" / image.name).symlink_to(image.resolve())
    description = json.loads((source / "dataset.json").read_text()) | {"numTraining": len(labels)}
    (target / "dataset.json").write_text(json.dumps(description))
    return str(name)


def call(command: str, root: Path, dataset: str, *words: str) -> str:
    """Run a command of autoseg to its end and return what it printed."""
    line = [sys.executable, "-m", f"autoseg.cli.{command}", "-d", dataset, "-w", str(root), *words]
    sys.stderr.write(f"autoseg_{command} {' '.join(words)}\n")
    finished = subprocess.run(line, capture_output=True, text=True, check=False)
    if finished.returncode:
        sys.exit(finished.stdout + finished.stderr)
    return finished.stdout


def make_plan(root: Path, dataset: str) -> None:
    """Plan and preprocess ``small``: the U-Net as planned, but narrow and briefly trained."""
    if (root / "plans" / dataset / "small.json").is_file():
        return
    call("plan", root, dataset, "-a", "unet", "--no-preprocess")
    config = json.loads((root / "plans" / dataset / "unet.json").read_text())["network"]["config"]
    widths = f"network.config.features_per_stage={WIDTHS[: len(config['features_per_stage'])]}"
    settings = [word for text in (*SMALL, widths) for word in ("--set", text)]
    call("plan", root, dataset, "--from", "unet", "--name", "small", *settings)


class Worker:
    """An ``autoseg_tune`` in a process of its own; ``told`` is what it printed."""

    def __init__(self, root: Path, dataset: str, number: int, *words: str, path: str = "") -> None:
        self.log = root / f"worker_{number}_{time.monotonic_ns()}.log"
        line = [sys.executable, "-m", "autoseg.cli.tune", "-d", dataset, "-w", str(root), "-a", "small", "-j", "1"]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), path]))}
        with self.log.open("wb") as out:
            self.process = subprocess.Popen([*line, *words], stdout=out, stderr=subprocess.STDOUT, env=environment)
        sys.stderr.write(f"worker {number} started\n")

    @property
    def told(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def wait(self) -> None:
        if self.process.wait():
            sys.exit(self.told)

    def trials(self) -> dict[str, int]:
        """Return how many trials it has begun, gone on with, finished and stopped."""
        kinds = {"began": ": ", "went on": " goes on", "finished": " finished", "stopped": " stopped"}
        lines = [line.split("trial ", 1)[1] for line in self.told.splitlines() if "  trial " in line]
        after = [line.lstrip("0123456789") for line in lines]
        return {kind: sum(text.startswith(mark) for text in after) for kind, mark in kinds.items()}


def read_trials(url: str, name: str) -> list[Any]:
    """Return the trials of a study; none where it is not begun."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        return list(optuna.load_study(study_name=name, storage=url).trials)
    except Exception:  # not there yet, or just being made
        return []


def num_over(trials: list[Any]) -> int:
    return sum(trial.state.is_finished() for trial in trials)


def search(root: Path, dataset: str) -> dict[str, Any]:
    """Run the study, with one worker killed in the middle of a trial, and return what came of it."""
    url, name = f"sqlite:///{root}/tune/{dataset}/small_fold_0/study.db", f"{dataset}/small_fold_0"
    words = ["--trials", str(TRIALS), "--epochs", str(EPOCHS), "--pruner", "median"]
    started = time.monotonic()
    first, second = Worker(root, dataset, 1, *words), Worker(root, dataset, 2, *words)
    while num_over(read_trials(url, name)) < KILL_AFTER or not under_way(root, dataset):
        if None not in (first.process.poll(), second.process.poll()):
            sys.exit(first.told + second.told)
        time.sleep(0.5)
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    over = num_over(read_trials(url, name))
    third = Worker(root, dataset, 3, *words)
    for worker in (second, third):
        worker.wait()
    trials = read_trials(url, name)
    whole = [epochs_of(root, dataset, trial.number) for trial in trials if trial.state.name == "COMPLETE"]
    return {
        "trials": [describe(trial) for trial in trials],
        "seconds": round(time.monotonic() - started),
        "over_when_killed": over,
        "workers": [worker.trials() for worker in (first, second, third)],
        "epochs_once_each": all(epochs == list(range(1, EPOCHS + 1)) for epochs in whole if epochs),
        "headline": [line for line in third.told.splitlines() if "has a Dice of" in line or "itself was found" in line],
    }


def under_way(root: Path, dataset: str) -> bool:
    """Whether some trial has trained an epoch and is not over, so that a kill hits one in its middle."""
    folders = (root / "tune" / dataset / "small_fold_0").glob("trial_*/fold_0/checkpoints/last.pt")
    return any(True for _ in folders)


def epochs_of(root: Path, dataset: str, number: int) -> list[int]:
    path = root / "tune" / dataset / "small_fold_0" / f"trial_{number:04}" / "fold_0" / "logs" / "metrics.jsonl"
    return [json.loads(line)["epoch"] for line in path.read_text().splitlines()] if path.is_file() else []


def describe(trial: Any) -> dict[str, Any]:
    return {
        "number": trial.number, "state": trial.state.name, "dice": trial.value, "params": trial.params,
        "epochs": len(trial.intermediate_values), "seconds": trial.user_attrs.get("seconds"),
        "reason": trial.user_attrs.get("reason", ""),
    }  # fmt: skip


def compare(root: Path, dataset: str) -> dict[str, Any]:
    """Train the plan and the tuned one on a fold that the search did not see, and compare them."""
    if not (root / "plans" / dataset / "small_tuned.json").is_file():
        return {"table": "Nothing better than the plan itself was found; there is nothing to compare."}
    for plan in ("small", "small_tuned"):
        call("train", root, dataset, "-a", plan, "-f", "1", "-j", "1")
    told = call("compare", root, dataset, "-a", "small", "-a", "small_tuned", "--baseline", "small")
    lines = [line.rstrip() for line in told.splitlines() if not line.startswith("wrote")]
    return {"table": "\n".join(lines).replace(str(root), "WORKSPACE")}


@contextmanager
def run_postgresql(folder: Path) -> Iterator[str]:
    """Run a PostgreSQL of this machine below ``folder``, as its own user where this is root; yields its URL."""
    [programs] = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1:]
    place, user = folder / "postgresql", pwd.getpwuid(os.getuid()).pw_name
    place.mkdir()
    own: list[str] = []
    if user == "root":
        own, user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"], "postgres"
        shutil.chown(place, "postgres", "postgres")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = place / "data"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": True, "cwd": place}
    subprocess.run([*own, programs / "initdb", "-D", data, "-A", "trust", "--no-sync"], **quiet)  # type: ignore[call-overload]
    server = [*own, str(programs / "postgres"), "-D", str(data), "-p", str(port), "-k", str(place)]
    process = subprocess.Popen([*server, "-c", "listen_addresses=127.0.0.1"], stderr=subprocess.DEVNULL, cwd=place)
    try:
        while subprocess.run([programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]).returncode:
            time.sleep(0.2)
        yield f"postgresql+psycopg://{user}@127.0.0.1:{port}/postgres"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def search_in_postgresql(root: Path, dataset: str) -> dict[str, Any] | None:
    """Run four trials by two workers on a PostgreSQL; None where there is none."""
    if not list(Path("/usr/lib/postgresql").glob("*/bin")) or find_spec("psycopg") is None:
        return None
    space = root / "few.json"
    space.write_text(json.dumps(FEW))
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        with run_postgresql(Path(name)) as url:
            words = ["--trials", "4", "--epochs", "1", "--space", str(space), "--study", "database", "--storage", url]
            words += ["--name", "small_database"]
            workers = [Worker(root, dataset, number, *words) for number in (1, 2)]
            for worker in workers:
                worker.wait()
            trials = read_trials(url, f"{dataset}/database")
            version = subprocess.run(
                [*sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))[-1:], "--version"],
                capture_output=True, text=True, check=True,
            ).stdout.strip()  # fmt: skip
    return {
        "version": version,
        "trials": [describe(trial) for trial in trials],
        "workers": [worker.trials() for worker in workers],
    }


PAGE = """\
# A search on {dataset}, interrupted

`python tests/benchmarks/tune.py DATASET`: {cases} cases of the dataset, the U-Net as planned but narrow ({width}
channels first), {trials} trials of {epochs} epochs x {iterations} iterations of batch 2 in the default space, sampled
by tpe, stopped by the median. Two workers begin the study on one SQLite file; one is killed by SIGKILL in the middle of
a trial, when {over} trials are over, and started again. So short a training says nothing about the plans; shown is that
the search holds.

- {count} trials, numbers {numbers}, none lost and none twice: {states}; {seconds} s on two busy cores.
- {workers}
- The epochs 1 to {epochs} stand {once} in each trial that was trained to its end.
- {headline}

| trial | state | epochs | Dice of cases | reason |
|---|---|---|---|---|
{rows}

Then the plan itself and the tuned one, {plan_epochs} epochs each on fold 1, which the search did not see:

```
{table}
```

The study's report, cut off below (a screenshot of `reports/<D>/tune_small_fold_0.html`):

![Report](tune.png)
"""

DATABASE = """
## Two workers on a PostgreSQL

`--storage postgresql+psycopg://...`, {version} on the same machine, trials of one epoch by two workers at once: trials
{numbers}, {states}. {workers} Not shown: workers on several machines.
"""


def page(found: dict[str, Any]) -> str:
    """Return the page."""
    trials = found["trials"]
    row = "| {number} | {state} | {epochs} | {dice} | {reason} |"
    shown = ({**one, "dice": "" if one["dice"] is None else f"{one['dice']:.4f}"} for one in trials)
    text = PAGE.format(
        dataset=found["dataset"], cases=found["cases"], width=WIDTHS[0], iterations=ITERATIONS, trials=TRIALS,
        epochs=EPOCHS,
        over=found["over_when_killed"], count=len(trials), numbers=tell_numbers(trials), states=tell_states(trials),
        seconds=found["seconds"], workers=tell_workers(found["workers"], ("killed", "other", "restarted")),
        once="once each" if found["epochs_once_each"] else "NOT once each", plan_epochs=PLAN_EPOCHS,
        headline=" ".join(found["headline"]), rows="\n".join(row.format(**one) for one in shown), table=found["table"],
    )  # fmt: skip
    database = found["postgresql"]
    if database is None:
        return text
    return text + DATABASE.format(
        version=database["version"], numbers=tell_numbers(database["trials"]), states=tell_states(database["trials"]),
        workers=tell_workers(database["workers"], ("first", "second")),
    )  # fmt: skip


def tell_numbers(trials: list[dict[str, Any]]) -> str:
    return ", ".join(str(trial["number"]) for trial in trials)


def tell_states(trials: list[dict[str, Any]]) -> str:
    words = {"COMPLETE": "trained to the end", "PRUNED": "stopped or left out", "FAIL": "failed"}
    counts = Counter(words.get(trial["state"], trial["state"]) for trial in trials)
    return ", ".join(f"{count} {word}" for word, count in counts.items())


def tell_workers(workers: list[dict[str, int]], names: tuple[str, ...]) -> str:
    each = (
        f"the {name} worker began {one['began']} and went on with {one['went on']}" for name, one in zip(names, workers)
    )
    return ("; ".join(each) + ".").capitalize()


if __name__ == "__main__":
    main()
