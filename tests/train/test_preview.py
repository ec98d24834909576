"""The contact sheet of augmented patches."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from autoseg.augment import load_augmentation
from autoseg.augment._pipeline import Pipeline
from autoseg.errors import TrainingError
from autoseg.plan.plan import Plan
from autoseg.preprocess.preview import COLOURS
from autoseg.preprocess.store import CaseStore
from autoseg.train.preview import write_preview


def test_the_sheet_shows_patches_with_outlines(
    store: CaseStore, make_plan: Callable[..., Plan], tmp_path: Path
) -> None:
    names = ("spatial", "gaussian_noise", "gamma", "mirror")
    augmentation = [{"name": name, **load_augmentation(name).Config().model_dump()} for name in names]
    path = tmp_path / "preview.png"
    write_preview(make_plan(augmentation=augmentation), store, path, num_workers=1, num_patches=6)
    pixels = np.asarray(Image.open(path))
    assert pixels.shape[0] > 2 * 192 and pixels.shape[1] > 4 * 2 * 192
    for colour in COLOURS[:2]:  # the ball's and its core's
        assert (pixels == colour).all(-1).sum() > 50
    write_preview(make_plan(augmentation=augmentation), store, tmp_path / "again.png", num_workers=2, num_patches=6)
    assert np.array_equal(pixels, np.asarray(Image.open(tmp_path / "again.png")))


def test_without_cases_it_is_refused(make_plan: Callable[..., Plan], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no case is preprocessed"):
        write_preview(make_plan(), CaseStore(tmp_path), tmp_path / "preview.png", num_workers=1)


def test_names_tell_what_changed_each_sample() -> None:
    spatial = {"probability_rotation": 0.5, "probability_scaling": 0.0}
    pipeline = Pipeline([("spatial", spatial), ("gamma", {"probability": 0.5}), ("mirror", {})])
    parameters = pipeline.sample((12, 1, 8, 9, 10), torch.Generator().manual_seed(0))
    source = pipeline.source_shape(parameters, (8, 9, 10))
    images, classes = torch.randn(12, 1, *source), torch.zeros((12, *source), dtype=torch.int16)
    expected = pipeline.apply(images.clone(), classes.clone(), parameters, (8, 9, 10))
    *found, names = pipeline.apply_by_name(images.clone(), classes.clone(), parameters, (8, 9, 10))
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
    flags = {
        "spatial": parameters[0]["applied"],
        "gamma": parameters[1]["applied"],
        "mirror": parameters[0]["mirrored"].any(1),
    }
    assert names == [[name for name, flag in flags.items() if flag[sample]] for sample in range(12)]
    assert any(names) and not all(names[0] == other for other in names)
