"""All 48 orientations of one volume give the same prediction up to the reorientation, exactly."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from torch import nn

from autoseg.data.cases import Case
from autoseg.data.labels import Labels
from autoseg.plan.plan import Normalization, Plan, PlanDataset, Prediction, Preprocessing, Training
from autoseg.predict.model import Member, Model
from autoseg.predict.predictor import predict_cases

CODES = [
    "".join(letters) for order in itertools.permutations(("RL", "AP", "IS")) for letters in itertools.product(*order)
]
LABELS = Labels.from_names({"background": 0, "liver": 3, "spleen": 7})
SCHEME = Normalization(scheme="zscore", use_mask=False, lower=None, upper=None, mean=None, std=None)
PLAN = Plan.model_construct(
    name="test",
    dataset=PlanDataset(
        name="Test", channels=("CT",), labels=LABELS.labels, regions=LABELS.regions, fingerprint_sha256="0" * 64
    ),
    preprocessing=Preprocessing(
        orientation="LPS", transpose=(1, 0, 2), spacing=(1.5, 1.2, 1.1), downsample=1.0, normalization=(SCHEME,),
        image_order=3, label_order=1, separate_axis_threshold=3.0,
    ),
    training=Training.model_construct(patch_size=(8, 12, 8), precision="fp32"),
    prediction=Prediction(tile_step=0.5, mirror_axes=(), surface_tolerance_mm=2.0),
)  # fmt: skip


class Tiny(nn.Module):
    """Two convolutions of random weights: what it says depends on the direction of every axis."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv3d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv3d(6, 3, 3, padding=1))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [self.layers(x)]


@pytest.fixture(scope="module")
def image() -> sitk.Image:
    """A volume in LPS whose three axes differ in size and spacing, with an empty margin."""
    rng = np.random.default_rng(0)
    array = np.zeros((11, 13, 15), np.float32)
    array[1:, :12, 2:] = rng.normal(100, 30, (10, 12, 13))
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((1.25, 1.0, 2.0)), image.SetOrigin((5.0, -7.5, 20.25))
    return image


def test_all_48_orientations_give_the_same_prediction(image: sitk.Image, tmp_path: Path) -> None:
    network = Tiny().eval()
    cases = []
    for code in CODES:
        path = tmp_path / "images" / f"{code}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        sitk.WriteImage(sitk.DICOMOrient(image, code), str(path))
        cases.append(Case(code, (path,), None))
    predict_cases(Model((Member(PLAN, (network,)),), torch.device("cpu")), cases, tmp_path / "out")
    reference = sitk.ReadImage(str(tmp_path / "out" / "LPS.nii.gz"))
    counts = np.unique(sitk.GetArrayFromImage(reference), return_counts=True)[1]
    assert len(CODES) == 48 and len(counts) == 3 and counts.min() > 50
    for case in cases:
        source, found = (
            sitk.ReadImage(str(case.images[0])),
            sitk.ReadImage(str(tmp_path / "out" / f"{case.name}.nii.gz")),
        )
        assert (found.GetSize(), found.GetSpacing(), found.GetOrigin(), found.GetDirection()) == (
            source.GetSize(), source.GetSpacing(), source.GetOrigin(), source.GetDirection(),
        )  # fmt: skip
        back = sitk.DICOMOrient(found, "LPS")
        np.testing.assert_array_equal(sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(reference))
