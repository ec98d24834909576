"""Exported models: the script alone gives the same segmentation; archives move and cannot do harm."""

import importlib.util
import json
import pickle
import shutil
import stat
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy import ndimage

from autoseg.data.dataset import find_dataset
from autoseg.data.volumes import Geometry, Volume, read_image, write_volume
from autoseg.data.workspace import Workspace, open_workspace
from autoseg.documents import read_document, write_document
from autoseg.errors import AutosegError, PlanError, WorkspaceError
from autoseg.launch import archive, export
from autoseg.launch.archive import install_model, pack_model
from autoseg.launch.export import Export, export_model
from autoseg.launch.inference import open_model
from autoseg.plan.plan import Normalization
from autoseg.predict.postprocess import Postprocessing, Step, postprocess
from autoseg.predict.predictor import predict_volume
from autoseg.preprocess.normalize import normalize
from autoseg.preprocess.resample import axis_matrix, coarse_axis, resample_image

CPU = torch.device("cpu")


@pytest.fixture
def place(trained: Path) -> Workspace:
    return open_workspace(trained)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The stand-alone script as a module."""
    pytest.importorskip("onnxruntime")
    path = Path(export.__file__).with_name("standalone.py")
    spec = importlib.util.spec_from_file_location("segment", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- the script's own numerics ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("old", "new"), [(20, 31), (33, 25), (7, 24), (1, 5), (2, 3), (150, 70), (9, 9)])
@pytest.mark.parametrize("order", [0, 1, 3])
def test_the_scripts_matrices_are_autosegs(script: ModuleType, old: int, new: int, order: int) -> None:
    np.testing.assert_allclose(script.axis_matrix(old, new, order), axis_matrix(old, new, order), atol=1e-6)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (5.0, 1.0, 1.2), (1.0, 4.0, 1.0)])
def test_the_script_resamples_alike(script: ModuleType, rng: np.random.Generator, spacing) -> None:
    image = ndimage.gaussian_filter(rng.standard_normal((2, 9, 14, 12)), (0, 1, 1, 1)).astype(np.float32) * 50
    target, settings = (1.3, 0.9, 1.0), {"separate_axis_threshold": 3.0, "image_order": 3}
    shape = [max(1, round(o / n * s)) for o, n, s in zip(spacing, target, image.shape[1:])]
    expected = resample_image(image, shape, order=3, separate_axis=coarse_axis(spacing, target, 3.0))
    np.testing.assert_allclose(script.resample_image(image, spacing, target, settings), expected, atol=1e-3)


@pytest.mark.parametrize("scheme", ["ct", "zscore", "rescale", "rgb", "none"])
@pytest.mark.parametrize("use_mask", [False, True])
def test_the_script_normalises_alike(script: ModuleType, rng: np.random.Generator, scheme: str, use_mask: bool) -> None:
    body = ndimage.gaussian_filter(rng.standard_normal((1, 12, 13, 14)), 1) > 0
    image = np.where(body, 100 * rng.random(body.shape), 0).astype(np.float32)
    numbers: dict[str, Any] = dict.fromkeys(("lower", "upper", "mean", "std"))
    if scheme == "ct":
        numbers = {"lower": 5.0, "upper": 80.0, "mean": 40.0, "std": 20.0}
    settings = {"scheme": scheme, "use_mask": use_mask, **numbers}
    expected = image.copy()
    mask = ndimage.binary_fill_holes((image != 0).any(axis=0))
    normalize(expected, [Normalization.model_validate(settings)], mask if use_mask else None)
    np.testing.assert_allclose(script.normalize(image.copy(), [settings]), expected, atol=1e-4)


@pytest.mark.parametrize("action", ["keep_largest", "remove_small", "fill_holes"])
def test_the_script_postprocesses_alike(script: ModuleType, place: Workspace, rng, action: str) -> None:
    labels = find_dataset("Phantom", place).labels
    values = np.digitize(ndimage.gaussian_filter(rng.standard_normal((12, 14, 13)), 1), [0.05, 0.35]).astype(np.uint8)
    if action == "fill_holes":
        values = rng.choice([0, 1, 2], values.shape, p=[0.1, 0.85, 0.05]).astype(np.uint8)
    volume = 0.05 if action == "remove_small" else None
    step = Step(region="liver", action=action, volume_ml=volume, dice_before=0.0, dice_after=0.0)
    expected = postprocess(values, (step,), labels, (2.0, 1.0, 1.0))
    assert (expected != values).any()
    image = sitk.GetImageFromArray(values.astype(np.int16))
    image.SetSpacing((1.0, 1.0, 2.0))
    regions = {name: region.model_dump(mode="json") for name, region in labels.regions.items()}
    found = script.postprocess(image, step.model_dump(mode="json"), regions)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found), expected)


# --- the folder ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxscript")
    folder, place = tmp_path_factory.mktemp("exported") / "model", open_workspace(trained)
    export_model(place, "Phantom", "good", folder, folds=[1], cases=find_dataset("Phantom", place).cases)
    return folder


def test_the_folder_is_whole_and_checked(exported: Path) -> None:
    expected = {"fold_1.onnx", "fold_1.pt2", "plan.json", "export.json", "segment.py", "README.md"}
    assert {path.name for path in exported.iterdir()} == expected
    document = read_document(exported / "export.json", Export)
    assert document.check.case and document.check.num_tiles == 4 and document.folds == (1,)
    assert max(document.check.onnx_difference, document.check.torch_difference) < 1e-3
    card = (exported / "README.md").read_text()
    for word in ("liver", "tumour", "## Scores", "## Limits", "segment.py", document.check.case):
        assert word in card
    assert not list(exported.parent.glob(".partial*"))


@pytest.mark.parametrize("direction", [
    (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0), (0.0, 0.0, -1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
])  # fmt: skip
def test_the_script_segments_like_autoseg(
    script: ModuleType, exported: Path, place: Workspace, tmp_path: Path, direction: tuple[float, ...]
) -> None:
    source = read_image([next(iter((place.raw).glob("*/imagesTs/*")))])
    array = np.pad(source.array, [(0, 0), (2, 1), (0, 3), (0, 0)])
    spacing = source.geometry.spacing
    geometry = Geometry(shape=array.shape[1:], spacing=spacing, origin=(3.0, -4.0, 5.5), direction=direction)
    write_volume(tmp_path / "image.nii.gz", array[0], geometry)
    model = open_model(place, "Phantom", ["good"], [1], CPU)[0]
    expected = predict_volume(model, Volume(array, geometry))
    found = script.segment([str(tmp_path / "image.nii.gz")], exported)
    same = sitk.GetArrayFromImage(found) == expected
    assert same.mean() > 0.9999 and found.GetDirection() == direction
    with pytest.raises(SystemExit, match="2 images given, 1 needed: CT"):
        script.segment(["a", "b"], exported)


def test_an_existing_folder_and_a_missing_extra_are_refused(place: Workspace, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(WorkspaceError, match="exists already"):
        export_model(place, "Phantom", "good", tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(PlanError, match=r"pip install 'autoseg\[export\]'"):
        export_model(place, "Phantom", "good", tmp_path / "new")
    assert not (tmp_path / "new").exists()


# --- archives --------------------------------------------------------------------------------------------------------


@pytest.fixture
def packed(place: Workspace, tmp_path: Path) -> Path:
    pack_model(place, "Phantom", "good", tmp_path / "good.zip")
    return tmp_path / "good.zip"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Workspace:
    (tmp_path / "elsewhere").mkdir()
    return open_workspace(tmp_path / "elsewhere")


def rewritten(packed: Path, change) -> Path:
    """Return a copy of the archive whose files went through ``change(name, content)``."""
    target = packed.with_name("changed.zip")
    with zipfile.ZipFile(packed) as source, zipfile.ZipFile(target, "w") as sink:
        for name in source.namelist():
            if (content := change(name, source.read(name))) is not None:
                sink.writestr(name, content)
    return target


def test_an_installed_model_segments_the_same(place: Workspace, packed: Path, elsewhere: Workspace) -> None:
    folder = install_model(elsewhere, packed)
    assert folder == elsewhere.fold("Phantom", "good", 0).parent
    image = read_image([next(iter(place.raw.glob("*/imagesTs/*")))])
    here, there = (predict_volume(open_model(p, "Phantom", ["good"], [], CPU)[0], image) for p in (place, elsewhere))
    np.testing.assert_array_equal(here, there)
    assert (folder / "fold_1" / "validation" / "metrics.json").is_file()
    with pytest.raises(WorkspaceError, match="is there already"):
        install_model(elsewhere, packed)
    assert not [path for path in elsewhere.root.iterdir() if path.name.startswith(".partial")]


def test_postprocessing_travels_along(trained: Path, tmp_path: Path, elsewhere: Workspace) -> None:
    shutil.copytree(trained, tmp_path / "own", symlinks=True)
    own = open_workspace(tmp_path / "own")
    learnt = Postprocessing(num_cases=2, steps=())
    write_document(own.fold("Phantom", "good", 0).parent / "postprocessing.json", learnt)
    pack_model(own, "Phantom", "good", tmp_path / "own.zip", folds=[1])
    folder = install_model(elsewhere, tmp_path / "own.zip")
    assert read_document(folder / "postprocessing.json", Postprocessing) == learnt
    assert [path.name for path in folder.glob("fold_*")] == ["fold_1"]


class Harm:
    """Pickles as a call that makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def refused(elsewhere: Workspace, path: Path, match: str) -> None:
    with pytest.raises(AutosegError, match=match) as error:
        install_model(elsewhere, path)
    assert "\n" not in str(error.value)
    assert list(elsewhere.root.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["../harm.txt", "/harm.txt", "fold_0/../../harm.txt", "fold_0\\..\\harm.txt", "notes.txt"]
)
def test_files_outside_the_model_are_not_unpacked(packed: Path, elsewhere: Workspace, name: str) -> None:
    with zipfile.ZipFile(packed, "a") as file:
        file.writestr(name, "harm")
    refused(elsewhere, packed, "holds .*harm.txt|holds .*notes.txt")
    assert not list(elsewhere.root.parent.rglob("harm.txt"))


def test_links_and_doubles_and_bombs_are_refused(packed: Path, elsewhere: Workspace, monkeypatch) -> None:
    link = zipfile.ZipInfo("fold_7/plan.json")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    changed = packed.with_name("link.zip")
    shutil.copy(packed, changed)
    with zipfile.ZipFile(changed, "a") as file:
        file.writestr(link, "/etc/passwd")
    refused(elsewhere, changed, "is a link")
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(packed, "a") as file:
        file.writestr("fold_0/plan.json", "{}")
    refused(elsewhere, packed, "a file twice")
    monkeypatch.setattr(archive, "LARGEST_BYTES", 1000)
    refused(elsewhere, rewritten(packed, lambda n, c: c if "fold_1" in n else None), "more than")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_pickled_code_is_not_run(packed: Path, elsewhere: Workspace) -> None:
    harm = elsewhere.root.parent / "harm.txt"
    evil = rewritten(packed, lambda n, c: pickle.dumps(Harm(harm)) if n.endswith("last.pt") else c)
    refused(elsewhere, evil, "changed.zip: fold_0/checkpoints/last.pt: the checkpoint cannot be read")
    import io

    buffer = io.BytesIO()
    torch.save({"schema": "autoseg.checkpoint.1", "network": Harm(harm)}, buffer)
    evil = rewritten(packed, lambda n, c: buffer.getvalue() if n.endswith("last.pt") else c)
    refused(elsewhere, evil, "cannot be read")
    assert not harm.exists()


def test_modules_outside_autoseg_are_not_imported(packed: Path, elsewhere: Workspace) -> None:
    def change(name: str, content: bytes) -> bytes:
        if not name.endswith("plan.json"):
            return content
        plan = json.loads(content)
        plan["network"]["architecture"] = "this.antigravity"
        return json.dumps(plan).encode()

    refused(elsewhere, rewritten(packed, change), "names the module 'this.antigravity' outside autoseg")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda n, c: None if n.endswith("last.pt") else c, "holds no network"),
        (lambda n, c: None if n == "fold_1/checkpoints/last.pt" else c, "fold_1: has no checkpoints/last.pt"),
        (lambda n, c: b"{" if n.endswith("plan.json") else c, "is no plan"),
        (lambda n, c: c[:-100] if n.endswith("last.pt") else c, "cannot be read"),
        (lambda n, c: c.replace(b'"seed": 1', b'"seed": 2') if n.endswith("plan.json") else c, "another plan"),
        (lambda n, c: b"[]" if n.endswith("metrics.json") else c, "metrics.json"),
    ],
)
def test_what_is_not_whole_is_refused(packed: Path, elsewhere: Workspace, change, match: str) -> None:
    refused(elsewhere, rewritten(packed, change), match)


def test_no_zip_at_all(elsewhere: Workspace, tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("no zip")
    refused(elsewhere, tmp_path / "text.zip", "cannot be read as a zip file")
    refused(elsewhere, tmp_path / "none.zip", "no such file")


def test_untrained_plans_and_existing_files_are_refused(place: Workspace, packed: Path, tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="exists already"):
        pack_model(place, "Phantom", "good", packed)
    with pytest.raises(PlanError, match="-a none: no trained fold"):
        pack_model(place, "Phantom", "none", tmp_path / "none.zip")
    with pytest.raises(PlanError, match="-f 9: this fold of good is not trained"):
        pack_model(place, "Phantom", "good", tmp_path / "none.zip", folds=[9])
    assert not (tmp_path / "none.zip").exists()
