"""Train every loss with every optimiser and every schedule on real data, and see whether the loss falls.

``python tests/benchmarks/training_table.py -w WORKSPACE -d Hippocampus`` (after ``autoseg_plan`` with ``-a nnunet``)
trains each combination for 30 iterations: 3 epochs of 10 of the loop itself, on small patches and with a small network,
so that all of them take about 10 minutes on a free CPU. The loss is taken before the training and after it, on the
same batches of validation cases, which are those of every validation. It goes on where it was stopped, and writes
docs/benchmarks/training_table.{json,md}.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any, get_args

import torch

from autoseg.data.dataset import find_dataset
from autoseg.data.workspace import Workspace
from autoseg.launch.fold import FoldRun, open_run_of
from autoseg.losses import available_losses, load_loss
from autoseg.plan.optimization import Optimizer, Schedule
from autoseg.plan.plan import Plan, read_plan
from autoseg.plan.variant import vary
from autoseg.train.interruption import StopFlag
from autoseg.train.loader import CaseCache, open_pool
from autoseg.train.loop import run_epoch, run_validation
from autoseg.train.setup import make_batches, make_setup
from autoseg.train.state import make_state

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "benchmarks"
CPU = torch.device("cpu")
RATES = {"sgd": 0.01, "adam": 1e-3, "adamw": 1e-3, "rmsprop": 1e-3}
"""Learning rates; all else is each optimiser's and schedule's default."""

SETTINGS: dict[str, Any] = {
    "training.patch_size": [16, 24, 16],
    "training.batch_size": 2,
    "training.epochs": 3,
    "training.iterations_per_epoch": 10,
    "training.validation_iterations": 8,
    "training.augmentation": "none",
    "network.config": {
        "strides": [[1, 1, 1], [2, 2, 2]], "kernel_sizes": [[3, 3, 3]] * 2, "features_per_stage": [8, 16],
        "blocks_per_stage_encoder": [1, 1], "blocks_per_stage_decoder": [1],
    },
}  # fmt: skip

Combination = tuple[str, str, str]


def combinations() -> Iterator[Combination]:
    """Yield the names of all losses, optimisers and schedules that there are."""
    names = ([kind.model_fields["name"].default for kind in get_args(union)] for union in (Optimizer, Schedule))
    yield from product(available_losses(), *names)


def make_plan(base: Plan, combination: Combination) -> Plan:
    """Return the base with a small network and patch, and with the combination."""
    loss, optimizer, schedule = combination
    chosen = {
        **SETTINGS,
        "training.loss": {"name": loss, **load_loss(loss).Config().model_dump()},
        "training.optimizer": {"name": optimizer, "learning_rate": RATES[optimizer]},
        "training.schedule": {"name": schedule},
    }
    return vary(base, "row", [f"{key}={json.dumps(value)}" for key, value in chosen.items()])


def run_row(run: FoldRun, cache: CaseCache) -> dict[str, float]:
    """Train the plan, and return the loss before and after, and the mean training loss of the first and last epoch."""
    with open_pool(1) as pool, tempfile.TemporaryDirectory() as folder:
        setup = make_setup(run.plan, CPU, lambda event: None, StopFlag())
        state = make_state(run.plan, CPU, scaled=False)
        first, batches = (make_batches(setup, 0, run.fold, cache, pool) for _ in range(2))
        with closing(first.training), closing(first.validation):
            before, _, _ = run_validation(state, setup, first)
        with closing(batches.training), closing(batches.validation):
            reports = [run_epoch(state, setup, batches, Path(folder)) for _ in range(run.plan.training.epochs)]
    assert before is not None and reports[-1].validation_loss is not None
    return {
        "before": before, "after": reports[-1].validation_loss,
        "first_epoch": reports[0].train_loss, "last_epoch": reports[-1].train_loss,
    }  # fmt: skip


def write(rows: list[dict[str, Any]], dataset: str, threads: int) -> None:
    """Write the JSON document and the table."""
    document = {"dataset": dataset, "settings": SETTINGS, "rates": RATES, "rows": rows}
    (FOLDER / "training_table.json").write_text(json.dumps(document, indent=1) + "\n")
    fallen = sum(row["after"] < row["before"] for row in rows)
    optimizers, schedules = (list(dict.fromkeys(row[key] for row in rows)) for key in ("optimizer", "schedule"))
    lines = [
        "# Every loss with every optimiser and schedule",
        "",
        f"Made by `python tests/benchmarks/training_table.py`: 30 iterations of the real loop on {dataset}, fold 0, "
        "patches of 16x24x16 in batches of 2, no augmentation, a U-Net of two stages (8 and 16 features), "
        f"{threads} thread(s). "
        f"Learning rates: {', '.join(f'{name} {rate:g}' for name, rate in RATES.items())}.",
        "",
        f"**The loss falls in {fallen} of {len(rows)} combinations.** Each cell is the loss after the training over "
        "the one before it, on the same 8 batches of validation cases (`boundary` can be below 0, so that there it is "
        "their difference).",
        "",
    ]
    for loss in dict.fromkeys(row["loss"] for row in rows):
        lines += [f"## {loss}", "", "| | " + " | ".join(schedules) + " |", "|" + "---|" * (len(schedules) + 1)]
        for optimizer in optimizers:
            own = {r["schedule"]: r for r in rows if (r["loss"], r["optimizer"]) == (loss, optimizer)}
            lines.append(f"| {optimizer} | " + " | ".join(_cell(own.get(name)) for name in schedules) + " |")
        lines.append("")
    (FOLDER / "training_table.md").write_text("\n".join(lines).rstrip() + "\n")


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    change = row["after"] - row["before"]
    text = f"{change:+.3f}" if row["loss"] == "boundary" else f"{row['after'] / row['before']:.3f}"
    return text if change < 0 else f"**{text}**"


def _finished(dataset: str) -> list[dict[str, Any]]:
    """Return the rows of an earlier run with the same settings."""
    path = FOLDER / "training_table.json"
    document = json.loads(path.read_text()) if path.is_file() else {}
    same = all(document.get(key) == value for key, value in (("dataset", dataset), ("settings", SETTINGS)))
    return document["rows"] if same and document.get("rates") == RATES else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-w", "--workspace", type=Path, required=True)
    parser.add_argument("-d", "--dataset", default="Hippocampus")
    parser.add_argument("--again", action="store_true", help="train what is finished again")
    options = parser.parse_args()
    workspace = Workspace(options.workspace)
    dataset = find_dataset(options.dataset, workspace)
    base = read_plan(workspace.plan(dataset.name, "nnunet"))
    rows = [] if options.again else _finished(dataset.name)
    done = {(row["loss"], row["optimizer"], row["schedule"]) for row in rows}
    cache: CaseCache | None = None
    for combination in combinations():
        if combination in done:
            continue
        run = open_run_of(workspace, dataset, make_plan(base, combination), 0, Path("nowhere"))
        cache = cache or CaseCache(run.store)
        rows.append({**dict(zip(("loss", "optimizer", "schedule"), combination)), **run_row(run, cache)})
        print(rows[-1], flush=True)
        write(rows, dataset.name, torch.get_num_threads())
    write(rows, dataset.name, torch.get_num_threads())


if __name__ == "__main__":
    main()
