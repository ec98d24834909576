"""Whole cases: the segmentation lies where the image does, files are whole, and work overlaps within bounds."""

import threading
from collections.abc import Callable
from pathlib import Path

import blosc2
import numpy as np
import pytest
import torch
from torch import nn

from autoseg.data.cases import Case
from autoseg.data.labels import Labels
from autoseg.data.volumes import Geometry, read_image, read_label, same_geometry, write_volume
from autoseg.errors import DatasetError, PlanError, VolumeError
from autoseg.plan.plan import Normalization, Plan, PlanDataset, Prediction, Preprocessing, Training
from autoseg.predict import logits, predictor
from autoseg.predict.model import Member, Model, check_together
from autoseg.predict.postprocess import Postprocessing, Step
from autoseg.predict.predictor import ending_of, predict_case, predict_cases, predict_volume

CPU = torch.device("cpu")
LABELS = Labels.from_names({"background": 0, "liver": 3, "spleen": 7})
NONE = Normalization(scheme="none", use_mask=False, lower=None, upper=None, mean=None, std=None)
PERMUTED = (0.0, 0.0, -1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


class Threshold(nn.Module):
    """Knows the answer: class c where the first channel is nearest to c."""

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        self.shift = shift
        self.running = threading.Event()

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        self.running.set()
        first = x[:, :1].float()
        return [torch.cat([-((first - c - self.shift) ** 2) for c in range(3)], dim=1)]


def plan_for(channels: int = 2) -> Plan:
    """Return a plan with only what prediction reads; its spacing is that of the files, so nothing is resampled."""
    return Plan.model_construct(
        name="test",
        dataset=PlanDataset(
            name="Test",
            channels=tuple(f"channel {n}" for n in range(channels)),
            labels=LABELS.labels,
            regions=LABELS.regions,
            fingerprint_sha256="0" * 64,
        ),
        preprocessing=Preprocessing(
            orientation="LPS", transpose=(2, 0, 1), spacing=(1.0, 1.0, 1.0), downsample=1.0,
            normalization=(NONE,) * channels, image_order=3, label_order=1, separate_axis_threshold=3.0,
        ),
        training=Training.model_construct(patch_size=(8, 8, 8), precision="fp32"),
        prediction=Prediction(tile_step=0.5, mirror_axes=(0, 2), surface_tolerance_mm=2.0),
    )  # fmt: skip


def model(*networks: nn.Module) -> Model:
    """Return a model of one plan whose folds are ``networks``."""
    return Model((Member(plan_for(), networks or (Threshold(),)),), CPU)


@pytest.fixture
def make_case(tmp_path: Path) -> Callable[..., tuple[Case, np.ndarray]]:
    """A function that writes a case of two channels, the first of them the class; returns it and its label values."""

    def make(name: str = "one", direction=IDENTITY, seed: int = 0) -> tuple[Case, np.ndarray]:
        rng = np.random.default_rng(seed)
        classes = rng.integers(0, 3, size=(9, 12, 15))
        geometry = Geometry(shape=classes.shape, spacing=(1.0,) * 3, origin=(3.5, -2.0, 11.25), direction=direction)
        paths = tuple(tmp_path / "raw" / f"{name}_{n:04d}.nii.gz" for n in range(2))
        for path, array in zip(paths, (classes, rng.random(classes.shape) + 1)):
            write_volume(path, array.astype(np.float32), geometry)
        return Case(name, paths, None), np.array([0, 3, 7])[classes]

    return make


@pytest.mark.parametrize("direction", [IDENTITY, PERMUTED])
def test_a_case_is_segmented_on_its_own_grid(make_case, direction) -> None:
    case, label = make_case(direction=direction)
    result = predict_case(model(), case)
    np.testing.assert_array_equal(result.segmentation, label)
    assert same_geometry(result.geometry, read_label(case.images[0]).geometry) is None
    assert result.seconds > 0


def test_the_networks_logits_are_averaged(make_case) -> None:
    case, label = make_case()
    np.testing.assert_array_equal(predict_case(model(Threshold(0.9), Threshold(-0.9)), case).segmentation, label)


def test_cases_are_written_with_the_geometry_of_their_images(make_case, tmp_path: Path) -> None:
    pairs = [make_case(f"case_{n}", PERMUTED, n) for n in range(3)]
    seen: list[tuple[str, float]] = []
    output = tmp_path / "new" / "out"
    report = lambda name, seconds: seen.append((name, seconds))  # noqa: E731
    timings = predict_cases(model(), [c for c, _ in pairs], output, on_case=report)
    assert [(t.name, t.seconds) for t in timings] == seen and [name for name, _ in seen] == [
        "case_0",
        "case_1",
        "case_2",
    ]
    assert sorted(p.name for p in output.iterdir()) == ["case_0.nii.gz", "case_1.nii.gz", "case_2.nii.gz"]
    for case, label in pairs:
        written = read_label(output / f"{case.name}.nii.gz")
        np.testing.assert_array_equal(written.array[0], label)
        assert written.geometry == read_label(case.images[0]).geometry


def test_segmentations_that_stand_already_are_left_alone_on_request(make_case, tmp_path: Path) -> None:
    cases = [make_case(f"case_{n}", seed=n)[0] for n in range(2)]
    predict_cases(model(), cases[:1], tmp_path)
    before = (tmp_path / "case_0.nii.gz").stat().st_mtime_ns
    timings = predict_cases(model(), cases, tmp_path, skip_existing=True)
    assert [t.name for t in timings] == ["case_1"]
    assert (tmp_path / "case_0.nii.gz").stat().st_mtime_ns == before
    assert len(predict_cases(model(), cases, tmp_path)) == 2


def test_another_ending_chooses_another_format(make_case, tmp_path: Path) -> None:
    case, label = make_case()
    predict_cases(model(), [case], tmp_path, ending=".nrrd")
    np.testing.assert_array_equal(read_label(tmp_path / "one.nrrd").array[0], label)


def test_one_case_is_prepared_and_one_written_meanwhile_and_no_more(make_case, tmp_path: Path, monkeypatch) -> None:
    cases = [make_case(f"case_{n}", seed=n)[0] for n in range(4)]
    started: list[str] = []
    second_started = threading.Event()
    original = predictor.preprocess_case

    def preprocess(case: Case, plan: Plan, *, with_label: bool):
        started.append(case.name)
        if len(started) >= 2:
            second_started.set()
        assert not with_label
        return original(case, plan, with_label=with_label)

    class Waiting(Threshold):
        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            assert second_started.wait(10)  # the second case is begun before the first is finished
            assert len(started) <= len(done) + 3  # one is written, one in the network, one prepared
            return super().forward(x)

    done: list[str] = []
    monkeypatch.setattr(predictor, "preprocess_case", preprocess)
    predict_cases(model(Waiting()), cases, tmp_path, on_case=lambda name, _: done.append(name))
    assert started == done == ["case_0", "case_1", "case_2", "case_3"]


def test_nothing_is_segmented_if_a_case_lacks_a_channel(make_case, tmp_path: Path) -> None:
    good, bad = make_case("good")[0], make_case("bad")[0]
    bad = Case(bad.name, bad.images[:1], None)
    with pytest.raises(DatasetError, match=r"case bad: 1 image files found \(bad_0000.nii.gz\).*2 channels"):
        predict_cases(model(), [good, bad], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(DatasetError, match="give one file a channel"):
        predict_case(model(), bad)


def test_a_broken_image_keeps_the_cases_before_it(make_case, tmp_path: Path) -> None:
    good, bad = make_case("good")[0], make_case("bad")[0]
    bad.images[0].write_bytes(b"not an image")
    with pytest.raises(VolumeError, match="bad_0000.nii.gz"):
        predict_cases(model(), [good, bad], tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["good.nii.gz"]


def test_no_case_gives_no_timing(tmp_path: Path) -> None:
    assert predict_cases(model(), [], tmp_path) == []


def test_a_bad_image_is_reported_and_the_others_go_on(make_case, tmp_path: Path) -> None:
    cases = [make_case(name)[0] for name in ("bad", "good", "worse", "last")]
    for case in (cases[0], cases[2]):
        case.images[1].write_bytes(b"not an image")
    problems: dict[str, str] = {}
    report = lambda name, error: problems.update({name: str(error)})  # noqa: E731
    timings = predict_cases(model(), cases, tmp_path / "out", on_error=report)
    assert [t.name for t in timings] == ["good", "last"]
    assert sorted(problems) == ["bad", "worse"] and "bad_0001.nii.gz" in problems["bad"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["good.nii.gz", "last.nii.gz"]


def test_the_format_is_that_of_the_image(make_case, tmp_path: Path) -> None:
    case, label = make_case()
    moved = tuple(path.with_name(path.name.replace(".nii.gz", ".nrrd")) for path in case.images)
    for old, new in zip(case.images, moved):
        volume = read_image([old])
        write_volume(new, volume.array[0], volume.geometry)
    predict_cases(model(), [Case("one", moved, None)], tmp_path / "out")
    np.testing.assert_array_equal(read_label(tmp_path / "out" / "one.nrrd").array[0], label)
    assert ending_of(tmp_path) == ".nii.gz" == ending_of(Path("slice.dcm"))


@pytest.mark.parametrize("direction", [IDENTITY, PERMUTED])
@pytest.mark.parametrize("limit", [10**9, 0])
def test_probabilities_lie_on_the_grid_of_the_image(make_case, tmp_path: Path, direction, limit, monkeypatch) -> None:
    monkeypatch.setattr(logits, "LOGITS_BYTES", limit)
    case, label = make_case(direction=direction)
    predict_cases(model(), [case], tmp_path, save_probabilities=True)
    found = blosc2.open(str(tmp_path / "one_probabilities.b2nd"))[:]
    assert found.shape == (3, *label.shape) and found.dtype == np.float16
    np.testing.assert_allclose(found.astype(np.float32).sum(axis=0), 1, atol=2e-3)
    np.testing.assert_array_equal(np.array([0, 3, 7])[found.argmax(axis=0)], label)
    first = read_image(case.images[:1]).array[0]
    expected = np.exp([-((first - c) ** 2) for c in range(3)])
    np.testing.assert_allclose(found, expected / expected.sum(axis=0), atol=2e-3)
    np.testing.assert_array_equal(read_label(tmp_path / "one.nii.gz").array[0], label)


def test_plans_of_different_spacing_are_averaged_as_probabilities_by_weight(make_case) -> None:
    case, label = make_case()
    coarse = plan_for()
    spacing = coarse.preprocessing.model_copy(update={"spacing": (2.0, 1.5, 1.0)})
    coarse = coarse.model_copy(update={"preprocessing": spacing})
    members = (Member(plan_for(), (Threshold(),), 0.999), Member(coarse, (Threshold(9.0),), 0.001))
    np.testing.assert_array_equal(predict_case(Model(members, CPU), case).segmentation, label)
    swapped = (Member(plan_for(), (Threshold(),), 0.001), Member(coarse, (Threshold(9.0),), 0.999))
    assert (predict_case(Model(swapped, CPU), case).segmentation == 0).all()


class Directed(nn.Module):
    """A convolution of random weights, so that what it says depends on the direction of every axis."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layer = nn.Conv3d(2, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [self.layer(x)]


@pytest.mark.parametrize("limit", [10**9, 6000])
def test_plans_whose_axes_differ_are_averaged_where_the_image_is(make_case, monkeypatch, limit) -> None:
    monkeypatch.setattr(logits, "LOGITS_BYTES", limit)
    monkeypatch.setattr(predictor, "LOGITS_BYTES", limit)
    volume = read_image(make_case(direction=PERMUTED)[0].images)
    plans = []
    for transpose, spacing, patch, axes in (
        ((2, 0, 1), (1.0, 1.0, 1.0), (8, 8, 8), (0, 2)),
        ((0, 1, 2), (4.0, 0.9, 1.2), (4, 6, 10), (1,)),
        ((1, 2, 0), (0.8, 1.1, 1.3), (5, 8, 7), (2,)),
    ):
        preprocessing = plan_for().preprocessing.model_copy(update={"transpose": transpose, "spacing": spacing})
        training = Training.model_construct(patch_size=patch, precision="fp32")
        prediction = Prediction(tile_step=0.5, mirror_axes=axes, surface_tolerance_mm=2.0)
        update = {"preprocessing": preprocessing, "training": training, "prediction": prediction}
        plans.append(plan_for().model_copy(update=update))
    members = [Member(plan, (Directed(n).eval(),), n + 1) for n, plan in enumerate(plans)]

    def probabilities(*chosen: Member) -> np.ndarray:
        found = np.full((3, *volume.geometry.shape), np.nan, dtype=np.float32)

        def keep(box, part) -> None:
            found[(slice(None), *box)] = part

        predict_volume(Model(chosen, CPU), volume, keep)
        return found

    alone = [probabilities(member) for member in members]
    assert min(np.abs(a - b).max() for a, b in zip(alone, alone[1:])) > 0.05
    for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        expected = sum((index + 1) * alone[index] for index in order) / 6
        np.testing.assert_allclose(probabilities(*(members[i] for i in order)), expected, atol=1e-5)


def test_little_memory_gives_the_same_segmentation(make_case, monkeypatch) -> None:
    case, label = make_case()
    opened: list[slice] = []
    original = logits.LogitStream

    def count(tiling, image, strip, *, window):
        opened.append(strip)
        return original(tiling, image, strip, window=window)

    monkeypatch.setattr(logits, "LogitStream", count)
    monkeypatch.setattr(logits, "LOGITS_BYTES", 6000)
    monkeypatch.setattr(predictor, "LOGITS_BYTES", 6000)
    np.testing.assert_array_equal(predict_case(model(), case).segmentation, label)
    assert len(opened) > 1


def test_an_array_is_segmented_like_a_file_and_not_changed(make_case) -> None:
    case, label = make_case(direction=PERMUTED)
    volume = read_image(case.images)
    before = volume.array.copy()
    np.testing.assert_array_equal(predict_volume(model(), volume), label)
    np.testing.assert_array_equal(volume.array, before)


def test_plans_that_cannot_segment_together_are_refused() -> None:
    one, other = plan_for(), plan_for()
    with pytest.raises(PlanError, match="differ in channels"):
        check_together([one, plan_for(channels=1)])
    check_together([one, other])


def test_postprocessing_is_applied(make_case) -> None:
    case, label = make_case()
    step = Step(region="spleen", action="remove_small", volume_ml=10**6, dice_before=0.0, dice_after=1.0)
    cleaned = Model(model().members, CPU, Postprocessing(num_cases=1, steps=(step,)))
    np.testing.assert_array_equal(predict_case(cleaned, case).segmentation, np.where(label == 7, 0, label))
