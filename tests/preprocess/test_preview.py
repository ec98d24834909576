"""The contact sheet of preprocessing."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autoseg.data.dataset import Case
from autoseg.data.labels import Labels
from autoseg.errors import WorkspaceError
from autoseg.plan.plan import Plan
from autoseg.preprocess.case import preprocess_case
from autoseg.preprocess.preview import COLOURS, GAP, LINE, NUM_CASES, write_sheet
from autoseg.preprocess.store import CaseStore

LABELS = Labels.from_names({"background": 0, "liver": 1})
RAS = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)
TOP = 3 * LINE
"""Where the planes of the first case begin."""


@pytest.fixture
def cases(write_case: Callable[..., Case]) -> list[Case]:
    """A bright square in the corner of the image nearest to the patient's right, front and feet; stored two ways."""
    image, label = np.ones((1, 20, 20, 20), np.float32), np.zeros((20, 20, 20), np.uint8)
    image[0, 2:8, 2:8, 2:8], label[2:8, 2:8, 2:8] = 9, 1
    turned = image[:, :, ::-1, ::-1], label[:, ::-1, ::-1]
    return [write_case("lps", image, label), write_case("ras", *turned, direction=RAS)]


@pytest.fixture
def store(cases: list[Case], build_plan: Callable[..., Plan], tmp_path: Path) -> CaseStore:
    found = CaseStore(tmp_path / "store", LABELS)
    for case in cases:
        found.save(preprocess_case(case, build_plan(LABELS)))
    return found


def _axial(path: Path, top: int, *, after: bool) -> np.ndarray:
    """Return the axial plane of the case whose planes begin at ``top``."""
    pixels = np.asarray(Image.open(path))
    width = (pixels.shape[1] - 3 * GAP) // 2
    left = GAP + after * (width + GAP)
    edge = (width - 4) // 3
    return pixels[top : top + edge, left : left + edge]


def _is_outlined(plane: np.ndarray) -> tuple[bool, ...]:
    """Whether the outline's colour occurs in each quarter, by rows."""
    half = len(plane) // 2
    found = (plane == COLOURS[0]).all(axis=-1)
    return tuple(bool(part.any()) for rows in (found[:half], found[half:]) for part in (rows[:, :half], rows[:, half:]))


def test_files_are_shown_as_stored_and_cases_in_one_orientation(
    cases: list[Case], store: CaseStore, build_plan: Callable[..., Plan], tmp_path: Path
) -> None:
    path = tmp_path / "sheet.png"
    write_sheet(cases, build_plan(LABELS), store, path)
    second = Image.open(path).height // 2 + TOP
    assert _is_outlined(_axial(path, TOP, after=False)) == (True, False, False, False)
    assert _is_outlined(_axial(path, second, after=False)) == (
        False,
        True,
        False,
        False,
    )  # right is right
    for top in (TOP, second):
        assert _is_outlined(_axial(path, top, after=True)) == (True, False, False, False)


def test_the_outline_is_where_the_image_is_bright(
    cases: list[Case], store: CaseStore, build_plan: Callable[..., Plan], tmp_path: Path
) -> None:
    path = tmp_path / "sheet.png"
    write_sheet(cases[:1], build_plan(LABELS), store, path)
    plane = _axial(path, TOP, after=True).astype(int)
    rows, columns = np.nonzero((plane == COLOURS[0]).all(axis=-1))
    inside = plane[rows.min() + 9 : rows.max() - 9, columns.min() + 9 : columns.max() - 9]
    assert inside.min() > 200 and plane[rows.max() + 12 :, columns.max() + 12 :].max(axis=2).mean() < 60


def test_one_case_of_each_orientation_is_shown_first(
    cases: list[Case], store: CaseStore, build_plan: Callable[..., Plan], tmp_path: Path
) -> None:
    heights = []
    for count in (1, 2, NUM_CASES):
        write_sheet([cases[0]] * 30 + [cases[1]], build_plan(LABELS), store, tmp_path / "s.png", num_cases=count)
        heights.append(Image.open(tmp_path / "s.png").height)
    assert heights[1] == 2 * heights[0] and heights[2] == NUM_CASES * heights[0]


def test_a_transposed_case_is_shown_as_it_lies(
    cases: list[Case], build_plan: Callable[..., Plan], tmp_path: Path
) -> None:
    plan, store = build_plan(LABELS, transpose=(2, 0, 1)), CaseStore(tmp_path / "turned", LABELS)
    store.save(preprocess_case(cases[0], plan))
    write_sheet(cases[:1], plan, store, tmp_path / "sheet.png")
    planes = [_axial(tmp_path / "sheet.png", TOP, after=after) for after in (False, True)]
    assert _is_outlined(planes[0]) == _is_outlined(planes[1]) == (True, False, False, False)


def test_nothing_preprocessed_is_said(cases: list[Case], build_plan: Callable[..., Plan], tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="run autoseg_plan"):
        write_sheet(cases, build_plan(LABELS), CaseStore(tmp_path / "none"), tmp_path / "sheet.png")
