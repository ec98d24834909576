"""What a run builds on is made and trained before it, on this machine and on a cluster."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from autoseg.data.dataset import Dataset
from autoseg.data.workspace import Workspace
from autoseg.fingerprint.fingerprint import read_fingerprint
from autoseg.launch import local, slurm
from autoseg.launch.attempt import Task
from autoseg.launch.campaign import Campaign, open_campaign
from autoseg.launch.jobs import RunJob
from autoseg.launch.local import RunEvent, run_locally
from autoseg.launch.order import find_needs, sort_by_needs
from autoseg.launch.ready import make_missing_plans
from autoseg.launch.slurm import SlurmOptions, submit_runs
from autoseg.launch.status import RunKey, last_ending
from autoseg.launch.table import Changes, expand, find_table
from autoseg.plan.plan import Plan

ROWS: list[dict[str, Any]] = [
    {"name": "longest", "from": "longer", "set": {"training.initial_weights": "longer"}},
    {"name": "second", "from": "tiny", "set": {"previous_stage": "low"}},
    {"name": "longer", "from": "tiny", "set": {"training.initial_weights": "tiny"}},
    {"name": "tiny"},
    {"name": "low", "from": "tiny", "set": {"preprocessing.downsample": 2}},
]


@pytest.fixture
def table(tmp_path: Path) -> str:
    path = tmp_path / "table.json"
    path.write_text(json.dumps({"schema": "autoseg.table.1", "plans": ROWS}))
    return str(path)


@pytest.fixture
def campaign(place: Workspace, dataset: Dataset, table: str) -> Campaign:
    return open_campaign(dataset, place, table=table, plans=(), seeds=None, changes=Changes())


def tasks_of(campaign: Campaign, folds: Sequence[int] = (0, 1)) -> list[Task]:
    ordered = campaign.order(campaign.keys(folds))
    return [campaign.task(*one, num_workers=1, num_gpus=1, logger=None) for one in ordered.items()]


def names(tasks: Sequence[Task]) -> list[str]:
    return [f"{task.key.plan}/{task.key.fold}" for task in tasks]


def make(campaign: Campaign) -> dict[str, Plan]:
    fingerprint = read_fingerprint(campaign.workspace.fingerprint("Phantom"))
    plans, _ = make_missing_plans(fingerprint, campaign.workspace, campaign.entries)
    assert [plan.name for plan in plans] == campaign.plans
    return {plan.name: plan for plan in plans}


def test_sorting_keeps_the_order_where_it_may_and_ends_in_circles() -> None:
    needs = {"a": ["c"], "b": ["unknown"], "c": ["d"], "d": []}
    assert sort_by_needs(list("abcd"), lambda name: needs[name]) == ["d", "c", "a", "b"]
    assert sort_by_needs(list("abc"), lambda name: {"a": "b", "b": "a", "c": "c"}[name]) == ["b", "a", "c"]


@pytest.mark.parametrize("made", [False, True])
def test_runs_come_after_what_they_build_on(campaign: Campaign, made: bool) -> None:
    """The same whether the plans are there already or the rows alone tell; a second stage needs all folds."""
    if made:
        make(campaign)
    tasks = tasks_of(campaign)
    assert names(tasks) == [
        "tiny/0", "longer/0", "longest/0", "low/0", "low/1", "second/0", "tiny/1", "longer/1", "longest/1", "second/1",
    ]  # fmt: skip
    needs = {str(task.key): [str(key) for key in task.needs] for task in tasks}
    assert needs["longest fold 1"] == ["longer fold 1"] and needs["tiny fold 1"] == []
    assert needs["second fold 1"] == ["low fold 0", "low fold 1"]
    assert campaign.order([RunKey("longest", 0)]) == {RunKey("longest", 0): ()}  # the others are finished


def test_rows_that_build_on_rows_keep_to_them_under_other_names(place: Workspace, table: str, dataset: Dataset) -> None:
    changes = Changes(assignments=("training.epochs=1",), suffix="x")
    needs = {entry.name: entry for entry in expand(find_table(table), changes)}
    found = find_needs(list(needs.values()), place, "Phantom")
    assert found["longest_x"].initial_weights == "longer_x" and found["second_x"].first_stage == "low_x"
    cascade = find_table(table).model_copy(update={"plans": tuple(
        find_table(table).plans[0].model_copy(update={"name": name, "base": None, "set": {}})
        for name in ("unet_cascade", "unet_lowres")
    )})  # fmt: skip
    for given, first in ((changes, "unet_lowres_x"), (Changes(), "unet_lowres")):
        entries = expand(cascade, given)
        assert find_needs(entries, place, "Phantom")[entries[0].name].first_stage == first


def test_repetitions_start_from_repetitions(place: Workspace, dataset: Dataset, table: str) -> None:
    repeated = open_campaign(dataset, place, table=table, plans=("longer", "tiny"), seeds=2, changes=Changes())
    before = find_needs(repeated.entries, place, "Phantom")
    plans = make(repeated)
    assert plans["longer"].training.initial_weights == "tiny"
    assert plans["longer_seed1"].training.initial_weights == "tiny_seed1"
    assert before == find_needs(repeated.entries, place, "Phantom")
    make(repeated)  # they agree with the table
    stages = open_campaign(dataset, place, table=table, plans=("second", "low"), seeds=2, changes=Changes())
    before = find_needs(stages.entries, place, "Phantom")
    assert make(stages)["second_seed1"].previous_stage == "low_seed1"
    assert before == find_needs(stages.entries, place, "Phantom")
    second = open_campaign(dataset, place, table=table, plans=("second",), seeds=3, changes=Changes())
    assert make(second)["second_seed2"].previous_stage == "low"
    alone = open_campaign(dataset, place, table=table, plans=("longest",), seeds=2, changes=Changes())
    assert make(alone)["longest_seed1"].training.initial_weights == "longer"


class Pretended:
    """A training that ends at once, as ``ENDINGS`` says, else well."""

    ENDINGS: dict[str, tuple[str, str]] = {}

    def __init__(self, task: Task, device: str) -> None:
        self.task, self.device = task, device

    def poll(self) -> tuple[str, str]:
        return self.ENDINGS.get(str(self.task.key), ("finished", ""))


def test_what_needs_a_run_that_failed_is_not_started(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "Attempt", Pretended)
    monkeypatch.setattr(local, "POLL_SECONDS", 0)
    monkeypatch.setattr(Pretended, "ENDINGS", {"tiny fold 0": ("refused", "a mistake"), "low fold 1": ("died", "")})
    told: list[RunEvent] = []
    tasks = tasks_of(campaign)
    run_locally(tasks, ["cpu", "cpu", "cpu"], retries=1, on_event=told.append)
    events: dict[str, list[str]] = {}
    for event in told:
        events.setdefault(str(event.key), []).append(event.kind)
    assert events["tiny fold 0"] == ["started", "failed"]
    assert events["longer fold 0"] == events["longest fold 0"] == ["skipped"]
    assert events["low fold 1"] == ["started", "retried", "started", "failed"]
    assert events["second fold 0"] == events["second fold 1"] == ["skipped"]
    assert events["longest fold 1"] == ["started", "finished"]
    order = [f"{event.kind} {event.key}" for event in told]
    for first, then in (("tiny", "longer"), ("longer", "longest")):
        assert order.index(f"finished {first} fold 1") < order.index(f"started {then} fold 1")
    folder = campaign.workspace.fold("Phantom", "longest", 0)
    assert last_ending(folder) == "not started: it needs longer fold 0, which failed"


def test_on_a_cluster_they_wait_for_the_jobs_of_those(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    submitted: list[tuple[list[str], list[str], list[str]]] = []

    def submit(jobs: Sequence[RunJob], options: Any, folder: Path, *, after: list[str], over: list[str]) -> list[str]:
        submitted.append((names([job.task for job in jobs]), after, over))
        return [f"{len(submitted)}_{index}" for index in range(len(jobs))]

    monkeypatch.setattr(slurm, "submit_jobs", submit)
    options = SlurmOptions(partition=None, num_gpus=0, num_cpus=1, minutes=9, array_parallelism=9)
    tasks = [task for task in tasks_of(campaign) if task.key != RunKey("tiny", 1)]
    queued = {RunKey("tiny", 1): "7_3"}
    arrays = submit_runs(tasks, options, campaign.jobs_folder, retries=0, after=["5"], queued=queued)
    assert arrays == ["1", "2", "3"]
    assert submitted == [
        (["tiny/0", "low/0", "low/1"], ["5"], []),
        (["longer/0", "second/0", "longer/1", "second/1"], ["5"], ["1_0", "1_1", "1_2", "7_3"]),
        (["longest/0", "longest/1"], ["5"], ["2_0", "2_2"]),
    ]


@pytest.mark.parametrize(
    ("after", "over", "wanted"),
    [(["1"], ["2_0", "3"], "afterok:1,afterany:2_0:3"), ([], ["4"], "afterany:4"), (["4"], [], "afterok:4")],
)
def test_dependencies_in_slurms_words(after: list[str], over: list[str], wanted: str, tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    options = SlurmOptions(partition=None, num_gpus=0, num_cpus=1, minutes=9, array_parallelism=9)
    try:
        executor = slurm._make_executor(options, tmp_path, after, over, "name")
    except RuntimeError as error:
        pytest.skip(str(error))  # submitit looks for srun
    assert executor.parameters["additional_parameters"]["dependency"] == wanted
