"""The search with a cheap objective in the place of trainings: samplers, pruners, workers, failures, interruptions."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

optuna = pytest.importorskip("optuna", reason="the extra 'tune' is not installed")
pytest.importorskip("cmaes", reason="the extra 'tune' is not installed")

from autoseg.errors import PlanError, TrainingError, WorkspaceError  # noqa: E402
from autoseg.launch import search as module  # noqa: E402
from autoseg.launch.search import SearchEvent, run_search  # noqa: E402
from autoseg.launch.trial import Judgement, TooLarge  # noqa: E402
from autoseg.plan.plan import Plan, read_plan  # noqa: E402
from autoseg.tune.outcome import choose_best, gather_results, make_tuned_plan, pareto_front, pick  # noqa: E402
from autoseg.tune.report import render_page  # noqa: E402
from autoseg.tune.samplers import SAMPLERS, check_sampler, choose_pruner, make_pruner  # noqa: E402
from autoseg.tune.space import Parameter, Space, own_values  # noqa: E402
from autoseg.tune.study import Search, Settings, claim_trial, open_study  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 9
SPACE = Space(
    parameters={
        "learning_rate_factor": Parameter(low=0.1, high=10.0, log=True),
        "augmentation_strength": Parameter(low=0.0, high=2.0),
        "training.loss.name": Parameter(choices=("dice_ce", "focal")),
    }
)
GRID = Space(
    parameters={"extra_blocks": Parameter(low=0, high=2), "training.loss.name": Parameter(choices=("dice_ce", "focal"))}
)
Make = Callable[..., Search]


@pytest.fixture
def unet() -> Plan:
    return read_plan(ROOT / "plans" / "Hippocampus" / "unet.json")


@pytest.fixture
def make_search(tmp_path: Path, unet: Plan) -> Make:
    """Return a function that opens a study of ``unet``."""

    def make(space: Space = SPACE, sampler: Any = "random", pruner: Any = None, seed: int = 0, **more: Any) -> Search:
        settings = Settings(
            dataset="D", plan="unet", plan_sha256="0", fold=0, epochs=EPOCHS, score="patches",
            timed=sampler == "nsga2", space=space,
        )  # fmt: skip
        made, folder = make_pruner(choose_pruner(sampler, pruner), EPOCHS), tmp_path / "study"
        study = open_study(folder, "study", settings, storage=more.get("storage"), pruner=made)
        return Search(study, folder, settings, own_values(unet, space), sampler, seed)

    return make


def _dice(values: dict[str, Any]) -> float:
    """Return a Dice that is best, 0.9, at a learning rate three times the plan's and an augmentation of 1.5."""
    far = abs(values.get("learning_rate_factor", 3.0) - 3.0) / 10 + abs(values.get("augmentation_strength", 1.5) - 1.5)
    return 0.9 - 0.3 * far - 0.1 * (values.get("training.loss.name") == "focal")


def _train(bench: Any, claim: Any, *, on_epoch: Any, on_event: Any) -> Judgement:
    dice = _dice(claim.values)
    for epoch in range(1, EPOCHS + 1):
        on_epoch(epoch, dice * epoch / EPOCHS)
    return Judgement(dice, 10.0 * (1.1 - dice) + claim.values.get("extra_blocks", 0))


def _run(search: Search, trials: int, monkeypatch: pytest.MonkeyPatch, train: Any = _train) -> list[SearchEvent]:
    monkeypatch.setattr(module, "run_trial", train)
    monkeypatch.setattr(module, "remove_checkpoints", lambda folder: None)
    events: list[SearchEvent] = []
    run_search(search, None, trials, tell=events.append)  # type: ignore[arg-type]
    return events


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "grid"])
def test_a_sampler_begins_with_the_plan_and_finds_better(
    make_search: Make, monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    search = make_search(sampler=sampler, pruner="none")
    _run(search, 25, monkeypatch)
    results = gather_results(search)
    assert [one.number for one in results] == list(range(25)) and {one.state for one in results} == {"complete"}
    assert results[0].own and results[0].values == search.own and not any(one.own for one in results[1:])
    best = choose_best(results)
    assert best is not None and (best.dice or 0) > (results[0].dice or 0)
    assert best.dice == max(_dice(one.values) for one in results)
    assert len({one.values["learning_rate_factor"] for one in results}) >= (10 if sampler == "nsga2" else 25)


def test_tpe_gets_closer_than_chance(make_search: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    search = make_search(sampler="tpe", pruner="none")
    _run(search, 45, monkeypatch)
    results = gather_results(search)
    late, early = results[30:], results[1:15]
    assert sum(one.dice or 0 for one in late) / len(late) > sum(one.dice or 0 for one in early) / len(early) + 0.05


def test_a_grid_tries_everything_once_and_ends(make_search: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    search = make_search(GRID, sampler="grid", pruner="none")
    _run(search, 100, monkeypatch)
    tried = [tuple(one.values.values()) for one in gather_results(search)]
    assert tried[0] == (0, "dice_ce") and len(tried) == 6
    assert set(tried) == {(blocks, loss) for blocks in (0, 1, 2) for loss in ("dice_ce", "focal")}


def test_two_objectives_give_a_front(make_search: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(bench: Any, claim: Any, **more: Any) -> Judgement:
        factor = claim.values["learning_rate_factor"]
        return Judgement(min(factor / 10, 1.0), factor)  # the better, the slower

    search = make_search(sampler="nsga2")
    _run(search, 12, monkeypatch, train)
    results = gather_results(search)
    front = pareto_front(results)
    expected = {tuple(trial.values) for trial in search.study.best_trials}  # of equal trials, the front has the first
    assert {(one.dice, one.seconds) for one in front} == expected and len(front) >= 10
    assert pick(results, 3) is results[3]


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_a_pruner_stops_the_hopeless_and_never_the_plan_itself(
    make_search: Make, monkeypatch: pytest.MonkeyPatch, pruner: str
) -> None:
    def train(bench: Any, claim: Any, *, on_epoch: Any, on_event: Any) -> Judgement:
        dice = 0.01 if claim.is_own else 0.9 / (1 + claim.number % 7)
        for epoch in range(1, EPOCHS + 1):
            on_epoch(epoch, dice)
        return Judgement(dice, 1.0)

    search = make_search(pruner=pruner)
    events = _run(search, 30, monkeypatch, train)
    results = gather_results(search)
    stopped = [one for one in results if one.state == "pruned"]
    assert results[0].state == "complete" and stopped and len(stopped) < 25
    assert all("after epoch" in one.reason for one in stopped)
    assert sum(event.kind == "pruned" for event in events) == len(stopped)


def test_no_pruner_stops_nothing(make_search: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    search = make_search(pruner="none")
    _run(search, 15, monkeypatch)
    assert {one.state for one in gather_results(search)} == {"complete"}


def test_failures_are_recorded_and_the_study_goes_on(make_search: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    endings = {1: TrainingError("the loss is\nnan"), 2: TooLarge("needs 99 GB"), 4: TrainingError("out of memory")}

    def train(bench: Any, claim: Any, **more: Any) -> Judgement:
        if claim.number in endings:
            raise endings[claim.number]
        return _train(bench, claim, **more)

    search = make_search(pruner="none")
    _run(search, 6, monkeypatch, train)
    results = gather_results(search)
    assert [one.state for one in results] == ["complete", "failed", "too large", "complete", "failed", "complete"]
    assert [results[number].reason for number in endings] == ["the loss is nan", "needs 99 GB", "out of memory"]
    with pytest.raises(PlanError, match="--take 1"):
        pick(results, 1)


def test_a_bug_is_recorded_and_shown(make_search: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(*_: Any, **more: Any) -> Judgement:
        raise ZeroDivisionError("a bug")

    search = make_search()
    with pytest.raises(ZeroDivisionError):
        _run(search, 3, monkeypatch, train)
    assert [(one.state, one.reason) for one in gather_results(search)] == [("failed", "ZeroDivisionError: a bug")]


def test_the_same_values_are_not_trained_twice(make_search: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    search = make_search(GRID, sampler="random", pruner="none")
    events = _run(search, 20, monkeypatch)
    trained = [event for event in events if event.kind == "complete"]
    again = [event for event in events if event.kind == "same"]
    assert len(trained) <= 6 and len(trained) + len(again) == 20
    assert all(event.judgement is not None and event.judgement.dice == _dice(event.claim.values) for event in again)


def test_an_interrupted_trial_goes_on_and_counts_once(make_search: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(bench: Any, claim: Any, *, on_epoch: Any, on_event: Any) -> Judgement:
        if claim.number == 2:
            on_epoch(1, 0.4)
            raise KeyboardInterrupt
        return _train(bench, claim, on_epoch=on_epoch, on_event=on_event)

    search = make_search(pruner="none")
    with pytest.raises(KeyboardInterrupt):
        _run(search, 5, monkeypatch, interrupted)
    before = gather_results(search)
    assert [one.state for one in before] == ["complete", "complete", "running"]
    events = _run(make_search(pruner="none"), 5, monkeypatch)
    after = gather_results(search)
    assert events[0].kind == "resumed" and events[0].claim.number == 2
    assert after[2].values == before[2].values and [one.state for one in after] == ["complete"] * 5
    assert search.study.trials[2].intermediate_values[1] == 0.4
    whole = [one.values for one in after]
    other = make_search(pruner="none", storage="journal:" + str(search.folder / "other.log"))
    _run(other, 5, monkeypatch)
    assert [one.values for one in gather_results(other)] == whole  # as if nothing had happened


def test_a_trial_of_a_living_worker_is_left_alone(make_search: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = make_search(pruner="none"), make_search(pruner="none", seed=9)
    with claim_trial(first, 3) as held:
        assert held is not None and held.number == 0
        events = _run(second, 3, monkeypatch)
        assert [event.claim.number for event in events if event.kind == "began"] == [1, 2]
    assert [one.state for one in gather_results(first)] == ["running", "complete", "complete"]
    assert _run(second, 3, monkeypatch)[0].kind == "resumed"  # its worker has gone without an end


def test_a_trial_that_kills_its_workers_is_given_up(make_search: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    search = make_search(pruner="none")
    for _ in range(3):
        with claim_trial(search, 1) as claim:
            assert claim is not None and claim.number == 0  # and dies
    assert _run(search, 1, monkeypatch) == []
    [one] = gather_results(search)
    assert one.state == "failed" and "died 3 times" in one.reason


def test_a_study_is_gone_on_with_as_it_was_begun(make_search: Make, tmp_path: Path) -> None:
    make_search()
    with pytest.raises(PlanError, match="--space differs.*--study"):
        make_search(GRID)
    with pytest.raises(WorkspaceError, match="cannot be opened"):
        make_search(storage="sqlite:////nowhere/at/all.db")
    with pytest.raises(WorkspaceError, match="allowed are a URL"):
        make_search(storage="nonsense")


@pytest.mark.parametrize(("driver", "package"), [("psycopg", "'psycopg[binary]'"), ("psycopg2", "psycopg2-binary")])
def test_a_database_without_its_driver_is_refused_in_one_line(
    make_search: Make, monkeypatch: pytest.MonkeyPatch, driver: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, driver, None)  # as where it is not installed
    with pytest.raises(WorkspaceError) as caught:
        make_search(storage=f"postgresql+{driver}://me:secret@localhost:5432/studies")
    told = str(caught.value)
    assert f"driver {driver} is not installed; run pip install {package}" in told and "\n" not in told
    assert "postgresql" in told and "me:***@localhost:5432" in told and "secret" not in told


def test_what_cannot_be_searched_is_refused_first() -> None:
    with pytest.raises(PlanError, match="learning_rate_factor can be any number"):
        check_sampler("grid", SPACE)
    with pytest.raises(PlanError, match="two at least"):
        check_sampler("cmaes", GRID)
    many = Space(parameters={f"k{n}": Parameter(low=1, high=100) for n in range(4)})
    with pytest.raises(PlanError, match="100,000,000 combinations"):
        check_sampler("grid", many)
    with pytest.raises(PlanError, match="two objectives"):
        choose_pruner("nsga2", "median")


def test_the_best_becomes_a_plan_with_its_story(make_search: Make, unet: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    search = make_search(pruner="none")
    _run(search, 8, monkeypatch)
    results = gather_results(search)
    best = choose_best(results)
    assert best is not None and not best.own
    tuned = make_tuned_plan(search, unet, best, results, "unet_tuned")
    assert tuned.name == "unet_tuned" and tuned.training.epochs == unet.training.epochs
    rate = unet.training.optimizer.learning_rate * best.values["learning_rate_factor"]
    assert tuned.training.optimizer.learning_rate == pytest.approx(rate, rel=1e-3)
    story = tuned.rationale["name"]
    assert f"{best.dice:.4f} against {results[0].dice:.4f}" in story and f"{EPOCHS} epochs" in story
    assert tuned.rationale["training.optimizer.learning_rate"].startswith("learning_rate was set to")
    assert "by autoseg_tune" in tuned.rationale["training.optimizer.learning_rate"]
    assert "by hand" not in json.dumps(tuned.rationale)


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
@pytest.mark.parametrize("trials", [0, 1, 8])
def test_the_report_is_one_file_that_loads_nothing(
    make_search: Make, unet: Plan, monkeypatch: pytest.MonkeyPatch, sampler: str, trials: int
) -> None:
    search = make_search(sampler=sampler)
    _run(search, trials, monkeypatch)
    results = gather_results(search)
    page = render_page(search, unet, results, choose_best(results), "A <headline>.")
    text = page.replace(page[page.index("<script>") : page.index("</head>")], "")
    assert "src=" not in text and "A &lt;headline&gt;." in text
    for title in ("History", "Importances", "Parallel coordinates", "Dice against time"):
        assert f"<h2>{title}</h2>" in text
    assert text.count("Plotly.newPlot") == {0: 2, 1: 3, 8: 5}[trials] - (sampler == "nsga2")
