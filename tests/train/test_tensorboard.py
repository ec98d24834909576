"""TensorBoard's events, read back: numbers, pictures, the plan, and what remains of them after a resume."""

import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from autoseg.documents import to_text
from autoseg.plan.plan import Plan
from autoseg.train.examples import Examples
from autoseg.train.log import Beginning, EpochReport, make_record
from autoseg.train.tensorboard import EXAMPLES, TensorBoard, hyper_parameters

MakePlan = Callable[..., Plan]
MakeReport = Callable[..., EpochReport]
Begin = Callable[..., Beginning]


def _events(run_folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(run_folder / "events"), size_guidance={"images": 0})
    events.Reload()
    return events


def _scalars(run_folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = _events(run_folder)
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def _write(beginning: Beginning, *reports: EpochReport) -> None:
    board = TensorBoard()
    board.begin(beginning)
    for one in reports:
        board.add_epoch(one)
    board.rest()
    board.end()


def test_numbers_of_each_epoch_that_are_known(tmp_path: Path, begin: Begin, report: MakeReport) -> None:
    _write(begin(tmp_path, []), *(report(epoch, peak_host_memory_gb=1.5, energy_kj=epoch) for epoch in (1, 2)))
    assert _scalars(tmp_path) == {
        "loss/training": [(1, 1.0), (2, 0.5)],
        "loss/validation": [(1, 2.0), (2, 1.0)],
        "dice/mean": [(1, 0.5), (2, 0.5)],
        "dice/Leber, größer": [(1, 0.5), (2, 0.5)],
        "learning_rate": [(1, pytest.approx(0.01)), (2, pytest.approx(0.01))],
        "time/seconds": [(1, 3.0), (2, 3.0)],
        "time/seconds_waiting": [(1, 0.5), (2, 0.5)],
        "memory_gb/host": [(1, 1.5), (2, 1.5)],
        "energy_kj": [(1, 1.0), (2, 2.0)],
    }


def test_events_go_on_after_a_resume(tmp_path: Path, begin: Begin, report: MakeReport) -> None:
    _write(begin(tmp_path, []), *map(report, (1, 2, 3)))
    time.sleep(1.1)  # TensorBoard orders the files of a second by a counter in their names, 10 before 9
    history = [make_record(report(epoch)) for epoch in (1, 2)]
    _write(begin(tmp_path, history), *(report(epoch, train_loss=9.0) for epoch in (3, 4)))
    scalars = _scalars(tmp_path)
    assert scalars["loss/training"] == [(1, 1.0), (2, 0.5), (3, 9.0), (4, 9.0)]
    assert [step for step, _ in scalars["dice/mean"]] == [1, 2, 3, 4]


def test_events_of_a_training_that_was_killed_in_its_first_epoch(
    tmp_path: Path, begin: Begin, report: MakeReport
) -> None:
    for loss in (5.0, 6.0):
        _write(begin(tmp_path, []), report(1, train_loss=loss))
    assert _scalars(tmp_path)["loss/training"] == [(1, 6.0)]


def test_the_plan_and_the_machine_can_be_read(tmp_path: Path, begin: Begin, report: MakeReport) -> None:
    beginning = begin(tmp_path, [])
    _write(beginning, report(1))
    events = _events(tmp_path)
    for name, document in (("plan", beginning.plan), ("run", beginning.record)):
        text = events.Tensors(f"{name}/text_summary")[0].tensor_proto.string_val[0].decode()
        assert json.loads(text.removeprefix("```json\n").removesuffix("```")) == json.loads(to_text(document))


def test_runs_can_be_compared_by_their_hyper_parameters(tmp_path: Path, begin: Begin, report: MakeReport) -> None:
    _write(begin(tmp_path, []), report(1))
    found = _events(tmp_path).summary_metadata["_hparams_/session_start_info"].plugin_data.content
    values = HParamsPluginData.FromString(found).session_start_info.hparams
    assert values["training.batch_size"].number_value == 2
    assert values["training.optimizer.name"].string_value == "adamw"
    assert values["training.patch_size"].string_value == "16, 16, 16"
    assert values["training.augmentation"].string_value == "spatial, mirror"
    assert "dataset.name" not in values and "rationale" not in values


def test_hyper_parameters_of_a_plan_keep_their_kind(make_plan: MakePlan) -> None:
    values = hyper_parameters(make_plan(ema_decay=None).model_dump(mode="json"))
    assert values["training.deep_supervision"] is True and values["training.epochs"] == 4
    assert values["network.architecture"] == "unet" and values["training.loss.name"] == "dice_ce"
    assert "training.ema_decay" not in values


def test_slices_of_a_patch_stand_beside_the_epoch(tmp_path: Path, begin: Begin, report: MakeReport) -> None:
    rng = np.random.default_rng(0)
    slices = Examples(
        rng.random((3, 8, 12), np.float32), np.zeros((3, 2, 8, 12), bool), np.ones((3, 2, 8, 12), bool)
    )  # fmt: skip
    _write(begin(tmp_path, []), report(1, examples=slices), report(2), report(3, examples=slices))
    events = _events(tmp_path).Images(EXAMPLES)
    assert [event.step for event in events] == [1, 3]
    picture = Image.open(io.BytesIO(events[0].encoded_image_string))
    assert picture.width > 3 * 200 and picture.height > 3 * 100


def test_a_whole_training(make_plan: MakePlan, train: Callable[..., Path], read_metrics: Any) -> None:
    run_folder = train(make_plan(epochs=3))
    records = read_metrics(run_folder)
    scalars = _scalars(run_folder)
    assert dict(scalars["loss/training"]) == pytest.approx({r["epoch"]: r["train_loss"] for r in records})
    assert {"dice/ball", "dice/core", "learning_rate", "time/seconds"} <= scalars.keys()
    assert [event.step for event in _events(run_folder).Images(EXAMPLES)] == [1, 2, 3]
