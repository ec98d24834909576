"""Pictures of cases: the right cases, the right pixels, within the budget, and reasons where there are none."""

import base64
import io
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest

from autoseg.compare import gallery as module
from autoseg.compare.background import describe_data, gather_background
from autoseg.compare.gallery import Gallery, choose_cases, encode_png, make_gallery, number_labels, to_grey
from autoseg.compare.runs import Run, Runs, Values
from autoseg.compare.scores import gather_scores
from autoseg.data.dataset import find_dataset
from autoseg.data.volumes import read_image, read_label, to_canonical
from autoseg.data.workspace import Workspace
from autoseg.fingerprint.extract import extract_fingerprint


def _decode(url: str) -> np.ndarray:
    kind, content = url.split(",")
    assert kind == "data:image/png;base64"
    return np.asarray(imageio.imread(io.BytesIO(base64.b64decode(content))))


@pytest.fixture
def runs(phantom_folder: Path, tmp_path: Path) -> Runs:
    """Two plans that were scored on the phantom; the segmentations are the references, those of ``b`` shifted."""
    labels = sorted((phantom_folder / "labelsTr").iterdir())
    cases: dict[str, Values] = {p.name.split(".")[0]: {"liver": {"dice": 0.5 + k / 20}} for k, p in enumerate(labels)}
    for plan in ("a", "b"):
        (tmp_path / plan).mkdir()
        for path in labels:
            (tmp_path / plan / path.name).symlink_to(path)
    return Runs("Phantom", tuple(Run(p, 0, "finished", "", cases=cases, predictions=tmp_path / p) for p in ("a", "b")))


@pytest.fixture
def made(runs: Runs, workspace: Path) -> Gallery:
    """The gallery of these runs."""
    return make_gallery(runs, gather_scores(runs), find_dataset("Phantom", Workspace(workspace)))


@pytest.mark.parametrize("smooth", [False, True])
def test_pngs_are_read_back_as_they_were(rng: np.random.Generator, smooth: bool) -> None:
    pixels = rng.integers(0, 256, (37, 23)).astype(np.uint8)
    assert np.array_equal(imageio.imread(io.BytesIO(encode_png(pixels, smooth=smooth))), pixels)


def test_the_worst_the_median_and_the_best_case_are_shown(runs: Runs) -> None:
    table = gather_scores(runs)
    names = list(table.cases)
    assert choose_cases(table, names) == {
        names[0]: "worst", names[1]: "second worst", names[3]: "median", names[5]: "best",
    }  # fmt: skip
    assert choose_cases(table, names[2:3]) == {names[2]: "worst"} and choose_cases(table, ["other"]) == {}


def test_pictures_hold_the_pixels_of_the_files(made: Gallery, phantom_folder: Path) -> None:
    assert [case.kind for case in made.cases] == ["worst", "second worst", "median", "best"] and made.problems == ()
    case = made.cases[0]
    image = to_canonical(read_image([next((phantom_folder / "imagesTr").glob(f"{case.name}_0000*"))])).array[0]
    label = to_canonical(read_label(next((phantom_folder / "labelsTr").glob(f"{case.name}.*")))).array[0]
    width, height = case.size
    shape = (len(case.slices), height, width)
    grey, drawn = _decode(case.image).reshape(shape), _decode(case.labels["a"]).reshape(shape)
    places = [number - 1 for number in case.slices]
    shown = label[places]
    assert drawn.sum() == label.sum() and sorted(case.labels) == ["a", "b", "reference"]  # nothing is cut off
    assert case.start == int(np.argmax((shown > 0).sum(axis=(1, 2))))
    z, y, x = (int(v[0]) for v in np.nonzero(drawn))
    full = np.argwhere(shown[z] == drawn[z, y, x])
    offset = full[0] - np.argwhere(drawn[z] == drawn[z, y, x])[0]
    crop = image[places][:, offset[0] : offset[0] + height, offset[1] : offset[1] + width]
    assert np.corrcoef(crop.ravel(), grey.ravel().astype(float))[0, 1] > 0.9
    assert case.dice == {"a": 0.5, "b": 0.5} and case.aspect == pytest.approx(1.0, abs=0.3)


def test_many_large_cases_stay_within_the_budget(
    made: Gallery, runs: Runs, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = sum(case.num_characters for case in made.cases)
    monkeypatch.setattr(module, "BUDGET", used // 3)
    monkeypatch.setattr(module, "SIZES", ((256, 48), (24, 12), (16, 6)))
    smaller = make_gallery(runs, gather_scores(runs), find_dataset("Phantom", Workspace(workspace)))
    assert sum(case.num_characters for case in smaller.cases) <= used // 3
    assert all(max(case.size) <= 24 and len(case.slices) <= 12 for case in smaller.cases)
    for case in smaller.cases:
        assert _decode(case.image).shape == (len(case.slices) * case.size[1], case.size[0])
        assert _decode(case.labels["reference"]).shape == _decode(case.image).shape


def test_greys_and_labels_are_bytes() -> None:
    grey = to_grey(np.linspace(-1000, 1000, 4000).reshape(10, 20, 20))
    assert grey.min() == 0 and grey.max() == 255 and len(np.unique(grey)) == 64
    assert to_grey(np.zeros((2, 3, 3))).tolist() == np.zeros((2, 3, 3)).tolist()
    assert number_labels(np.array([0, 1, 255, 256, 700.0])).tolist() == [0, 1, 255, 1, 190]


def test_a_file_that_cannot_be_read_is_a_problem_of_its_case(runs: Runs, workspace: Path) -> None:
    path = next(p for p in runs.runs[0].predictions.iterdir() if p.name.startswith(list(runs.runs[0].cases)[0]))  # type: ignore[union-attr]
    path.unlink()
    path.write_bytes(b"nothing")
    found = make_gallery(runs, gather_scores(runs), find_dataset("Phantom", Workspace(workspace)))
    assert (
        len(found.cases) == 3 and len(found.problems) == 1 and found.problems[0].startswith(list(runs.runs[0].cases)[0])
    )


def test_without_images_the_reason_is_told(runs: Runs, workspace: Path, tmp_path: Path) -> None:
    table = gather_scores(runs)
    assert "not asked for" in gather_background(runs, table, Workspace(workspace), images=False).without_gallery
    (tmp_path / "empty").mkdir()
    nothing = gather_background(runs, table, Workspace(tmp_path / "empty"))
    assert nothing.gallery is None and "the images were not found" in nothing.without_gallery
    bare = Runs("Phantom", tuple(Run(r.plan, 0, "finished", "", cases=r.cases) for r in runs.runs))
    assert "no segmentations" in gather_background(bare, table, Workspace(workspace)).without_gallery
    full = gather_background(runs, table, Workspace(workspace))
    assert full.gallery is not None and full.fingerprint is None and full.without_gallery == ""


def test_the_data_is_described_by_its_fingerprint(workspace: Path) -> None:
    rows = dict(describe_data(extract_fingerprint(find_dataset("Phantom", Workspace(workspace)), num_workers=1)))
    assert rows["Cases"] == "6" and rows["Channels"] == "CT" and "Volume of liver, ml" in rows
    assert rows["Shape, voxels"].count("×") == 4 and " to " in rows["Spacing, mm"]
