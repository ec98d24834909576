"""Cascades from the first stage's networks to the second one's input, with networks that were never trained."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch

import autoseg
from autoseg.data.cases import Case
from autoseg.data.dataset import Dataset, find_dataset
from autoseg.data.splits import Fold, Splits
from autoseg.data.volumes import read_image, write_segmentation, write_volume
from autoseg.data.workspace import Workspace
from autoseg.documents import read_document, write_document
from autoseg.errors import PlanError, TrainingError, WorkspaceError
from autoseg.fingerprint.fingerprint import Fingerprint
from autoseg.launch.archive import install_model, pack_model
from autoseg.launch.export import export_model
from autoseg.launch.first_stage import RECORD_FILE, hash_weights
from autoseg.launch.fold import FoldRun, find_unseen, open_fold, open_member, train, validate
from autoseg.launch.inference import open_model
from autoseg.launch.prepare import PlanRequest, make_plans, preprocess
from autoseg.launch.select import choose_best, open_contest
from autoseg.plan.plan import Plan
from autoseg.predict.model import Member, Model
from autoseg.predict.predictor import predict_case, predict_cases
from autoseg.predict.sliding_window import predict_logits
from autoseg.preprocess.case import preprocess_case
from autoseg.preprocess.restore import restore_segmentation
from autoseg.train.machine import Machine
from autoseg.train.state import SCHEMA, build_network, load_network, training_digest

CPU = torch.device("cpu")
D = "Phantom"
FIRST, SECOND = "low", "cascade"


def pretend(place: Workspace, name: str, fold: int, seed: int) -> Path:
    """Write a finished run whose network has never seen anything; its last bias makes it find something."""
    plan = read_document(place.plan(D, name), Plan)
    network = build_network(plan)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in network.parameters():
            weights.add_(0.3 * weights.abs().mean() * torch.randn(weights.shape, generator=generator))
    run = place.fold(D, name, fold)
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    write_document(run / "plan.json", plan)
    content = {"schema": SCHEMA, "plan_sha256": training_digest(plan), "epoch": plan.training.epochs}
    torch.save(content | {"network": network.state_dict()}, run / "checkpoints" / "last.pt")
    return run


def make(place: Workspace, **request: Any) -> list[Plan]:
    fingerprint = read_document(place.fingerprint(D), Fingerprint)
    return make_plans(fingerprint, place, PlanRequest(**request))[0]


@pytest.fixture
def cascade(place: Workspace, dataset: Dataset) -> Workspace:
    """Two folds, the plan ``low`` (coarse, axes in another order) trained in both, and ``cascade`` after it."""
    names = [case.name for case in dataset.cases]
    halves = (
        Fold(train=tuple(names[3:]), validation=tuple(names[:3])),
        Fold(train=tuple(names[:3]), validation=tuple(names[3:])),
    )
    before = read_document(place.splits(D), Splits)
    write_document(place.splits(D), before.model_copy(update={"folds": halves}))
    coarse = ("preprocessing.spacing=[3.0,2.5,3.5]", "preprocessing.transpose=[1,0,2]", "training.seed=5")
    make(place, base="tiny", assignments=(*coarse, NETWORK), name=FIRST)
    plans = make(place, base="tiny", assignments=(f"previous_stage={FIRST}",), name=SECOND)
    preprocess(dataset, plans, place, num_workers=1)
    for fold in (0, 1):
        pretend(place, FIRST, fold, seed=fold)
    return place


NETWORK = (
    'network.config={"strides":[[1,1,1],[2,2,2]],"kernel_sizes":[[3,3,3],[3,3,3]],"features_per_stage":[4,8],'
    '"blocks_per_stage_encoder":[1,1],"blocks_per_stage_decoder":[1]}'
)


def refused(place: Workspace, dataset: Dataset, error: type[Exception] = PlanError) -> str:
    with pytest.raises(error) as caught:
        open_fold(place, dataset, SECOND, 0)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def find_by_hand(place: Workspace, case: Case, folds: tuple[int, ...], folder: Path) -> np.ndarray:
    """Return what the first stage's folds find in a case, by way of a label file on the image's grid."""
    plan = read_document(place.plan(D, FIRST), Plan)
    networks = tuple(load_network(place.fold(D, FIRST, fold), plan, which="last", device=CPU) for fold in folds)
    found = predict_case(Model((Member(plan, networks),), CPU), case)
    path = folder / f"{case.name}.nii.gz"
    write_segmentation(path, found.segmentation, found.geometry)
    second = read_document(place.plan(D, SECOND), Plan)
    classes = preprocess_case(Case(case.name, case.images, path), second).classes
    assert classes is not None
    return np.maximum(classes, 0)


# --- what is stored for the training --------------------------------------------------------------------------------


def test_each_case_is_segmented_by_the_fold_that_did_not_see_it(
    cascade: Workspace, dataset: Dataset, tmp_path: Path
) -> None:
    run = open_fold(cascade, dataset, SECOND, 0)
    told: list[str] = []
    find_unseen(run, device=CPU, on_case=lambda case: told.append(case.name))
    assert sorted(told) == [case.name for case in dataset.cases]
    differing = 0
    for index, case in enumerate(dataset.cases):
        own, other = (find_by_hand(cascade, case, (fold,), tmp_path) for fold in ((0, 1) if index < 3 else (1, 0)))
        stored = run.store.found(case.name)[...]
        assert stored.shape == run.store.properties(case.name).shape
        assert np.array_equal(stored, own)
        differing += not np.array_equal(stored, other)
    assert differing == 6 and run.store.found("phantom_001")[...].any()


def test_what_is_stored_is_kept_and_what_is_missing_made_again(cascade: Workspace, dataset: Dataset) -> None:
    run = open_fold(cascade, dataset, SECOND, 0)
    find_unseen(run, device=CPU)
    assert run.first is not None
    files = sorted(run.first.folder.glob("phantom_*"))
    assert len(files) == 12
    times = {path: path.stat().st_mtime_ns for path in files}
    files[0].unlink()  # the array of the first case
    files[3].write_text("{")  # the document of the second
    find_unseen(open_fold(cascade, dataset, SECOND, 1), device=CPU)  # the other fold shares them
    again = {path for path in files if path.stat().st_mtime_ns != times[path]}
    assert again == set(files[:4])


def test_changed_images_are_segmented_again(cascade: Workspace, dataset: Dataset, own_raw: Path) -> None:
    dataset = find_dataset("Phantom", cascade)
    run = open_fold(cascade, dataset, SECOND, 0)
    find_unseen(run, device=CPU)
    path = dataset.cases[0].images[0]
    path.touch()
    assert run.first is not None
    stored = run.first.folder / f"{dataset.cases[0].name}.b2nd"
    before = stored.stat().st_mtime_ns
    find_unseen(run, device=CPU)
    assert stored.stat().st_mtime_ns != before


def test_a_first_stage_that_was_trained_again_is_noticed(cascade: Workspace, dataset: Dataset) -> None:
    run = open_fold(cascade, dataset, SECOND, 0)
    train(run, Machine(CPU, 1), on_event=lambda event: None)
    validate(run, device=CPU, num_workers=1)
    pretend(cascade, FIRST, 1, seed=77)
    message = refused(cascade, dataset, TrainingError)
    assert "was trained on what other networks of low found" in message and "delete" in message
    record = run.folder / RECORD_FILE
    known = record.read_text()
    record.unlink()  # who cannot tell is not believed
    assert "other networks of low" in refused(cascade, dataset, TrainingError)
    record.write_text(known)
    with pytest.raises(PlanError, match=r"low/fold_1 was trained again since; train cascade again too"):
        open_model(cascade, D, [SECOND], [], CPU)
    shutil.rmtree(cascade.fold(D, SECOND, 0))
    again = open_fold(cascade, dataset, SECOND, 0)
    assert run.first is not None and again.first is not None and again.first.folder != run.first.folder
    pretend(cascade, FIRST, 1, seed=1)  # the former network
    assert open_fold(cascade, dataset, SECOND, 0).store.found_folder == run.store.found_folder


# --- what is refused -------------------------------------------------------------------------------------------------


def test_missing_folds_are_named_with_the_command(cascade: Workspace, dataset: Dataset) -> None:
    (cascade.fold(D, FIRST, 1) / "checkpoints" / "last.pt").unlink()
    message = refused(cascade, dataset)
    assert "folds [1] of low are not trained to their end; run autoseg_train -d Phantom -a low -f 1" in message
    path = cascade.fold(D, FIRST, 0) / "checkpoints" / "last.pt"
    torch.save(torch.load(path, weights_only=True) | {"epoch": 1, "history": [{"validation_dice": {}}]}, path)
    assert "folds [0, 1] of low" in refused(cascade, dataset)


def test_a_deleted_previous_plan_is_told(cascade: Workspace, dataset: Dataset) -> None:
    cascade.plan(D, FIRST).unlink()
    assert open_fold(cascade, dataset, SECOND, 0).first is not None  # its networks are all that is needed
    shutil.rmtree(cascade.fold(D, FIRST, 0).parent)
    assert "low.json: no such plan; plans here: cascade, tiny" in refused(cascade, dataset)


def test_cases_that_every_network_has_seen_are_refused(cascade: Workspace, dataset: Dataset) -> None:
    splits = read_document(cascade.splits(D), Splits)
    write_document(cascade.splits(D), splits.model_copy(update={"folds": splits.folds[:1]}))
    message = refused(cascade, dataset, WorkspaceError)
    assert "3 cases, e.g. phantom_004, are in no validation set" in message


@pytest.mark.parametrize(
    ("base", "assignment", "message"),
    [
        ("tiny", "previous_stage=lwo", "no such plan; plans here: cascade, low, tiny .did you mean 'low'"),
        ("tiny", "previous_stage=cascade", "is itself the second stage of 'low'; a cascade has two stages"),
    ],
)
def test_plans_after_what_is_no_first_stage_are_refused(
    cascade: Workspace, base: str, assignment: str, message: str
) -> None:
    with pytest.raises(PlanError, match="plan new: previous_stage.*" + message):
        make(cascade, base=base, assignments=(assignment,), name="new")
    assert not cascade.plan(D, "new").exists()


def test_chains_and_loops_that_were_made_by_hand_are_refused(cascade: Workspace, dataset: Dataset) -> None:
    path = cascade.plan(D, FIRST)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"previous_stage": SECOND}))
    for fold in (0, 1):
        pretend(cascade, FIRST, fold, seed=fold)
    assert "'low' is itself the second stage of 'cascade'" in refused(cascade, dataset)


def test_a_first_stage_of_other_labels_is_refused(cascade: Workspace, dataset: Dataset) -> None:
    path = cascade.plan(D, FIRST)
    content = json.loads(path.read_text())
    content["dataset"]["labels"]["vessel"] = 3
    content["dataset"]["regions"]["vessel"] = {"labels": [3], "value": 3}
    path.write_text(json.dumps(content))
    for fold in (0, 1):
        pretend(cascade, FIRST, fold, seed=fold)
    assert "was planned with other labels; plan both again" in refused(cascade, dataset)


def test_an_export_for_one_stage_only_is_refused(cascade: Workspace, dataset: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    pretend(cascade, SECOND, 0, seed=3)
    with pytest.raises(PlanError, match="second stage of a cascade after low.*-o FILE.zip"):
        export_model(cascade, D, SECOND, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_recipe_brings_its_first_stage_along_unless_there_is_one(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    fingerprint = read_document(place.fingerprint(D), Fingerprint)
    large = fingerprint.model_copy(
        update={"cases": tuple(
            case.model_copy(update={"shape": (300,) * 3, "shape_after_crop": (300,) * 3}) for case in fingerprint.cases
        )}
    )  # fmt: skip
    write_document(place.fingerprint(D), large)
    plans = make(place, architectures=("nnunet_cascade",))
    assert [plan.name for plan in plans] == ["nnunet_lowres", "nnunet_cascade"]
    assert place.plan(D, "nnunet_lowres").is_file()
    assert [plan.name for plan in make(place, architectures=("nnunet_cascade",))] == ["nnunet_cascade"]
    both = make(place, architectures=("nnunet_cascade", "nnunet_lowres"))
    assert [plan.name for plan in both] == ["nnunet_cascade", "nnunet_lowres"]


# --- prediction ------------------------------------------------------------------------------------------------------


@pytest.fixture
def done(cascade: Workspace, dataset: Dataset) -> FoldRun:
    """The second stage's fold 0, trained for a few steps and validated."""
    run = open_fold(cascade, dataset, SECOND, 0)
    train(run, Machine(CPU, 1), on_event=lambda event: None)
    validate(run, device=CPU, num_workers=1)
    return run


def test_validation_sees_what_the_unseen_fold_found_and_new_images_what_all_found(
    cascade: Workspace, dataset: Dataset, done: FoldRun, tmp_path: Path
) -> None:
    network = load_network(done.folder, done.plan, which="last", device=CPU)
    case = done.validation_cases[0]

    def segment(found: np.ndarray) -> np.ndarray:
        prepared = preprocess_case(case, done.plan, with_label=False)
        image = np.concatenate([prepared.image, found[None].astype(np.float32)])
        logits = predict_logits(
            network, torch.from_numpy(image), patch_size=done.plan.training.patch_size, mirror_axes=(),
            tile_step=done.plan.prediction.tile_step, num_outputs=3, device=CPU,
            precision=done.plan.training.precision,
        )  # fmt: skip
        return restore_segmentation(logits, prepared.properties, done.plan)

    def written(path: Path) -> np.ndarray:
        return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))

    unseen = segment(find_by_hand(cascade, case, (0,), tmp_path))
    together = segment(find_by_hand(cascade, case, (0, 1), tmp_path))
    assert not np.array_equal(unseen, together)
    assert np.array_equal(written(done.folder / "validation" / f"{case.name}.nii.gz"), unseen)
    model, record = open_model(cascade, D, [SECOND], [], CPU)
    predict_cases(model, [case], tmp_path / "out", ending=".nii.gz")
    assert np.array_equal(written(tmp_path / "out" / f"{case.name}.nii.gz"), together)
    assert [used.previous_stage for used in record.plans] == [FIRST]
    image = sitk.ReadImage(str(case.images[0]))
    loaded = autoseg.load_model(done.folder).predict(image)
    assert np.array_equal(sitk.GetArrayFromImage(loaded), together)


def test_a_cascade_segments_together_with_other_plans(
    cascade: Workspace, dataset: Dataset, done: FoldRun, tmp_path: Path
) -> None:
    pretend(cascade, "tiny", 0, seed=9)
    members = [open_member(cascade, D, name, [0], CPU) for name in ("tiny", SECOND)]
    both = Model(tuple(members), CPU)
    assert [member.plan.name for member in both.stages] == ["tiny", SECOND, FIRST]
    (timing,) = predict_cases(both, dataset.cases[:1], tmp_path / "out")
    assert timing.name == "phantom_001"


def test_the_best_pair_is_scored_on_what_unseen_folds_found(
    cascade: Workspace, dataset: Dataset, done: FoldRun
) -> None:
    other = open_fold(cascade, dataset, "tiny", 0)
    train(other, Machine(CPU, 1), on_event=lambda event: None)
    validate(other, device=CPU, num_workers=1)
    best = choose_best(open_contest(cascade, dataset), device=CPU)
    assert {candidate.plans for candidate in best.pairs} == {(SECOND, "tiny")}


def test_both_stages_move_to_another_machine_in_two_archives(
    cascade: Workspace, dataset: Dataset, done: FoldRun, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = Workspace(tmp_path / "other")
    for name in (SECOND, FIRST):
        pack_model(cascade, D, name, tmp_path / f"{name}.zip")
    install_model(other, tmp_path / f"{SECOND}.zip")
    with pytest.raises(PlanError, match="cascade sees what low finds, but .*low/fold_0 has no network; bring it there"):
        open_model(other, D, [SECOND], [], CPU)
    install_model(other, tmp_path / f"{FIRST}.zip")
    case = dataset.cases[0]
    here, there = (predict_case(open_model(place, D, [SECOND], [], CPU)[0], case) for place in (cascade, other))
    assert np.array_equal(here.segmentation, there.segmentation)
    assert (other.fold(D, SECOND, 0) / RECORD_FILE).is_file()


def test_second_stages_after_different_first_ones_do_not_segment_together(
    cascade: Workspace, dataset: Dataset, done: FoldRun
) -> None:
    other = pretend(cascade, SECOND, 1, seed=4)
    record = json.loads((done.folder / RECORD_FILE).read_text())
    record["networks"]["0"] = "0" * 64
    (other / RECORD_FILE).write_text(json.dumps(record))
    with pytest.raises(PlanError, match=r"folds \['fold_0', 'fold_1'\] were trained after different networks of it"):
        open_model(cascade, D, [SECOND], [], CPU)
    assert open_model(cascade, D, [SECOND], [0], CPU)[0].members[0].previous is not None


def test_weights_have_one_hash_whatever_holds_them(cascade: Workspace) -> None:
    plan = read_document(cascade.plan(D, FIRST), Plan)
    first, again, other = (
        load_network(cascade.fold(D, FIRST, fold), plan, which="last", device=CPU) for fold in (0, 0, 1)
    )
    assert hash_weights(first) == hash_weights(again) != hash_weights(other)
    with torch.no_grad():
        next(iter(again.parameters())).view(-1)[0] += 1e-6
    assert hash_weights(first) != hash_weights(again)


def test_images_that_changed_shape_since_they_were_preprocessed_are_told(
    cascade: Workspace, own_raw: Path, tmp_path: Path
) -> None:
    dataset = find_dataset("Phantom", cascade)
    run = open_fold(cascade, dataset, SECOND, 0)
    path = dataset.cases[0].images[0]
    volume = read_image([path])
    array = volume.array[0][:-3]
    write_volume(path, array, volume.geometry.model_copy(update={"shape": array.shape}))
    with pytest.raises(WorkspaceError, match="case phantom_001: the images are .* run autoseg_plan again"):
        find_unseen(run, device=CPU)
