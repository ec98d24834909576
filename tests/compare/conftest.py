"""A factory of results folders that look like those of real trainings."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoseg.data.workspace import Workspace

DATASET = "Hippocampus"
REGIONS = ("Anterior", "Posterior")
EVIL = "<script>alert(1)</script>"
# mean Dice, parameters, seconds an epoch, memory in GB, seconds a case, patch, optimizer
PLANS = {
    "unet": (0.856, 9_400_000, 21.0, 3.1, 0.8, [40, 56, 40], "sgd"),
    "nnunet": (0.871, 16_500_000, 38.0, 4.9, 1.1, [40, 56, 40], "sgd"),
    "attention_unet": (0.874, 17_100_000, 61.0, 6.2, 1.7, [40, 56, 40], "sgd"),
    "unetr": (0.821, 92_300_000, 55.0, 7.3, 1.3, [48, 64, 48], "adamw"),
}


def _plan_document(name: str, epochs: int) -> dict[str, Any]:
    _, parameters, _, memory, _, patch, optimizer = PLANS.get(name, PLANS["unet"])
    rate = {"sgd": 0.01, "adamw": 1e-4}[optimizer]
    config = {"hidden_size": 768} if name == "unetr" else {"strides": [[1, 1, 1], [2, 2, 2]]}
    dataset = {"name": DATASET, "channels": ["MRI"], "labels": {"background": 0}, "regions": {}}
    return {
        "schema": "autoseg.plan.1",
        "name": name,
        "dataset": {**dataset, "fingerprint_sha256": "0" * 64},
        "budget": {"memory_gb": 8.0},
        "preprocessing": {"spacing": [1.0, 1.0, 1.0], "normalization": [{"scheme": "zscore", "use_mask": False}]},
        "network": {"architecture": name, "config": config},
        "training": {
            "patch_size": patch, "batch_size": 9 if optimizer == "sgd" else 6,
            "epochs": epochs, "iterations_per_epoch": 250, "optimizer": {"name": optimizer, "learning_rate": rate},
            "augmentation": [{"name": "mirror", "axes": [0, 1, 2]}, {"name": "gamma", "probability": 0.3}],
        },
        "prediction": {"tile_step": 0.5, "mirror_axes": [0, 1, 2], "surface_tolerance_mm": 2.0},
        "estimate": {"memory_gb": memory * 1.04, "parameters": parameters, "flops_per_iteration": 10**12},
        "rationale": {},
    }  # fmt: skip


def _epoch(name: str, epoch: int, epochs: int, rng: np.random.Generator) -> dict[str, Any]:
    target, _, seconds, memory = PLANS.get(name, PLANS["unet"])[:4]
    risen = 1 - np.exp(-8 * epoch / epochs)
    dice = {region: round(float(target * risen + rng.normal(0, 0.012)), 4) for region in REGIONS}
    return {
        "epoch": epoch,
        "train_loss": round(float(0.4 - 1.25 * risen * target + rng.normal(0, 0.01)), 4),
        "validation_loss": round(float(0.4 - 1.2 * risen * target + rng.normal(0, 0.02)), 4),
        "validation_dice": dice,
        "learning_rate": 0.01 * (1 - epoch / epochs) ** 0.9,
        "seconds": round(float(seconds * rng.uniform(0.97, 1.05)), 3),
        "seconds_waiting": 0.4,
        "peak_memory_gb": memory,
        "peak_host_memory_gb": 2 + epoch / 100,
        "energy_kj": seconds * 0.4,
    }


def _scores(name: str, difficulty: np.ndarray, rng: np.random.Generator) -> list[dict[str, dict[str, float | None]]]:
    target = PLANS.get(name, PLANS["unet"])[0]
    cases = []
    for hard in difficulty:
        regions: dict[str, dict[str, float | None]] = {}
        for region, shift in zip(REGIONS, (0.008, -0.008)):
            dice = float(np.clip(target + shift - hard + rng.normal(0, 0.012), 0, 1))
            regions[region] = {
                "dice": dice,
                "hausdorff_95": float(max(0.5, 14 * (1 - dice) + rng.normal(0, 0.25))),
                "surface_dice": float(np.clip(dice + 0.09 + rng.normal(0, 0.01), 0, 1)),
            }
        cases.append(regions)
    return cases


def write_run(
    root: Path,
    plan: str,
    fold: int,
    names: list[str],
    *,
    epochs: int = 100,
    trained: int | None = None,
    scored: bool = True,
    seed: int = 0,
) -> Path:
    """Write one run folder below ``root``/results; the difficulty of a case is the same for all plans."""
    rng = np.random.default_rng([seed, fold, sum(map(ord, plan))])
    folder = root / "results" / DATASET / plan / f"fold_{fold}"
    (folder / "logs").mkdir(parents=True)
    (folder / "validation").mkdir()
    (folder / "plan.json").write_text(json.dumps(_plan_document(plan, epochs)))
    count = epochs if trained is None else trained
    lines = [json.dumps(_epoch(plan, epoch, epochs, rng)) for epoch in range(1, count + 1)]
    (folder / "logs" / "metrics.jsonl").write_text("".join(line + "\n" for line in lines))
    (folder / "logs" / "train.log").write_text("2026-01-01 10:00:00  started\n2026-01-01 11:00:00  interrupted\n")
    versions = {"python": "3.11.2", "torch": "2.13.0", "autoseg": "0.1.0"}
    record = {"schema": "autoseg.run.1", "device": "NVIDIA H200", "precision": "bf16", "threads": 8, "workers": 8,
              "parameters": PLANS.get(plan, PLANS["unet"])[1], "versions": versions}  # fmt: skip
    (folder / "run.json").write_text(json.dumps(record))
    if scored:
        difficulty = np.random.default_rng([seed, fold]).gamma(1.2, 0.035, len(names)) - 0.04
        write_scores(folder, dict(zip(names, _scores(plan, difficulty, rng))))
        seconds = PLANS.get(plan, PLANS["unet"])[4]
        timing = {name: float(seconds * rng.uniform(0.8, 1.3)) for name in names}
        (folder / "validation" / "timing.json").write_text(json.dumps({"cases": timing}))
    return folder


def write_scores(folder: Path, cases: dict[str, dict[str, dict[str, float | None]]]) -> None:
    """Write validation/metrics.json of a run folder."""
    (folder / "validation" / "metrics.json").write_text(json.dumps({"cases": cases, "mean": {}}))


def make_results(
    root: Path, *, num_cases: int = 40, folds: int = 2, plans: tuple[str, ...] = tuple(PLANS)
) -> Workspace:
    """Write finished runs of all plans and folds; one case has a hostile name, one value is undefined."""
    names = [f"hippocampus_{index:03d}" for index in range(num_cases - 1)] + [EVIL]
    split = [names[fold::folds] for fold in range(folds)]
    for plan in plans:
        for fold in range(folds):
            write_run(root, plan, fold, split[fold])
    folder = root / "results" / DATASET / plans[0] / "fold_0"
    cases = json.loads((folder / "validation" / "metrics.json").read_text())["cases"]
    cases[names[0]]["Posterior"] = {"dice": None, "hausdorff_95": None, "surface_dice": None}
    write_scores(folder, cases)
    plans_folder = root / "plans" / DATASET
    plans_folder.mkdir(parents=True)
    (plans_folder / "splits.json").write_text(
        json.dumps({"folds": [{"train": [], "validation": part} for part in split]})
    )
    return Workspace(root)


@pytest.fixture(scope="session")
def finished_results(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with four plans of two folds, all finished; read only."""
    return make_results(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def own_results(tmp_path: Path) -> Workspace:
    """A workspace with two plans of two folds and 16 cases that a test may change."""
    return make_results(tmp_path / "own", num_cases=16, plans=("unet", "nnunet"))
