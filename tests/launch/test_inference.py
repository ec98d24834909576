"""Models from their folders: which networks, with which weights, into which output; and the choice among plans."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

import autoseg
from autoseg.data.cases import Case
from autoseg.data.dataset import find_dataset
from autoseg.data.labels import Labels
from autoseg.data.volumes import Geometry, read_label, write_segmentation
from autoseg.data.workspace import Workspace, open_workspace
from autoseg.documents import read_document
from autoseg.errors import DatasetError, PlanError, TrainingError, VolumeError, WorkspaceError
from autoseg.evaluate.metrics import dice
from autoseg.launch import select
from autoseg.launch.inference import (
    PredictionRecord,
    chosen_plans,
    claim_output,
    cross_validated_dice,
    ensemble_weights,
    open_model,
)
from autoseg.launch.learn import learn_postprocessing
from autoseg.launch.select import Best, Candidate, Contest, choose_best, open_contest
from autoseg.predict.postprocess import Postprocessing, postprocess
from autoseg.predict.predictor import predict_cases

CPU = torch.device("cpu")


@pytest.fixture
def place(trained: Path) -> Workspace:
    return open_workspace(trained)


@pytest.fixture
def own(trained: Path, tmp_path: Path) -> Workspace:
    """A copy that a test may change."""
    shutil.copytree(trained, tmp_path / "own", symlinks=True)
    return open_workspace(tmp_path / "own")


def image_of(trained: Path) -> Path:
    return next(iter(sorted((trained / "raw").glob("*/imagesTs/*"))))


# --- folders and weights ---------------------------------------------------------------------------------------------


def test_weights_follow_the_error_of_each_plan(place: Workspace) -> None:
    scores = [cross_validated_dice(place, "Phantom", name) for name in ("good", "poor")]
    assert scores[0] > scores[1] > 0.5
    good, poor = ensemble_weights(place, "Phantom", ["good", "poor"])
    assert good / poor == pytest.approx((1 - scores[1]) / (1 - scores[0]))
    assert ensemble_weights(place, "Phantom", ["good"]) == [1.0]
    assert ensemble_weights(place, "Phantom", ["good", "unknown"]) == [1.0, 1.0]


def test_several_plans_give_one_record_that_names_them(place: Workspace) -> None:
    model, record = open_model(place, "Phantom", ["good", "poor", "good"], [1], CPU)
    assert model.name == "good + poor" and [used.folds for used in record.plans] == [(1,), (1,)]
    assert [member.weight for member in model.members] == [used.weight for used in record.plans]
    assert len(open_model(place, "Phantom", ["good"], [], CPU)[0].members[0].networks) == 2


def test_an_output_folder_belongs_to_one_model(place: Workspace, tmp_path: Path, trained: Path) -> None:
    case = Case("one", (image_of(trained),), None)
    record = open_model(place, "Phantom", ["good"], [0], CPU)[1]
    other = record.model_copy(update={"dataset": "Other"})
    claim_output(tmp_path / "out", record, [case], overwrite=False)
    assert read_document(tmp_path / "out" / "prediction.json", PredictionRecord) == record
    claim_output(tmp_path / "out", other, [case], overwrite=False)  # nothing is there yet
    (tmp_path / "out" / "one.nii.gz").write_bytes(b"")
    claim_output(tmp_path / "out", other, [case], overwrite=False)
    with pytest.raises(WorkspaceError, match=r"1 segmentations are there already by other plans.*one.nii.gz"):
        claim_output(tmp_path / "out", record, [case], overwrite=False)
    claim_output(tmp_path / "out", record, [case], overwrite=True)
    assert not (tmp_path / "out" / "one.nii.gz").exists()  # never one model's segmentation under another's record
    (tmp_path / "out" / "one.nii.gz").write_bytes(b"")
    (tmp_path / "out" / "prediction.json").unlink()
    with pytest.raises(WorkspaceError, match="were not made by autoseg_predict"):
        claim_output(tmp_path / "out", record, [case], overwrite=False)


def test_images_are_never_overwritten(place: Workspace, tmp_path: Path, trained: Path) -> None:
    image = tmp_path / "one.nii.gz"
    shutil.copy(image_of(trained), image)
    record = open_model(place, "Phantom", ["good"], [0], CPU)[1]
    for overwrite in (False, True):
        with pytest.raises(WorkspaceError, match=r"one.nii.gz there is an image"):
            claim_output(tmp_path, record, [Case("one", (image,), None)], overwrite=overwrite)
    with pytest.raises(WorkspaceError, match="is a file; name a folder"):
        claim_output(image, record, [Case("two", (image,), None)], overwrite=True)


# --- from Python -----------------------------------------------------------------------------------------------------


def test_an_image_in_memory_is_segmented_like_its_file(place: Workspace, trained: Path, tmp_path: Path) -> None:
    folder = trained / "results" / "Phantom" / "good"
    model = open_model(place, "Phantom", ["good"], [], CPU)[0]
    predict_cases(model, [Case("one", (image_of(trained),), None)], tmp_path)
    expected = sitk.ReadImage(str(tmp_path / "one.nii.gz"))
    loaded, image = autoseg.load_model(folder, device="cpu"), sitk.ReadImage(str(image_of(trained)))
    found = loaded.predict(image)
    for attribute in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(found, attribute)() == getattr(expected, attribute)() == getattr(image, attribute)()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found), sitk.GetArrayFromImage(expected))
    assert loaded.channels == ("CT",) and loaded.labels["liver"] == 1


def test_arrays_are_taken_in_lps_and_give_arrays(trained: Path) -> None:
    loaded = autoseg.load_model(trained / "results" / "Phantom" / "good" / "fold_0", device="cpu")
    image = sitk.ReadImage(str(image_of(trained)))
    image.SetDirection((1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
    array, spacing = sitk.GetArrayFromImage(image), image.GetSpacing()[::-1]
    before = array.copy()
    expected = sitk.GetArrayFromImage(loaded.predict(image))
    np.testing.assert_array_equal(loaded.predict(array, spacing), expected)
    np.testing.assert_array_equal(loaded.predict(array[None], spacing), expected)
    np.testing.assert_array_equal(array, before)
    probabilities = loaded.predict_probabilities(array, spacing)
    assert probabilities.shape == (3, *array.shape)
    np.testing.assert_array_equal(probabilities.argmax(axis=0), expected)


def test_images_that_cannot_be_used_are_refused_in_a_word(trained: Path) -> None:
    loaded = autoseg.load_model(trained / "results" / "Phantom" / "good" / "fold_0", device="cpu")
    array, spacing = np.zeros((20, 20, 20), np.float32), (1.0, 1.0, 1.0)
    with pytest.raises(VolumeError, match="an array needs its spacing"):
        loaded.predict(array)
    with pytest.raises(VolumeError, match="three numbers above 0"):
        loaded.predict(array, (1.0, 0.0, 1.0))
    with pytest.raises(VolumeError, match="the array: has 2 dimensions"):
        loaded.predict(array[0], spacing)
    with pytest.raises(DatasetError, match=r"2 channels, the model takes 1 \(CT\)"):
        loaded.predict(np.stack([array, array]), spacing)
    with pytest.raises(VolumeError, match="the image: holds NaN or infinity"):
        loaded.predict(np.full((20, 20, 20), np.nan), spacing)
    with pytest.raises(VolumeError, match="the image: is 2-D"):
        loaded.predict(sitk.GetImageFromArray(array[0]))
    with pytest.raises(VolumeError, match="leave the argument out"):
        loaded.predict(sitk.GetImageFromArray(array), spacing)
    moved = sitk.GetImageFromArray(array)
    moved.SetOrigin((1.0, 0.0, 0.0))
    with pytest.raises(VolumeError, match="different grids"):
        loaded.predict([sitk.GetImageFromArray(array), moved])
    assert (loaded.predict(array, spacing) >= 0).all()  # a constant image, and nothing but zeros: no error
    assert loaded.predict(array[:3, :2], spacing).shape == (3, 2, 20)  # smaller than the patch


def test_folders_without_a_whole_model_are_refused(own: Workspace, tmp_path: Path) -> None:
    plan = own.fold("Phantom", "good", 0).parent
    with pytest.raises(WorkspaceError, match="no trained model"):
        autoseg.load_model(tmp_path / "nowhere")
    with pytest.raises(WorkspaceError, match=r"fold 4 is missing; folds there: \[0, 1\]"):
        autoseg.load_model(plan, folds=[4])
    (plan / "fold_1" / "checkpoints" / "last.pt").unlink()
    with pytest.raises(WorkspaceError, match=r"fold_1: has no checkpoints/last.pt.*trained: \[0\]"):
        autoseg.load_model(plan)
    assert autoseg.load_model(plan, folds=[0], device="cpu").labels
    checkpoint = plan / "fold_0" / "checkpoints" / "last.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1000])
    with pytest.raises(TrainingError, match="cannot be read"):
        autoseg.load_model(plan, folds=[0], device="cpu")


# --- postprocessing and the choice -----------------------------------------------------------------------------------


def labelled(tmp_path: Path, name: str, reference: np.ndarray, predicted: np.ndarray) -> tuple[Case, Path]:
    geometry = Geometry(shape=reference.shape, spacing=(10.0,) * 3, origin=(0.0,) * 3,
                        direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))  # fmt: skip
    paths = tmp_path / "r" / f"{name}.nii.gz", tmp_path / "p" / f"{name}.nii.gz"
    for path, values in zip(paths, (reference, predicted)):
        write_segmentation(path, values.astype(np.uint8), geometry)
    return Case(name, (), paths[0]), paths[1]


def test_only_steps_that_help_are_learnt(tmp_path: Path) -> None:
    labels = Labels.from_names({"background": 0, "liver": 1, "vessel": 2})
    pairs = []
    for number in range(3):
        reference = np.zeros((12, 12, 12))
        reference[2:8, 2:8, 2:8] = 1
        reference[10, 1:3, 1], reference[10, 8:10, 8] = 2, 2  # vessels are two pieces: the largest alone is worse
        predicted = reference.copy()
        predicted[11, 11, number : number + 2] = 1
        pairs.append(labelled(tmp_path, f"case_{number}", reference, predicted))
    learnt = learn_postprocessing(pairs, labels, num_workers=2)
    assert [(s.region, s.action) for s in learnt.steps] == [("liver", "keep_largest")] and learnt.num_cases == 3
    expected = [dice(r == 1, p == 1) for r, p in ((read_label(c.label).array, read_label(q).array) for c, q in pairs)]
    assert learnt.steps[0].dice_before == pytest.approx(np.mean(expected)) and learnt.steps[0].dice_after == 1


def test_a_step_that_hurts_another_region_is_not_kept(tmp_path: Path) -> None:
    from autoseg.data.labels import Region

    labels = Labels(
        labels={"background": 0, "edema": 1, "core": 2},
        regions={"whole": Region(labels=(1, 2), value=1), "core": Region(labels=(2,), value=2)},
    )
    reference = np.zeros((4, 4, 20))
    reference[:, :, :8] = 1
    reference[0, 0, 15] = 2
    predicted = reference.copy()
    predicted[0, :, 18] = 1  # wrong, but what removes it removes the core too
    learnt = learn_postprocessing([labelled(tmp_path, "case", reference, predicted)], labels)
    for step in learnt.steps:
        assert step.action != "keep_largest"
    values = postprocess(predicted, learnt.steps, labels, (10.0,) * 3)
    assert (values == 2).sum() == 1


def test_an_absent_region_that_is_left_alone_counts_as_right(tmp_path: Path) -> None:
    labels = Labels.from_names({"background": 0, "lesion": 1})
    nothing, speck = np.zeros((2, 6, 6, 6))
    speck[0, 0, 0] = 1
    found = learn_postprocessing([labelled(tmp_path, "empty", nothing, speck)], labels)
    assert [step.action for step in found.steps] == ["remove_small"] and found.steps[0].dice_after == 1


def test_the_best_plan_and_pair_are_found_and_written_down(own: Workspace) -> None:
    contest = open_contest(own, find_dataset("Phantom", own))
    assert contest.plans == ("good", "poor") and sorted(contest.metrics) == [0, 1]
    best = choose_best(contest, device=CPU)
    assert best.singles[0].plans == ("good",) and best.chosen.plans == ("good",)
    assert best.singles[0].dice == pytest.approx(cross_validated_dice(own, "Phantom", "good"))
    assert best.singles[0].postprocessed_dice > best.singles[0].dice
    assert {c.plans for c in best.pairs} == {("good", "poor")} and best.num_cases == len(contest.cases)
    results = own.fold("Phantom", "good", 0).parents[1]
    assert read_document(results / "best.json", Best) == best
    learnt = read_document(results / "good" / "postprocessing.json", Postprocessing)
    assert [(step.region, step.action) for step in learnt.steps] == [("liver", "keep_largest")]
    assert chosen_plans(own, "Phantom", None) == ["good"] and chosen_plans(own, "Phantom", ["poor"]) == ["poor"]
    assert open_model(own, "Phantom", ["good"], [], CPU)[0].postprocessing == learnt
    assert open_model(own, "Phantom", ["good"], [], CPU, with_postprocessing=False)[0].postprocessing is None


@pytest.mark.parametrize(("gain", "chosen"), [(0.05, ("good",)), (0.3, ("good", "poor"))])
def test_what_counts_is_the_dice_after_postprocessing(
    own: Workspace, monkeypatch: pytest.MonkeyPatch, gain: float, chosen: tuple[str, ...]
) -> None:
    contest = open_contest(own, find_dataset("Phantom", own))
    pair = Candidate(plans=("good", "poor"), weights=(0.5, 0.5), dice=select._single(contest, "good").dice - 0.2)

    def learn(contest: Contest, candidate: Candidate, num_workers: int) -> Candidate:
        return candidate.model_copy(update={"postprocessed_dice": candidate.dice + gain} if candidate is pair else {})

    monkeypatch.setattr(select, "_pairs", lambda *_: [pair])
    monkeypatch.setattr(select, "_learn", learn)
    assert choose_best(contest, device=CPU).chosen.plans == chosen


def test_a_pairs_segmentation_is_that_of_both_plans_together(own: Workspace, tmp_path: Path) -> None:
    contest = open_contest(own, find_dataset("Phantom", own))
    choose_best(contest, device=CPU)
    case = contest.cases_of(0)[0]
    model = open_model(own, "Phantom", ["good", "poor"], [0], CPU, with_postprocessing=False)[0]
    predict_cases(model, [case], tmp_path, ending=".nii.gz")
    pair = own.fold("Phantom", "good", 0).parents[1] / "pairs" / "good+poor" / "validation"
    found, expected = (read_label(folder / f"{case.name}.nii.gz").array for folder in (pair, tmp_path))
    np.testing.assert_array_equal(found, expected)
    before = {path.name: path.stat().st_mtime_ns for path in pair.glob("*.nii.gz")}
    choose_best(contest, device=CPU)  # goes on from what is there
    assert {path.name: path.stat().st_mtime_ns for path in pair.glob("*.nii.gz")} == before


def test_a_contest_needs_scores_on_common_folds(own: Workspace) -> None:
    dataset = find_dataset("Phantom", own)
    with pytest.raises(WorkspaceError, match="-a none: has no scored fold"):
        open_contest(own, dataset, ["good", "none"])
    for name, fold in (("good", 0), ("poor", 1)):
        (own.fold("Phantom", name, fold) / "validation" / "metrics.json").unlink()
    with pytest.raises(WorkspaceError, match=r"no scored fold in common \(good has \[1\]; poor has \[0\]\)"):
        open_contest(own, dataset)


def test_without_a_plan_and_without_a_choice_one_is_asked_for(place: Workspace, own: Workspace) -> None:
    with pytest.raises(PlanError, match="no plan is named.*autoseg_compare --best"):
        chosen_plans(place, "Phantom", None)


def test_the_record_is_readable_json(place: Workspace, tmp_path: Path) -> None:
    record = open_model(place, "Phantom", ["good"], [0], CPU)[1]
    claim_output(tmp_path, record, [], overwrite=False)
    assert json.loads((tmp_path / "prediction.json").read_text())["plans"][0]["folds"] == [0]
