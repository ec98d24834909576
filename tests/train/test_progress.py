"""progress.png: the right curves, round ticks, and a picture whatever the numbers are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from autoseg.plan.plan import Plan
from autoseg.train.chart import LEFT, SCALE, TOP, Chart, Line, draw_charts, find_ticks, format_tick
from autoseg.train.log import Beginning, EpochReport, make_record
from autoseg.train.progress import ProgressPicture, make_charts, write_progress

MakeReport = Callable[..., EpochReport]
RED = (255, 0, 0)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (-0.93, 0.4, [-0.75, -0.5, -0.25, 0, 0.25]), (0, 1e-3, None), (3, 4e6, None)],
)
def test_ticks_are_few_and_round(low: float, high: float, expected: list[float] | None) -> None:
    ticks = find_ticks(low, high, 5)
    assert 3 <= len(ticks) <= 8 and low - 1e-9 <= ticks[0] and ticks[-1] <= high + 1e-9
    assert all(len(format_tick(tick)) <= 7 for tick in ticks)
    if expected is not None:
        assert ticks == pytest.approx(expected)


def test_ticks_are_short() -> None:
    assert [format_tick(value) for value in (0.1 + 0.2, 0.0, -0.25, 12500.0, 2e-5, 3e7)] == [
        "0.3", "0", "-0.25", "12500", "2e-5", "3e7",
    ]  # fmt: skip


def test_a_curve_runs_through_its_values_and_stops_where_there_are_none() -> None:
    line = Line("a", [0.0, 1.0, None, None, 0.5], RED)
    pixels = np.array(draw_charts("", [Chart("c", [line], 1, (0.0, 1.0))], columns=1))
    red = (pixels == RED).all(axis=2)
    red[: SCALE * (34 + TOP - 8)] = False  # the legend
    columns = np.flatnonzero(red.any(axis=0)) / SCALE
    left, right = LEFT, pixels.shape[1] / SCALE - 14
    quarter = (right - left) / 4
    assert columns.min() == pytest.approx(left, abs=4) and columns.max() == pytest.approx(right, abs=4)
    between = (columns > left + quarter + 5) & (columns < left + 4 * quarter - 5)
    assert not between.any()
    first, second = (np.flatnonzero(red[:, int(SCALE * x)]) for x in (left, left + quarter))
    assert first.min() > second.max()  # 0 lies lower than 1


def test_the_charts_hold_the_records(report: MakeReport) -> None:
    reports = [report(epoch, validation_dice={"a": 0.2, "b": None if epoch == 3 else 0.4}) for epoch in (3, 4)]
    charts = make_charts([make_record(one) for one in reports])
    lines = {chart.title: {line.name: list(line.values) for line in chart.lines} for chart in charts}
    assert {chart.first for chart in charts} == {3}
    assert lines["Loss"] == {"training": [1 / 3, 1 / 4], "validation": [2 / 3, 2 / 4]}
    assert lines["Pseudo Dice of the validation patches"] == {
        "mean": [0.2, pytest.approx(0.3)],
        "a": [0.2, 0.2],
        "b": [None, 0.4],
    }
    assert lines["Seconds"] == {"whole epoch": [3.0, 3.0], "waiting for data": [0.5, 0.5]}
    assert list(lines["Learning rate"].values()) == [[0.01, 0.01]]


@pytest.mark.parametrize(
    "changes",
    [{}, {"validation_loss": None, "validation_dice": {}}, {"train_loss": 0.0, "seconds": 0.0, "learning_rate": 0.0}],
    ids=["as usual", "without validation", "all zero"],
)
@pytest.mark.parametrize("count", [1, 2, 70])
def test_a_picture_whatever_the_numbers(
    tmp_path: Path, report: MakeReport, changes: dict[str, Any], count: int
) -> None:
    write_progress(tmp_path, "unet", 100, [make_record(report(epoch, **changes)) for epoch in range(1, count + 1)])
    with Image.open(tmp_path / "progress.png") as picture:
        assert picture.format == "PNG" and picture.width > 1000
    assert [path.name for path in tmp_path.iterdir()] == ["progress.png"]


def test_many_classes_with_long_names_do_not_run_out_of_the_picture(tmp_path: Path, report: MakeReport) -> None:
    dice = {f"the region number {index} of the body": 0.5 for index in range(60)}
    write_progress(tmp_path, "unet", 5, [make_record(report(1, validation_dice=dice))])
    with Image.open(tmp_path / "progress.png") as picture:
        rim = np.array(picture)[:, -3 * SCALE :]
    assert (rim == 255).all()


def test_the_picture_of_a_training_goes_on_after_a_resume(
    begin: Callable[..., Beginning], tmp_path: Path, report: MakeReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[int]] = []
    monkeypatch.setattr(
        "autoseg.train.progress.write_progress",
        lambda folder, name, epochs, records: drawn.append([record["epoch"] for record in records]),
    )
    picture = ProgressPicture()
    picture.begin(begin(tmp_path, []))
    picture.rest()
    assert drawn == []
    picture.begin(begin(tmp_path, [make_record(report(1))]))
    picture.add_epoch(report(2))
    picture.add_epoch(report(3))
    picture.rest()
    assert drawn == [[1, 2, 3]]


def test_a_training_leaves_its_picture(make_plan: Callable[..., Plan], train: Callable[..., Path]) -> None:
    with Image.open(train(make_plan(epochs=2)) / "progress.png") as picture:
        assert len(picture.getcolors(1 << 24) or []) > 10
