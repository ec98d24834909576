"""Kill a training at random moments, go on by the same command, and compare with one that nothing interrupted.

``python tests/benchmarks/kill_resume.py -w WORKSPACE -d DATASET`` makes a tiny variant of the plan ``unet``, trains it
once undisturbed, and then again and again while processes are killed: 20 times by SIGKILL, then 5 times each by SIGTERM
and SIGINT, at moments drawn from a seed. A process that comes to its end before its moment ends a round, whose weights,
optimiser, history and scores are compared with the undisturbed ones bit for bit. It writes
docs/benchmarks/kill_resume.{json,md}. On a CPU only: there a training repeats itself exactly.
"""

import argparse
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "docs" / "benchmarks" / "kill_resume.json"
NAME = "kill_resume"
TINY = {
    "training.patch_size": [32, 32, 32],
    "network.config": {
        "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]], "kernel_sizes": [[3, 3, 3]] * 3,
        "features_per_stage": [8, 16, 32], "blocks_per_stage_encoder": [1, 1, 1], "blocks_per_stage_decoder": [1, 1],
    },
    "training.batch_size": 2, "training.epochs": 20, "training.iterations_per_epoch": 4,
    "training.validation_iterations": 2, "training.augmentation": "nnunet", "prediction.mirror_axes": [],
}  # fmt: skip
SIGNALS = {signal.SIGKILL: 20, signal.SIGTERM: 5, signal.SIGINT: 5}
VOLATILE = ("seconds", "seconds_waiting", "energy_kj")
"""What an epoch's record says of the machine and not of the training."""


class Trainings:
    """``autoseg_train`` for one fold, in processes of its own."""

    def __init__(self, dataset: str, workspace: Path) -> None:
        self.words = ["-d", dataset, "-w", str(workspace), "--device", "cpu"]
        self.workspace, self.dataset = workspace, dataset
        self.run = workspace / "results" / dataset / NAME / "fold_0"

    def plan(self) -> None:
        settings = [word for key, value in TINY.items() for word in ("--set", f"{key}={json.dumps(value)}")]
        words = ["-d", self.dataset, "-w", str(self.workspace), "-a", "unet", "--name", NAME, *settings]
        subprocess.run([sys.executable, "-m", "autoseg.cli.plan", *words], check=True, stdout=subprocess.DEVNULL)

    def start(self) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "autoseg.cli.train", *self.words, "-a", NAME, "-f", "0", "-j", "2"]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def finish(self) -> float:
        """Run the command to its end, and return the seconds."""
        started = time.perf_counter()
        process = self.start()
        _, told = process.communicate()
        if process.returncode:
            raise RuntimeError(told)
        return time.perf_counter() - started

    def result(self) -> dict[str, Any]:
        """Return all that two equal trainings must share."""
        checkpoint = torch.load(self.run / "checkpoints" / "last.pt", weights_only=True)
        best = torch.load(self.run / "checkpoints" / "best.pt", weights_only=True)
        return {
            "last.pt": dict(_leaves({key: checkpoint[key] for key in ("network", "optimizer", "epoch")})),
            "best.pt": dict(_leaves({key: best[key] for key in ("network", "epoch")})),
            "history": self.history(),
            "metrics.json": json.loads((self.run / "validation" / "metrics.json").read_text()),
        }

    def history(self) -> list[dict[str, Any]]:
        path = self.run / "logs" / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.is_file() else []
        return [{key: value for key, value in json.loads(line).items() if key not in VOLATILE} for line in lines]

    def phase(self) -> str:
        """Say what a process has come to, by its files."""
        if not self.history():
            return "before the first epoch's end"
        if len(self.history()) < TINY["training.epochs"]:
            return f"epoch {len(self.history()) + 1}"
        return "predicting and scoring"

    def leftovers(self) -> list[str]:
        return [str(path.relative_to(self.run)) for path in self.run.rglob(".partial*")]


def _leaves(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list | tuple):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in pairs:
            yield from _leaves(item, f"{where}.{key}")
    else:
        yield where, value.numpy().tobytes() if isinstance(value, torch.Tensor) else value


def kill_once(trainings: Trainings, number: signal.Signals, delay: float) -> dict[str, Any] | None:
    """Start, kill after a while, and return what was seen; None if the command came to its end before."""
    process = trainings.start()
    try:
        process.communicate(timeout=delay)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
        phase = trainings.phase()
        _, told = process.communicate()
        if process.returncode == 0:  # it ended in the moment of the signal
            return None
        seen = {"signal": number.name, "after_seconds": round(delay, 2), "phase": phase, "status": process.returncode}
        return seen | {"told": told.strip(), "left_partial": trainings.leftovers()}
    if process.returncode:
        raise RuntimeError(f"a training that went on ended with status {process.returncode}")
    return None


def check_kill(seen: dict[str, Any], history: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Hold the wreck against what is promised; a log may lack its last line, never have a wrong one."""
    number = signal.Signals[seen["signal"]]
    seen["history_is_a_beginning"] = history == expected[: len(history)]
    if number != signal.SIGKILL:
        seen["clean"] = seen["status"] == 130 and len(seen["told"].splitlines()) <= 1 and not seen["left_partial"]


def play(trainings: Trainings, expected: dict[str, Any], seed: int, seconds: float) -> dict[str, Any]:
    """Kill and go on until all signals are spent; return the kills and the comparison of each round."""
    rng = random.Random(seed)
    rounds: list[dict[str, Any]] = []
    kills: list[dict[str, Any]] = []
    left = [number for number, count in SIGNALS.items() for _ in range(count)]
    while left:
        shutil.rmtree(trainings.run, ignore_errors=True)
        before = len(kills)
        while left and (seen := kill_once(trainings, left[0], rng.uniform(0.05, 0.5) * seconds)):
            check_kill(seen, trainings.history(), expected["history"])
            kills.append(seen | {"round": len(rounds) + 1})
            print(json.dumps(kills[-1]), flush=True)
            left.pop(0)
        trainings.finish()
        found = trainings.result()
        same = {key: found[key] == expected[key] for key in expected}
        rounds.append({"kills": len(kills) - before, "same": same, "left_partial": trainings.leftovers()})
        print(json.dumps(rounds[-1]), flush=True)
    return {"kills": kills, "rounds": rounds}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    trainings = Trainings(options.dataset, options.workspace)
    trainings.plan()
    shutil.rmtree(trainings.run, ignore_errors=True)
    seconds = trainings.finish()
    expected = trainings.result()
    played = play(trainings, expected, options.seed, seconds)
    machine = {"system": platform.system(), "processor": platform.machine(), "torch": torch.__version__}
    length = {"epochs": TINY["training.epochs"], "iterations": TINY["training.iterations_per_epoch"]}
    shape = {"tensors": len(expected["last.pt"]), "cases": len(expected["metrics.json"]["cases"])}
    return {"dataset": options.dataset, "seed": options.seed, "seconds": seconds, **length, **shape,
            "machine": machine, **played}  # fmt: skip


def make_page(found: dict[str, Any]) -> str:
    """Return the page that tells what was found."""
    kills, rounds = found["kills"], found["rounds"]
    counts = {name: sum(kill["signal"] == name for kill in kills) for name in ("SIGKILL", "SIGTERM", "SIGINT")}
    equal = sum(all(one["same"].values()) for one in rounds)
    whole = sum(kill["history_is_a_beginning"] for kill in kills)
    polite = [kill for kill in kills if "clean" in kill]
    parts = [kill for kill in kills if kill["left_partial"]]
    after = sum(len(one["left_partial"]) for one in rounds)
    rows = [
        f"| {kill['round']} | {kill['signal']} | {kill['after_seconds']:.1f} | {kill['phase']} | {kill['status']} |"
        for kill in kills
    ]
    return "\n".join(
        [
            "# Killed and gone on with",
            "",
            f"`python tests/benchmarks/kill_resume.py -d {found['dataset']}` trains {found['epochs']} epochs of "
            f"{found['iterations']} iterations of a tiny network with nnU-Net's augmentation on {found['dataset']}, "
            f"then predicts and scores the {found['cases']} validation cases of fold 0: "
            f"{found['seconds']:.0f} s undisturbed, on a CPU with torch {found['machine']['torch']}. Then it is killed "
            "at moments drawn from a seed, and the same command typed again.",
            "",
            f"- {sum(counts.values())} interruptions: "
            + ", ".join(f"{n} by {name}" for name, n in counts.items())
            + ".",
            f"- {equal} of {len(rounds)} trainings that were interrupted and came to their end are bit for bit the "
            f"undisturbed one: the {found['tensors']} entries of network, optimiser and epoch in last.pt, best.pt, "
            "every epoch's losses and pseudo Dice, and metrics.json.",
            f"- After {whole} of {len(kills)} interruptions the loss history was a beginning of the undisturbed one.",
            f"- {sum(kill['clean'] for kill in polite)} of {len(polite)} signals that can be caught ended in status "
            "130, one line at most, and no half-written file.",
            f"- {len(parts)} SIGKILLs left a half-written file behind, under a name of its own; after the trainings "
            f"{after} were left.",
            "",
            "Where it was is read from the files: a process that was still loading its libraries counts at the place "
            "where the one before it had ended.",
            "",
            "| training | signal | s after its start | it was at | exit status |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def main() -> None:
    """Measure, and write table and page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-w", "--workspace", type=Path, required=True)
    parser.add_argument("-d", "--dataset", default="Hippocampus")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with suppress(FileNotFoundError):
        TABLE.unlink()
    found = measure(options)
    TABLE.write_text(json.dumps(found, indent=1) + "\n")
    TABLE.with_suffix(".md").write_text(make_page(found))


if __name__ == "__main__":
    main()
