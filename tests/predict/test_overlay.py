"""Pictures: the outlines lie where the segmentation does, in a file that opens."""

from pathlib import Path

import numpy as np
from PIL import Image

from autoseg.data.cases import Case
from autoseg.data.labels import Labels
from autoseg.data.volumes import Geometry, write_volume
from autoseg.predict.overlay import COLOURS, draw_overlays, outlines

LABELS = Labels.from_names({"background": 0, "liver": 3, "spleen": 7})


def test_outlines_are_the_inner_edge_of_each_label() -> None:
    values = np.zeros((6, 7), dtype=np.uint8)
    values[1:5, 1:5] = 3
    values[1:5, 5:] = 7
    expected = values != 0
    expected[2:4, 2:4] = False
    np.testing.assert_array_equal(outlines(values), expected)


def test_pictures_show_the_labels_in_their_place(tmp_path: Path) -> None:
    """A file with x towards the patient's right: on the picture the left is on the right."""
    direction = (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    geometry = Geometry(shape=(5, 20, 40), spacing=(3.0, 2.0, 1.0), origin=(0.0, 0.0, 0.0), direction=direction)
    rng = np.random.default_rng(0)
    values = np.zeros(geometry.shape, dtype=np.uint8)
    values[1:4, 5:15, :10] = 3
    write_volume(tmp_path / "case_0000.nii.gz", rng.random(geometry.shape).astype(np.float32), geometry)
    write_volume(tmp_path / "case.nii.gz", values, geometry)
    case = Case("case", (tmp_path / "case_0000.nii.gz",), None)
    png, gif = draw_overlays(case, tmp_path / "case.nii.gz", LABELS)
    assert (png.name, gif.name) == ("case.png", "case.gif")
    with Image.open(png) as picture:
        assert picture.size == (3 * 512, 512)  # three slices; 40 x 40 mm each
        pixels = np.array(picture)[:, :512]
    found = np.argwhere((pixels == COLOURS[0]).all(axis=2))
    assert found[:, 0].min() == 128 and found[:, 0].max() == 383  # rows 5 to 15 of 20
    assert found[:, 1].min() == 384 and found[:, 1].max() == 511  # x 0 to 10 of 40, mirrored
    with Image.open(gif) as moving:
        assert moving.n_frames == 5 and moving.info["loop"] == 0


def test_an_empty_segmentation_and_a_constant_image_can_be_drawn(tmp_path: Path) -> None:
    geometry = Geometry(shape=(1, 4, 4), spacing=(1.0,) * 3, origin=(0.0,) * 3,
                        direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))  # fmt: skip
    write_volume(tmp_path / "a_0000.nii.gz", np.zeros((1, 4, 4), np.float32), geometry)
    write_volume(tmp_path / "a.nii.gz", np.zeros((1, 4, 4), np.uint8), geometry)
    png, _ = draw_overlays(Case("a", (tmp_path / "a_0000.nii.gz",), None), tmp_path / "a.nii.gz", LABELS)
    assert png.is_file() and not list(tmp_path.glob(".partial*"))
