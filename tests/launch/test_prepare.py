"""Preparing: what a request may say, what is skipped and why, and that nothing changes under results."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from autoseg.data.dataset import Dataset, find_dataset
from autoseg.data.phantom import make_phantom_dataset
from autoseg.data.splits import Splits, make_splits
from autoseg.data.workspace import Workspace, plan_names
from autoseg.documents import read_document
from autoseg.errors import AutosegError, DatasetError, DocumentError, PlanError, WorkspaceError
from autoseg.fingerprint.fingerprint import read_fingerprint
from autoseg.launch import prepare
from autoseg.launch.measuring import choose_splits, describe_folds, measure
from autoseg.launch.prepare import PlanRequest, check_request, distinct_preprocessing, make_plans, preprocess
from autoseg.plan.plan import read_plan
from autoseg.preprocess.store import CaseStore

SHORTER = ("training.epochs=1",)


def _request(*architectures: str, **fields: Any) -> PlanRequest:
    return PlanRequest(architectures=architectures, **fields)


def _pretend_trained(place: Workspace, plan: str = "tiny", fold: int = 0) -> Path:
    """Make what a training of the present plan leaves behind, as far as planning looks at it."""
    folder = place.fold("Phantom", plan, fold)
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.pt").write_bytes(b"")
    shutil.copy(place.plan("Phantom", plan), folder / "plan.json")
    return folder


def _add_case(raw: Path, name: str = "phantom_900") -> None:
    shutil.copy(raw / "imagesTr" / "phantom_001_0000.nii.gz", raw / "imagesTr" / f"{name}_0000.nii.gz")
    shutil.copy(raw / "labelsTr" / "phantom_001.nii.gz", raw / "labelsTr" / f"{name}.nii.gz")


@pytest.mark.parametrize(
    ("request_", "word"),
    [
        (_request("unet", assignments=SHORTER), "--name"),
        (_request(base="unet", name="new"), "--set"),
        (_request("unet", base="unet", assignments=SHORTER, name="new"), "leave -a out"),
        (_request(base="unet", assignments=SHORTER, name="new", downsample=2.0), "leave --downsample out"),
        (_request("unet", assignments=SHORTER, name="nnunet"), "--name nnunet"),
        (_request("unet", assignments=SHORTER, name="unet"), "--name unet"),
        (_request("unet", name="nnunet"), "--name nnunet"),
        (_request(base="tiny", assignments=SHORTER, name="unetr"), "--name unetr"),
    ],
)
def test_requests_that_contradict_themselves(request_: PlanRequest, word: str) -> None:
    with pytest.raises(PlanError) as caught:
        check_request(request_)
    assert word in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "request_",
    [
        _request("unet"),
        _request("unet", name="unet"),
        _request("unet", name="large", memory_gb=24.0),
        _request("unet", assignments=SHORTER, name="short"),
        _request("unet", "nnunet", assignments=SHORTER, name="short"),
        _request(base="unet", assignments=SHORTER, name="short"),
    ],
)
def test_requests_that_are_clear(request_: PlanRequest) -> None:
    check_request(request_)


def test_names_of_plans(place: Workspace) -> None:
    fingerprint = read_fingerprint(place.fingerprint("Phantom"))
    requests = {
        ("unet",): _request("unet"),
        ("small",): _request("unet", name="small", memory_gb=2.0),
        ("short",): _request("unet", assignments=SHORTER, name="short"),
        ("unet_both", "attention_unet_both"): _request("unet", "attention_unet", assignments=SHORTER, name="both"),
        ("shorter",): _request(base="tiny", assignments=SHORTER, name="shorter"),
    }
    for names, request in requests.items():
        plans, refused = make_plans(fingerprint, place, request)
        assert tuple(plan.name for plan in plans) == names and refused == {}
        for plan in plans:
            assert read_plan(place.plan("Phantom", plan.name)) == plan
    assert read_plan(place.plan("Phantom", "shorter")).training.epochs == 1
    assert plan_names(place.plans("Phantom")) == sorted(["tiny", *(name for names in requests for name in names)])


@pytest.mark.parametrize(
    ("request_", "error", "words"),
    [
        (_request(base="tinny", assignments=SHORTER, name="new"), PlanError, "did you mean 'tiny'"),
        (_request(base="tiny", assignments=SHORTER, name="tiny"), PlanError, "base plan's own name"),
        (_request(base="tiny", assignments=("training.epoch=1",), name="new"), DocumentError, "did you mean 'epochs'"),
        (_request(base="tiny", assignments=("training.epochs=many",), name="new"), DocumentError, "training.epochs"),
        (_request(base="tiny", assignments=("training.epochs",), name="new"), DocumentError, "KEY=VALUE"),
        (_request(base="tiny", assignments=SHORTER, name="a/b"), DocumentError, "name"),
        (_request(base="tiny", assignments=SHORTER, name="splits"), DocumentError, "reserved"),
        (_request("unet", "atention_unet"), PlanError, "did you mean 'attention_unet'"),
    ],
)  # fmt: skip
def test_mistakes_write_nothing(place: Workspace, request_: PlanRequest, error: type[AutosegError], words: str) -> None:
    before = sorted(place.root.rglob("*"))
    with pytest.raises(error) as caught:
        make_plans(read_fingerprint(place.fingerprint("Phantom")), place, request_)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert sorted(place.root.rglob("*")) == before


def test_an_architecture_that_does_not_suit_is_skipped_with_its_reason(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    fingerprint, make_plan = read_fingerprint(place.fingerprint("Phantom")), prepare.make_plan

    def refuse(architecture: str, *arguments: Any, **options: Any) -> Any:
        if architecture in unsuited:
            raise PlanError(f"{architecture} needs more memory")
        return make_plan(architecture, *arguments, **options)

    monkeypatch.setattr(prepare, "make_plan", refuse)
    unsuited = {"unetr"}
    for order in (("unet", "unetr"), ("unetr", "unet")):
        plans, refused = make_plans(fingerprint, place, _request(*order))
        assert [plan.name for plan in plans] == ["unet"]
        assert refused == {"unetr": "unetr needs more memory"}
    assert not place.plan("Phantom", "unetr").exists()
    with pytest.raises(PlanError, match="unetr needs more memory"):
        make_plans(fingerprint, place, _request("unetr"))
    unsuited = {"unet", "unetr"}
    with pytest.raises(PlanError, match="needs more memory"):
        make_plans(fingerprint, place, _request("unet", "unetr"))


def test_planning_again_gives_the_same_documents(place: Workspace, dataset: Dataset, tiny: tuple[str, ...]) -> None:
    before = {path.name: path.read_text() for path in place.plans("Phantom").glob("*.json")}
    _pretend_trained(place)
    fingerprint, _ = measure(dataset, place, num_workers=2)
    make_plans(fingerprint, place, _request("unet", assignments=tiny, name="tiny"))
    assert {path.name: path.read_text() for path in place.plans("Phantom").glob("*.json")} == before


def test_a_mistake_in_the_dataset_writes_only_what_is_wrong(
    workspace: Path, tmp_path: Path, phantom_folder: Path
) -> None:
    (workspace / "raw").unlink()
    raw = workspace / "raw" / "Dataset900_Phantom"
    shutil.copytree(phantom_folder, raw)
    for name in ("phantom_002", "phantom_004"):
        (raw / "imagesTr" / f"{name}_0000.nii.gz").write_bytes(b"nonsense")
    place = Workspace(workspace)
    with pytest.raises(DatasetError) as caught:
        measure(find_dataset("Phantom", place), place, num_workers=1)
    assert "phantom_002" in str(caught.value) and "phantom_004" in str(caught.value)
    assert [path.name for path in place.plans("Phantom").glob("*.json")] == ["problems.json"]


def test_new_cases_get_new_folds_while_nothing_is_trained(place: Workspace, own_raw: Path) -> None:
    _add_case(own_raw)
    dataset = find_dataset("Phantom", place)
    measure(dataset, place, num_workers=1)
    splits = read_document(place.splits("Phantom"), Splits)
    assert splits == make_splits(dataset)
    assert any("phantom_900" in fold.train for fold in splits.folds)


@pytest.mark.parametrize("change", ["new", "gone"])
def test_folds_do_not_change_under_results(place: Workspace, own_raw: Path, change: str) -> None:
    """A case that was trained on could else become a validation case of the same network."""
    if change == "new":
        _add_case(own_raw)
    else:
        (own_raw / "imagesTr" / "phantom_003_0000.nii.gz").unlink()
        (own_raw / "labelsTr" / "phantom_003.nii.gz").unlink()
    before = {path: path.read_bytes() for path in place.plans("Phantom").glob("*.json")}
    _pretend_trained(place, fold=1)
    with pytest.raises(WorkspaceError) as caught:
        measure(find_dataset("Phantom", place), place, num_workers=1)
    counts = "1 case is new, 0 gone" if change == "new" else "0 cases are new, 1 gone"
    assert counts in str(caught.value) and "fold_1" in str(caught.value) and "-w" in str(caught.value)
    assert {path: path.read_bytes() for path in place.plans("Phantom").glob("*.json")} == before
    shutil.rmtree(place.root / "results")
    measure(find_dataset("Phantom", place), place, num_workers=1)


def _swap_folds(place: Workspace) -> dict[str, Any]:
    """Edit splits.json by hand: the folds in another order."""
    splits: dict[str, Any] = json.loads(place.splits("Phantom").read_text())
    splits["folds"].reverse()
    place.splits("Phantom").write_text(json.dumps(splits))
    return splits


@pytest.mark.parametrize("trained", [False, True])
def test_folds_edited_by_hand_stay(place: Workspace, dataset: Dataset, trained: bool) -> None:
    edited = _swap_folds(place)
    if trained:
        _pretend_trained(place)
    measure(dataset, place, num_workers=1)
    assert json.loads(place.splits("Phantom").read_text()) == edited


def test_groups_declared_later_make_new_folds(place: Workspace, own_raw: Path) -> None:
    content = json.loads((own_raw / "dataset.json").read_text())
    content["groups"] = {f"phantom_00{number}": "the same patient" for number in (1, 2, 3)}
    (own_raw / "dataset.json").write_text(json.dumps(content))
    dataset = find_dataset("Phantom", place)
    assert choose_splits(dataset, place) == make_splits(dataset)
    assert "groups of cases that stay together, like the same patient" in describe_folds(make_splits(dataset), dataset)
    _pretend_trained(place)
    with pytest.raises(WorkspaceError, match="the folds would change"):
        choose_splits(dataset, place)


def test_the_datasets_own_splits_go_first(place: Workspace, own_raw: Path) -> None:
    names = [case.name for case in find_dataset("Phantom", place).cases]
    (own_raw / "splits_final.json").write_text(json.dumps([{"train": names[:3], "val": names[3:]}]))
    dataset = find_dataset("Phantom", place)
    _swap_folds(place)
    splits = choose_splits(dataset, place)
    assert [fold.train for fold in splits.folds] == [tuple(names[:3])]
    assert describe_folds(splits, dataset) == f"1 fold, those of {own_raw / 'splits_final.json'}"
    _pretend_trained(place)
    with pytest.raises(WorkspaceError, match="the folds would change .to those of .*splits_final.json., but 1 fold is"):
        choose_splits(dataset, place)


def test_splits_that_are_no_document(place: Workspace, dataset: Dataset) -> None:
    place.splits("Phantom").write_text("[")
    with pytest.raises(DocumentError, match="splits.json"):
        choose_splits(dataset, place)


def test_a_plan_does_not_change_under_its_results(place: Workspace, tiny: tuple[str, ...]) -> None:
    fingerprint = read_fingerprint(place.fingerprint("Phantom"))
    folder, before = _pretend_trained(place), place.plan("Phantom", "tiny").read_bytes()
    other = (*tiny, "training.seed=5")
    with pytest.raises(PlanError, match="was trained with another plan of this name.*--name") as caught:
        make_plans(fingerprint, place, _request("unet", assignments=other, name="tiny"))
    assert str(folder) in str(caught.value)
    assert place.plan("Phantom", "tiny").read_bytes() == before
    make_plans(fingerprint, place, _request("unet", assignments=other, name="tiny_5"))
    shutil.rmtree(folder)
    make_plans(fingerprint, place, _request("unet", assignments=other, name="tiny"))


def test_another_fingerprint_does_not_change_a_trained_plan(
    place: Workspace, own_raw: Path, tiny: tuple[str, ...]
) -> None:
    """The images were replaced, the names are the same: what was trained is not what would be planned now."""
    shutil.rmtree(own_raw)
    make_phantom_dataset(own_raw, num_cases=6, size=32, seed=2)
    _pretend_trained(place)
    fingerprint, _ = measure(find_dataset("Phantom", place), place, num_workers=1)
    with pytest.raises(PlanError, match="options, dataset or planner differ"):
        make_plans(fingerprint, place, _request("unet", assignments=tiny, name="tiny"))


def test_plans_that_preprocess_alike_share_a_folder(place: Workspace, dataset: Dataset) -> None:
    fingerprint = read_fingerprint(place.fingerprint("Phantom"))
    plans, _ = make_plans(fingerprint, place, _request("unet", "attention_unet", assignments=SHORTER, name="short"))
    coarse, _ = make_plans(fingerprint, place, _request("unet", name="coarse", downsample=2.0))
    assert len(distinct_preprocessing(plans)) == 1
    distinct = distinct_preprocessing([*plans, *coarse])
    assert len(distinct) == 2
    told: list[str] = []
    preprocess(dataset, [*plans, *coarse], place, num_workers=1, on_case=lambda case: told.append(case.name))
    assert len(told) == 12
    for digest in distinct:
        assert CaseStore(place.preprocessed("Phantom", digest)).names() == sorted(set(told))
