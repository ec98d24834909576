"""One fold: everything is checked before anything long begins, then trained, predicted and scored."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from autoseg.data.dataset import Dataset, find_dataset, find_images
from autoseg.data.workspace import Workspace
from autoseg.documents import read_document, write_document
from autoseg.errors import AutosegError, DatasetError, DocumentError, PlanError, TrainingError, WorkspaceError
from autoseg.evaluate.evaluate import Metrics
from autoseg.launch.fold import (
    FoldRun,
    choose_device,
    open_fold,
    open_networks,
    read_metrics,
    train,
    trained_folds,
    validate,
)
from autoseg.plan.plan import Plan, read_plan
from autoseg.predict.model import Member, Model
from autoseg.predict.predictor import predict_cases
from autoseg.preprocess.store import preprocessing_digest
from autoseg.train.machine import Machine
from autoseg.train.state import training_digest

CPU = torch.device("cpu")


def _train(run: FoldRun, *, epochs: int | None = None) -> None:
    def stop(event: Any) -> None:
        if epochs is not None and not hasattr(event, "phase") and event.epoch == epochs:
            raise KeyboardInterrupt

    if epochs is None:
        train(run, Machine(CPU, 1), on_event=stop)
    else:
        with pytest.raises(KeyboardInterrupt):
            train(run, Machine(CPU, 1), on_event=stop)


def _rewrite(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def _refused(error: type[AutosegError], place: Workspace, dataset: Dataset, plan: str = "tiny", fold: int = 0) -> str:
    with pytest.raises(error) as caught:
        open_fold(place, dataset, plan, fold)
    assert "\n" not in str(caught.value)
    assert not (place.root / "results").exists()
    return str(caught.value)


@pytest.mark.parametrize("fold", [-1, 5, 1000])
def test_a_fold_out_of_range(place: Workspace, dataset: Dataset, fold: int) -> None:
    assert f"no fold {fold}; this dataset has the folds 0 to 4" in _refused(DatasetError, place, dataset, fold=fold)


def test_training_before_planning(place: Workspace, dataset: Dataset) -> None:
    shutil.rmtree(place.root / "plans")
    line = _refused(PlanError, place, dataset)
    assert "there are no plans yet" in line and "autoseg_plan" in line


def test_an_unknown_plan_names_the_nearest(place: Workspace, dataset: Dataset) -> None:
    assert "did you mean 'tiny'?" in _refused(PlanError, place, dataset, "tinny")


@pytest.mark.parametrize("name", ["fingerprint", "problems", "splits"])
def test_the_other_documents_are_no_plans(place: Workspace, dataset: Dataset, name: str) -> None:
    assert "no such plan; plans here: tiny" in _refused(PlanError, place, dataset, name)


def test_a_missing_splits_document(place: Workspace, dataset: Dataset) -> None:
    place.splits("Phantom").unlink()
    assert "splits.json: no such file" in _refused(DocumentError, place, dataset)


def test_preprocessing_unfinished(place: Workspace, dataset: Dataset) -> None:
    digest = preprocessing_digest(read_plan(place.plan("Phantom", "tiny")))
    (place.preprocessed("Phantom", digest) / "phantom_002.json").unlink()
    line = _refused(WorkspaceError, place, dataset)
    assert "1 of 6 cases are not preprocessed, e.g. phantom_002; run autoseg_plan -d Phantom" in line


def test_preprocessing_not_begun(place: Workspace, dataset: Dataset) -> None:
    shutil.rmtree(place.root / "preprocessed")
    assert "6 of 6 cases are not preprocessed" in _refused(WorkspaceError, place, dataset)


def test_a_raw_case_is_gone(place: Workspace, own_raw: Path) -> None:
    (own_raw / "imagesTr" / "phantom_003_0000.nii.gz").unlink()
    (own_raw / "labelsTr" / "phantom_003.nii.gz").unlink()
    line = _refused(WorkspaceError, place, find_dataset("Phantom", place))
    assert "['phantom_003'] of the fold are not there any more" in line and "autoseg_plan" in line


def test_a_case_on_both_sides(place: Workspace, dataset: Dataset) -> None:
    splits = json.loads(place.splits("Phantom").read_text())
    case = splits["folds"][0]["validation"][0]
    splits["folds"][0]["train"].append(case)
    place.splits("Phantom").write_text(json.dumps(splits))
    assert f"['{case}'] are on both sides" in _refused(WorkspaceError, place, dataset)


def test_a_plan_under_another_name(place: Workspace, dataset: Dataset) -> None:
    shutil.copy(place.plan("Phantom", "tiny"), place.plan("Phantom", "copy"))
    assert "calls itself 'tiny'" in _refused(PlanError, place, dataset, "copy")
    assert "calls itself 'tiny'" in _refused(PlanError, place, dataset, "../Phantom/tiny")


def test_a_plan_edited_by_hand_with_an_unknown_key(place: Workspace, dataset: Dataset) -> None:
    path = place.plan("Phantom", "tiny")
    content = json.loads(path.read_text())
    content["training"]["epoch"] = content["training"]["epochs"]
    path.write_text(json.dumps(content))
    line = _refused(DocumentError, place, dataset)
    assert "unknown field 'training.epoch' (did you mean 'epochs'?" in line and str(path) in line


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("labels", {"labels": {"background": 0, "liver": 1, "tumour": 3}}),
        ("channels", {"channel_names": {"0": "MRI"}}),
        ("regions", {"labels": {"background": 0, "all": [1, 2], "tumour": 2}, "regions_class_order": [1, 2]}),
    ],
)
def test_a_dataset_that_was_described_anew(place: Workspace, own_raw: Path, what: str, change: dict[str, Any]) -> None:
    _rewrite(own_raw / "dataset.json", **change)
    line = _refused(WorkspaceError, place, find_dataset("Phantom", place))
    assert "have changed since it was planned" in line and "autoseg_plan -d Phantom again" in line
    assert what in line or what == "regions"


def test_a_fold_is_trained_predicted_and_scored(place: Workspace, dataset: Dataset) -> None:
    run = open_fold(place, dataset, "tiny", 0)
    assert run.folder == place.root / "results" / "Phantom" / "tiny" / "fold_0"
    _train(run)
    told: list[str] = []
    metrics = validate(run, device=CPU, num_workers=1, on_case=lambda name, seconds: told.append(name))
    names = sorted(run.fold.validation)
    assert told == names == sorted(metrics.cases)
    assert read_document(run.metrics_path, Metrics) == metrics
    assert read_metrics(run.metrics_path).keys() == {"liver", "tumour"} | (metrics.mean.keys() - {"liver", "tumour"})
    assert metrics.about.lesions == ("tumour",)  # its name says so
    assert "lesion_f1_10" in metrics.mean["tumour"] and "lesion_f1_10" not in metrics.mean["liver"]
    timing = json.loads((run.folder / "validation" / "timing.json").read_text())["cases"]
    assert sorted(timing) == names and all(seconds > 0 for seconds in timing.values())
    assert {path.name for path in (run.folder / "validation").iterdir()} == {
        "metrics.json", "timing.json", *(f"{name}.nii.gz" for name in names)
    }  # fmt: skip
    assert not list(place.root.rglob(".partial*"))


def test_validation_takes_the_last_checkpoint(
    place: Workspace, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_fold(place, dataset, "tiny", 0)
    with pytest.raises(TrainingError, match="last.pt: no such checkpoint"):
        validate(run, device=CPU, num_workers=1)
    assert not (run.folder / "validation").exists()
    _train(run)
    (run.folder / "checkpoints" / "best.pt").unlink()
    validate(run, device=CPU, num_workers=1)


@pytest.fixture
def two_folds(place: Workspace, dataset: Dataset) -> Workspace:
    for fold in (0, 1):
        _train(open_fold(place, dataset, "tiny", fold))
    return place


def test_networks_of_several_folds_are_averaged(two_folds: Workspace, phantom_folder: Path, tmp_path: Path) -> None:
    """The segmentation of both folds is that of the mean of their logits, and neither's own everywhere."""
    plan, networks = open_networks(two_folds, "Phantom", "tiny", (), CPU)
    assert len(networks) == 2
    cases = find_images(phantom_folder / "imagesTs", plan.dataset.channels)[:1]
    mean = _Mean(networks)
    for name, chosen in {"both": networks, "mean": [mean], "first": networks[:1], "second": networks[1:]}.items():
        predict_cases(Model((Member(plan, tuple(chosen)),), CPU), cases, tmp_path / name)
    found = {
        path.parent.name: sitk.GetArrayFromImage(sitk.ReadImage(str(path))) for path in tmp_path.glob("*/*.nii.gz")
    }
    assert np.mean(found["both"] == found["mean"]) > 0.999
    assert not np.array_equal(found["both"], found["first"]) and not np.array_equal(found["both"], found["second"])


class _Mean(torch.nn.Module):
    def __init__(self, networks: list[torch.nn.Module]) -> None:
        super().__init__()
        self.networks = torch.nn.ModuleList(networks)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [torch.stack([network(images)[0] for network in self.networks]).mean(0)]


def test_folds_are_chosen(two_folds: Workspace) -> None:
    assert trained_folds(two_folds, "Phantom", "tiny") == [0, 1]
    first = open_networks(two_folds, "Phantom", "tiny", [1, 1], CPU)[1]
    second = open_networks(two_folds, "Phantom", "tiny", [0], CPU)[1]
    assert len(first) == len(second) == 1
    differ = [not torch.equal(a, b) for a, b in zip(first[0].parameters(), second[0].parameters())]
    assert any(differ)
    with pytest.raises(PlanError, match=r"-f 3: this fold of tiny is not trained; trained folds: \[0, 1\]"):
        open_networks(two_folds, "Phantom", "tiny", [0, 3], CPU)


def test_an_untrained_plan_names_those_that_are_trained(two_folds: Workspace) -> None:
    with pytest.raises(PlanError, match="-a unet: no trained fold.*trained plans: tiny; train it with autoseg_train"):
        open_networks(two_folds, "Phantom", "unet", (), CPU)


def test_other_folders_beside_the_folds_are_left_alone(two_folds: Workspace) -> None:
    folder = two_folds.fold("Phantom", "tiny", 0)
    for name in ("fold_0_old", "fold_all"):
        shutil.copytree(folder, folder.with_name(name))
    assert trained_folds(two_folds, "Phantom", "tiny") == [0, 1]


def test_a_fold_that_has_only_begun_is_not_averaged(place: Workspace, dataset: Dataset) -> None:
    for fold in (0, 1):
        _train(open_fold(place, dataset, "tiny", fold), epochs=1)
    with pytest.raises(
        PlanError, match=r"no fold is trained to its end \(fold 0: 1 of 2 epochs, fold 1: 1 of 2 epochs\)"
    ):
        open_networks(place, "Phantom", "tiny", (), CPU)
    assert len(open_networks(place, "Phantom", "tiny", [0, 1], CPU)[1]) == 2
    _train(open_fold(place, dataset, "tiny", 1))
    assert len(open_networks(place, "Phantom", "tiny", (), CPU)[1]) == 1


def test_folds_of_two_plans_are_not_averaged(two_folds: Workspace) -> None:
    path = two_folds.fold("Phantom", "tiny", 0) / "plan.json"
    plan = read_document(path, Plan)
    write_document(path, plan.model_copy(update={"training": plan.training.model_copy(update={"seed": 99})}))
    with pytest.raises(TrainingError, match="another plan"):
        open_networks(two_folds, "Phantom", "tiny", (), CPU)


def test_another_plan_of_the_same_name_is_not_mixed_in(place: Workspace, dataset: Dataset) -> None:
    run = open_fold(place, dataset, "tiny", 0)
    _train(run)
    changed = run.plan.model_copy(update={"training": run.plan.training.model_copy(update={"epochs": 3})})
    assert training_digest(changed) != training_digest(run.plan)
    with pytest.raises(TrainingError, match="another plan"):
        _train(replace(run, plan=changed))


@pytest.mark.parametrize("option", ["gpu7", "cuda:99", "meta", "xla"])
def test_a_device_that_is_not_there(option: str) -> None:
    with pytest.raises(PlanError, match=f"--device {option}: not on this machine, which has .*use auto") as caught:
        choose_device(option)
    assert "\n" not in str(caught.value)


def test_the_quickest_device_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_device("cpu") == CPU
    for cuda, mps, expected in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=cuda: there)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda there=mps: there)
        assert choose_device("auto").type == expected
