"""The best plan and the best pair of plans by cross-validated Dice, and what to do to their segmentations.

This is what ``autoseg_compare --best`` does. Everything it computes stands below results/<Dataset>/pairs, so that the
same command goes on from there.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field

import autoseg
from autoseg.data.dataset import Case, Dataset
from autoseg.data.labels import Labels
from autoseg.data.workspace import Workspace
from autoseg.documents import Document, read_document, write_document
from autoseg.errors import WorkspaceError
from autoseg.evaluate.evaluate import Metrics, evaluate_folder
from autoseg.launch.first_stage import stored_previous
from autoseg.launch.fold import open_networks
from autoseg.launch.inference import (
    ensemble_weights,
    mean_dice,
    pair_folder,
    postprocessing_path,
    results_of,
)
from autoseg.launch.learn import learn_postprocessing
from autoseg.plan.plan import Plan
from autoseg.predict.model import Member, Model, check_together
from autoseg.predict.predictor import predict_combinations

BEST_FILE = "best.json"
ENDING = ".nii.gz"

OnStep = Callable[..., None]


class Candidate(Document):
    """A plan, or plans together, with the Dice on the validation cases that all plans have.

    Attributes:
        plans: their names.
        weights: of their probabilities.
        dice: mean over the regions of the mean over the cases.
        postprocessed_dice: the same after what was learnt; null where nothing was.
    """

    plans: tuple[str, ...]
    weights: tuple[float, ...]
    dice: float
    postprocessed_dice: float | None = None


class Best(Document):
    """best.json: the choice, and what it was made among. Validation cases chose it, so its score flatters a little."""

    schema_: Literal["autoseg.best.1"] = Field(default="autoseg.best.1", alias="schema")
    autoseg: str
    dataset: str
    num_cases: int
    folds: tuple[int, ...]
    singles: tuple[Candidate, ...]
    pairs: tuple[Candidate, ...]
    chosen: Candidate


@dataclass(frozen=True)
class Contest:
    """Plans that were validated on the same folds.

    Attributes:
        dataset: with the reference labels.
        workspace: where the results are.
        plans: names, two at least for a pair.
        metrics: fold to plan to the scores.
    """

    dataset: Dataset
    workspace: Workspace
    plans: tuple[str, ...]
    metrics: dict[int, dict[str, Metrics]]

    @property
    def labels(self) -> Labels:
        """The labels that the plans were trained on; a dataset of plain folders declares none itself."""
        run = self.workspace.fold(self.dataset.name, self.plans[0], next(iter(self.metrics)))
        return read_document(run / "plan.json", Plan).dataset.label_scheme

    @property
    def cases(self) -> tuple[Case, ...]:
        """All validation cases of the folds."""
        return tuple(case for fold in self.metrics for case in self.cases_of(fold))

    def cases_of(self, fold: int) -> tuple[Case, ...]:
        """Return the validation cases of a fold that all plans have scores for."""
        names = set.intersection(*(set(metrics.cases) for metrics in self.metrics[fold].values()))
        return tuple(case for case in self.dataset.cases if case.name in names)


def open_contest(workspace: Workspace, dataset: Dataset, plans: Sequence[str] = ()) -> Contest:
    """Find the folds that all plans have scores for; without ``plans`` all that have any take part.

    Raises:
        WorkspaceError: no plan has scores, or the plans have no fold in common.
    """
    results = results_of(workspace, dataset.name)
    found = {p.parents[2].name for p in results.glob("*/fold_*/validation/metrics.json")}
    names = tuple(dict.fromkeys(plans)) or tuple(sorted(found))
    if missing := [name for name in names if name not in found]:
        raise WorkspaceError(f"-a {missing[0]}: has no scored fold in {results}; plans with scores: {sorted(found)}")
    if not names:
        raise WorkspaceError(f"{results}: no scored fold of any plan; train one with autoseg_train -d {dataset.name}")
    folds = [_scored_folds(results / name) for name in names]
    common = sorted(set.intersection(*map(set, folds)))
    if not common:
        known = "; ".join(f"{name} has {sorted(one)}" for name, one in zip(names, folds))
        raise WorkspaceError(f"{results}: the plans have no scored fold in common ({known}); train the missing ones")
    metrics = {fold: {name: one[fold] for name, one in zip(names, folds)} for fold in common}
    return Contest(dataset, workspace, names, metrics)


def choose_best(contest: Contest, *, device: torch.device, num_workers: int = 1, on_case: OnStep | None = None) -> Best:
    """Score every pair of plans, learn the postprocessing of the best plan and the best pair, and write best.json.

    The validation cases are segmented once with each plan, by the networks that did not see them.
    """
    singles = sorted((_single(contest, name) for name in contest.plans), key=lambda c: -c.dice)
    pairs = sorted(_pairs(contest, device, num_workers, on_case), key=lambda c: -c.dice)
    finalists = [_learn(contest, candidate, num_workers) for candidate in (*singles[:1], *pairs[:1])]
    chosen = max(finalists, key=lambda c: c.dice if c.postprocessed_dice is None else c.postprocessed_dice)
    best = Best(
        autoseg=autoseg.__version__,
        dataset=contest.dataset.name,
        num_cases=len(contest.cases),
        folds=tuple(contest.metrics),
        singles=(*(c for c in finalists if len(c.plans) == 1), *singles[1:]),
        pairs=(*(c for c in finalists if len(c.plans) == 2), *pairs[1:]),
        chosen=chosen,
    )
    write_document(results_of(contest.workspace, contest.dataset.name) / BEST_FILE, best)
    return best


def _scored_folds(folder: Path) -> dict[int, Metrics]:
    paths = folder.glob("fold_*/validation/metrics.json")
    return {int(p.parents[1].name.removeprefix("fold_")): read_document(p, Metrics) for p in paths}


def _single(contest: Contest, plan: str) -> Candidate:
    scores = [
        {case.name: contest.metrics[fold][plan].cases[case.name] for case in contest.cases_of(fold)}
        for fold in contest.metrics
    ]
    return Candidate(plans=(plan,), weights=(1.0,), dice=mean_dice(scores) or 0.0)


def _pairs(contest: Contest, device: torch.device, num_workers: int, on_case: OnStep | None) -> list[Candidate]:
    combinations = list(itertools.combinations(range(len(contest.plans)), 2))
    if not combinations:
        return []
    for fold in contest.metrics:
        _segment_pairs(contest, fold, combinations, device, on_case)
    found = []
    for pair in combinations:
        names = tuple(contest.plans[index] for index in pair)
        folder = pair_folder(contest.workspace, contest.dataset.name, names) / "validation"
        metrics = evaluate_folder(
            contest.cases, folder, contest.labels,
            tolerance_mm=_tolerance(contest), lesions=contest.dataset.lesions, num_workers=num_workers,
        )  # fmt: skip
        write_document(folder / "metrics.json", metrics)
        weights = ensemble_weights(contest.workspace, contest.dataset.name, names)
        found.append(Candidate(plans=names, weights=tuple(weights), dice=mean_dice([metrics.cases]) or 0.0))
    return found


def _segment_pairs(
    contest: Contest, fold: int, combinations: Sequence[tuple[int, ...]], device: torch.device, on_case: OnStep | None
) -> None:
    """Write the segmentation of each validation case of a fold by each pair.

    Those that stand already are kept, unless a plan has changed since.
    """
    name = contest.dataset.name
    weights = ensemble_weights(contest.workspace, name, contest.plans)
    opened = [open_networks(contest.workspace, name, plan, [fold], device) for plan in contest.plans]
    check_together([plan for plan, _ in opened])
    stored = [stored_previous(contest.workspace, p, contest.workspace.fold(name, p.name, fold)) for p, _ in opened]
    model = Model(tuple(Member(p, tuple(n), w, s) for (p, n), w, s in zip(opened, weights, stored)), device)
    pairs = [[contest.plans[index] for index in pair] for pair in combinations]
    folders = [pair_folder(contest.workspace, name, pair) / "validation" for pair in pairs]
    newest = max(path.stat().st_mtime for plan in contest.plans for path in _sources(contest, plan))
    for case in contest.cases_of(fold):
        targets = [folder / f"{case.name}{ENDING}" for folder in folders]
        if not all(path.is_file() and path.stat().st_mtime >= newest for path in targets):
            predict_combinations(model, combinations, case, targets)
        if on_case:
            on_case(case.name)


def _sources(contest: Contest, plan: str) -> list[Path]:
    """Return the files that a pair's segmentations depend on: networks, and the scores that give the weights."""
    folder = results_of(contest.workspace, contest.dataset.name) / plan
    return [*folder.glob("fold_*/checkpoints/last.pt"), *folder.glob("fold_*/validation/metrics.json")]


def _learn(contest: Contest, candidate: Candidate, num_workers: int) -> Candidate:
    """Learn and write a candidate's postprocessing, and return the candidate with its Dice after it."""
    name, labels = contest.dataset.name, contest.labels
    segmented = [
        (case, _validation_folder(contest, candidate, fold) / f"{case.name}{ENDING}")
        for fold in contest.metrics
        for case in contest.cases_of(fold)
    ]
    learnt = learn_postprocessing(segmented, labels, num_workers=num_workers)
    write_document(postprocessing_path(contest.workspace, name, candidate.plans), learnt)
    if not learnt.steps:
        return candidate
    gain = sum(step.dice_after - step.dice_before for step in learnt.steps) / len(labels.regions)
    return candidate.model_copy(update={"postprocessed_dice": candidate.dice + gain})


def _validation_folder(contest: Contest, candidate: Candidate, fold: int) -> Path:
    if len(candidate.plans) == 1:
        return contest.workspace.fold(contest.dataset.name, candidate.plans[0], fold) / "validation"
    return pair_folder(contest.workspace, contest.dataset.name, candidate.plans) / "validation"


def _tolerance(contest: Contest) -> float:
    return next(iter(next(iter(contest.metrics.values())).values())).about.surface_tolerance_mm
