"""``autoseg_run`` over the table of losses on a phantom, killed twice by SIGKILL and started again each time.

    python tests/benchmarks/run_killed.py [PAGE]

Counts afterwards what every run of the table has logged, and writes PAGE, by default docs/benchmarks/run_killed.md.
tests/cli/test_run.py tests the same.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 4
KILLED_AT = (1, 4)
"""Finished runs at which the command is killed, once another run has trained an epoch."""

TINY = (
    "training.patch_size=[16,16,16]",
    'network.config={"strides":[[1,1,1],[2,2,2]],"kernel_sizes":[[3,3,3],[3,3,3]],"features_per_stage":[4,8],'
    '"blocks_per_stage_encoder":[1,1],"blocks_per_stage_decoder":[1]}',
    "training.batch_size=2",
    f"training.epochs={EPOCHS}",
    "training.iterations_per_epoch=4",
    "training.validation_iterations=1",
    "prediction.mirror_axes=[]",
)


@dataclass
class Trial:
    """A workspace, and what was done in it."""

    root: Path
    lines: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def note(self, text: str) -> None:
        line = f"[{time.monotonic() - self.started:5.1f} s] {text}".replace(str(self.root), "WORKSPACE").rstrip()
        self.lines.append(line)
        sys.stderr.write(line + "\n")

    def start(self) -> "subprocess.Popen[str]":
        words = ["-d", "Phantom", "-w", str(self.root), "-j", "1", "--device", "cpu", "--table", "losses", "-f", "0"]
        words += ["--name", "tiny", *(word for text in TINY for word in ("--set", text))]
        self.note("$ autoseg_run -d Phantom --table losses -f 0 --set ... --name tiny")
        command = [sys.executable, "-m", "autoseg.cli.run", *words]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8")

    @property
    def folders(self) -> list[Path]:
        return sorted((self.root / "results" / "Phantom").glob("*/fold_*"))

    def finished(self) -> dict[str, int]:
        """Return the finished runs, each with the time at which its scores were written."""
        paths = [folder / "validation" / "metrics.json" for folder in self.folders]
        return {path.parents[2].name: path.stat().st_mtime_ns for path in paths if path.is_file()}

    def under_way(self) -> list[str]:
        """Return the runs that have trained an epoch and are not finished."""
        begun = [folder for folder in self.folders if epochs(folder)]
        return [folder.parent.name for folder in begun if folder.parent.name not in self.finished()]


def epochs(folder: Path) -> list[int]:
    path = folder / "logs" / "metrics.jsonl"
    return [json.loads(line)["epoch"] for line in path.read_text().splitlines()] if path.is_file() else []


def endings(folder: Path) -> list[str]:
    text = (folder / "logs" / "run.log").read_text(encoding="utf-8")
    return re.findall(r"^\S+ \S+  ended: (.*)$", text, flags=re.MULTILINE)


def kill_at(trial: Trial, num_finished: int) -> None:
    process = trial.start()
    while len(trial.finished()) < num_finished or not trial.under_way():
        if process.poll() is not None:
            sys.exit(process.communicate()[0])
        time.sleep(0.01)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.communicate()
    done, left = list(trial.finished()), trial.under_way()
    trial.note(f"$ kill -KILL: {len(done)} runs are finished, {', '.join(left) or 'none'} in the middle")
    while any(is_alive(int(child)) for child in children):
        time.sleep(0.05)
    trial.note("  the training that it had started has ended too")


def is_alive(number: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{number}/status").read_text()
    except OSError:
        return False


def exercise(root: Path) -> tuple[Trial, bool]:
    """Return the trial at its end, and whether what was finished before a kill was left alone."""
    from autoseg.data.phantom import make_phantom_dataset

    make_phantom_dataset(root / "raw" / "Dataset900_Phantom", num_cases=6, size=32, seed=1)
    trial = Trial(root)
    for num_finished in KILLED_AT:
        kill_at(trial, num_finished)
    before = trial.finished()
    told, _ = trial.start().communicate()
    for line in told.splitlines():
        trial.note(f"  {line}")
    after = trial.finished()
    return trial, all(after[name] == when for name, when in before.items())


PAGE = """\
# A table of runs, killed twice

`python tests/benchmarks/run_killed.py`: the shipped table of losses on a phantom of six cases, {runs} plans of {epochs}
epochs each on fold 0. `autoseg_run` is killed by SIGKILL when {first} and when {second} runs are finished and another
one is in its middle, and the same command is typed again.

| run | epochs logged | attempts that ended by themselves | scored |
|---|---|---|---|
{rows}

{once} of {runs} runs have the epochs 1 to {epochs} once each and finished once; the scores of those finished before a
kill were {alone}written again; beside them there is {others}.

```
{lines}
```
"""


def main() -> None:
    from autoseg.launch.table import find_table

    path = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "benchmarks" / "run_killed.md"
    expected = {f"{row.name}_tiny" for row in find_table("losses").plans}
    with tempfile.TemporaryDirectory() as name:
        trial, alone = exercise(Path(name))
        wanted, rows, once = list(range(1, EPOCHS + 1)), [], 0
        for folder in trial.folders:
            ended, scored = endings(folder), (folder / "validation" / "metrics.json").is_file()
            once += epochs(folder) == wanted and ended.count("finished") == 1 and scored
            cells = [f"`{folder.parent.name}`", ", ".join(map(str, epochs(folder))), "; ".join(ended) or "none"]
            rows.append(f"| {' | '.join([*cells, 'yes' if scored else 'no'])} |")
        others = {folder.parent.name for folder in trial.folders} ^ expected
        text = PAGE.format(
            runs=len(expected), epochs=EPOCHS, first=KILLED_AT[0], second=KILLED_AT[1], rows="\n".join(rows), once=once,
            alone="not " if alone else "", others=", ".join(sorted(others)) or "no other run, and none is missing",
            lines="\n".join(trial.lines),
        )  # fmt: skip
    path.write_text(text)
    sys.exit(0 if once == len(expected) and alone and not others else 1)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
