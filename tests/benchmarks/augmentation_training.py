"""Train the same plan with different augmentations behind the same loop, and compare the validation Dice.

``python tests/benchmarks/augmentation_training.py -w WORKSPACE -d Hippocampus`` (after ``autoseg_plan -d Hippocampus``)
trains one fold of the plan ``nnunet`` for equally many iterations: without augmentation, with mirroring alone, with
autoseg's version of nnU-Net's augmentation, and with nnU-Net's own transforms of batchgeneratorsv2, sample by sample,
in its place. It goes on where it was stopped, and writes docs/benchmarks/augmentation_training.{json,md}. The data must
have one channel: only then do the transforms' probabilities of samples and of channels multiply to one number.
"""

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from augment import ROOT, batchgenerators_transforms, largest_box

from autoseg.augment._pipeline import Pipeline
from autoseg.data.dataset import find_dataset
from autoseg.data.labels import OUTSIDE_CLASS
from autoseg.data.workspace import Workspace
from autoseg.documents import read_document, write_document
from autoseg.launch.fold import FoldRun, open_fold, train, validate
from autoseg.plan.augmentation import make_recipe, setting_of
from autoseg.plan.plan import Plan, read_plan
from autoseg.plan.variant import make_variant
from autoseg.train.machine import Machine

Size = tuple[int, ...]
METHODS = ("none", "mirror", "autoseg", "batchgeneratorsv2")


class OwnTransforms:
    """nnU-Net's own transforms in the place of a ``Pipeline``: every sample by itself, from nnU-Net's large box."""

    def __init__(self, size: Size) -> None:
        from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform

        spatial = SpatialTransform(
            size, 0, False, p_rotation=0.2, rotation=(-0.5236, 0.5236), p_scaling=0.2, scaling=(0.7, 1.4),
            p_synchronize_scaling_across_axes=1, border_mode_seg="constant", padding_value_seg=OUTSIDE_CLASS,
        )  # fmt: skip
        self.transforms = [(1.0, spatial), *batchgenerators_transforms(size).values()]
        self.source = tuple(n + 2 * round((most - n) / 2) for n, most in zip(size, largest_box(size)))

    def sample(self, shape: tuple[int, ...], generator: torch.Generator) -> tuple[dict[str, torch.Tensor], ...]:
        """Draw a seed, since the transforms draw from the global generators."""
        return ({"seed": torch.randint(2**31, (1,), generator=generator)},)

    def source_sizes(self, parameters: Any, shape: tuple[int, ...]) -> list[Size]:
        """Return the same large box for every sample."""
        return [self.source] * shape[0]

    def apply(
        self, images: torch.Tensor, classes: torch.Tensor, parameters: Any, patch_size: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Augment one sample after another."""
        seed = int(parameters[0]["seed"])
        with torch.random.fork_rng():
            for seed_generator in (torch.manual_seed, np.random.seed, random.seed):
                seed_generator(seed)
            pairs = [self._augment(image, labels) for image, labels in zip(images, classes)]
        augmented, labels = (torch.stack(parts) for parts in zip(*pairs))
        return augmented, labels.masked_fill_(labels == OUTSIDE_CLASS, 0)

    def _augment(self, image: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        data = {"image": image, "segmentation": labels[None]}
        for probability, transform in self.transforms:
            if random.random() < probability:
                data = transform(**data)
        return data["image"], data["segmentation"][0]


def make_run(method: str, options: argparse.Namespace) -> FoldRun:
    """Write the method's plan, and return its run."""
    workspace = Workspace(options.workspace)
    dataset = find_dataset(options.dataset, workspace)
    base = read_plan(workspace.plan(dataset.name, "nnunet"))
    recipe = make_recipe("nnunet", setting_of(json.loads(base.model_dump_json(by_alias=True))))
    chosen = {"none": [], "mirror": [entry for entry in recipe if entry["name"] == "mirror"]}.get(method, recipe)
    settings = {
        "training.epochs": options.epochs, "training.iterations_per_epoch": options.iterations,
        "training.validation_iterations": 5, "training.batch_size": options.batch, "training.augmentation": chosen,
    }  # fmt: skip
    name = f"augmentation_{method}"
    plan = make_variant(base, name, [f"{key}={json.dumps(value)}" for key, value in settings.items()])
    write_document(workspace.plan(dataset.name, name), plan)
    return open_fold(workspace, dataset, name, options.fold)


def run_method(method: str, options: argparse.Namespace) -> dict[str, Any]:
    """Train and score with one method; return its row."""
    run = make_run(method, options)
    device = torch.device(options.device)

    def choose(components: Any) -> Any:
        return OwnTransforms(run.plan.training.patch_size) if method == "batchgeneratorsv2" else Pipeline(components)

    if not run.metrics_path.is_file():
        with mock.patch("autoseg.train.setup.Pipeline", choose):
            train(run, Machine(device, 1, augment_device="device"), on_event=lambda event: None)
        validate(run, device=device, num_workers=1)
    scores = json.loads(run.metrics_path.read_text())["mean"]
    history = [json.loads(line) for line in (run.folder / "logs" / "metrics.jsonl").read_text().splitlines()]
    seconds = sum(epoch["seconds"] for epoch in history) / (options.epochs * options.iterations)
    losses = {key: history[-1][key] for key in ("train_loss", "validation_loss")}
    return {
        "method": method,
        "dice": {region: scores[region]["dice"] for region in run.plan.dataset.regions},
        "iteration_s": seconds,
        **losses,
    }


def write(rows: list[dict[str, Any]], options: argparse.Namespace, plan: Plan) -> None:
    """Write the JSON document and the table."""
    section = plan.training
    folder = ROOT / "docs" / "benchmarks"
    document = {"iterations": section.epochs * section.iterations_per_epoch, "batch_size": section.batch_size}
    text = json.dumps({**document, "dataset": options.dataset, "rows": rows}, indent=1)
    (folder / "augmentation_training.json").write_text(text + "\n")
    regions = list(rows[0]["dice"])
    lines = [
        "# The same training with different augmentations",
        "",
        f"Made by `python tests/benchmarks/augmentation_training.py`: {options.dataset}, fold {options.fold}, plan "
        f"`nnunet`, {document['iterations']} iterations of batch {section.batch_size}, {section.optimizer.name}, "
        f"{section.precision}. Dice of the whole validation cases. Losses are of the last epoch.",
        "",
        "| augmentation | mean Dice | " + " | ".join(regions) + " | training loss | validation loss |",
        "|" + "---|" * (len(regions) + 4),
    ]
    for row in rows:
        dice = [row["dice"][region] for region in regions]
        cells = [row["method"], *(f"{v:.3f}" for v in (sum(dice) / len(dice), *dice))]
        cells += [f"{row[key]:.3f}" for key in ("train_loss", "validation_loss")]
        lines.append("| " + " | ".join(cells) + " |")
    (folder / "augmentation_training.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-w", "--workspace", type=Path, required=True)
    parser.add_argument("-d", "--dataset", default="Hippocampus")
    parser.add_argument("-f", "--fold", type=int, default=0)
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--iterations", type=int, default=25, help="of an epoch")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for method in options.methods:
        rows.append(run_method(method, options))
        print(rows[-1], flush=True)
        write(rows, options, read_document(make_run(method, options).folder / "plan.json", Plan))


if __name__ == "__main__":
    main()
