"""A network in 2-D through the commands: trained on slices, predicting whole volumes in the images' own geometry."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from autoseg.cli import plan, predict, train
from autoseg.data.workspace import Workspace
from autoseg.plan.plan import Plan, read_plan
from autoseg.train.state import build_network

BRIEF = (
    "training.patch_size=[32,32]", "training.batch_size=4", "training.epochs=1", "training.iterations_per_epoch=3",
    "training.validation_iterations=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, phantom_folder: Path) -> Path:
    """A workspace in which a small plan in 2-D was trained on a fold and used."""
    root = tmp_path_factory.mktemp("workspace")
    (root / "raw").symlink_to(phantom_folder.parent)
    place = ["-d", "Phantom", "-w", str(root)]
    settings = [word for text in BRIEF for word in ("--set", text)]
    assert plan.main([*place, "-a", "nnunet_2d", "--name", "brief", *settings]) == 0
    assert train.main([*place, "-a", "brief", "-f", "0", "--device", "cpu"]) == 0
    images = str(phantom_folder / "imagesTs")
    assert predict.main([*place, "-a", "brief", "-i", images, "-o", str(root / "out"), "--device", "cpu"]) == 0
    return root


def _plan(root: Path) -> Plan:
    return read_plan(Workspace(root).plan("Phantom", "brief"))


def test_training_on_slices_gives_a_finite_loss_and_scores(finished: Path) -> None:
    run = finished / "results" / "Phantom" / "brief" / "fold_0"
    record = json.loads((run / "logs" / "metrics.jsonl").read_text().splitlines()[0])
    assert np.isfinite(record["train_loss"])
    assert json.loads((run / "validation" / "metrics.json").read_text())["cases"]


def test_predictions_are_whole_volumes_in_their_own_geometry(finished: Path, phantom_folder: Path) -> None:
    images = sorted((phantom_folder / "imagesTs").iterdir())
    assert images
    for path in images:
        image = sitk.ReadImage(str(path))
        segmentation = sitk.ReadImage(str(finished / "out" / path.name.replace("_0000", "")))
        for attribute in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
            assert getattr(segmentation, attribute)() == getattr(image, attribute)(), attribute


def test_slices_keep_the_spacing_of_their_case(finished: Path) -> None:
    stored = [json.loads(path.read_text()) for path in (finished / "preprocessed").rglob("*.json")]
    cases = [one for one in stored if "shape_before_resampling" in one]
    assert cases
    assert all(one["shape"][0] == one["shape_before_resampling"][0] for one in cases)


def test_the_logits_of_a_batch_are_those_of_its_slices(finished: Path) -> None:
    network = build_network(_plan(finished)).eval()
    images = torch.randn(3, 1, 1, 32, 32)
    with torch.no_grad():
        together = network(images)[0]
        alone = torch.cat([network.network(image.squeeze(2))[0] for image in images.split(1)])  # type: ignore[operator]
    assert together.shape[2:] == (1, 32, 32)
    torch.testing.assert_close(together.squeeze(2), alone, rtol=1e-4, atol=1e-4)
