"""Learning a postprocessing on validation cases: a step is kept only where it helps, and hurts no region."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoseg.data.cases import Case
from autoseg.data.labels import IGNORED_CLASS, Labels
from autoseg.data.parallel import map_cases
from autoseg.data.volumes import align, read_label
from autoseg.evaluate.metrics import dice
from autoseg.predict.postprocess import Postprocessing, Step, postprocess

VOLUMES_ML = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Smallest volumes of a component that are tried."""
LEAST_GAIN = 1e-4
"""A gain in a region's mean Dice below this is no help."""

Scores = dict[str, float]
Segmented = tuple[Case, Path]


@dataclass(frozen=True)
class _Candidate:
    region: str
    action: str
    volume_ml: float | None

    def step(self, before: float = 0.0, after: float = 0.0) -> Step:
        return Step.model_validate(
            {"region": self.region, "action": self.action, "volume_ml": self.volume_ml,
             "dice_before": before, "dice_after": after}
        )  # fmt: skip


def learn_postprocessing(
    segmented: Sequence[Segmented],
    labels: Labels,
    *,
    num_workers: int = 1,
    on_region: Callable[[str], None] | None = None,
) -> Postprocessing:
    """Learn which steps help, region after region, on cases with a label and a segmentation.

    For each region the step that gains most is kept if the region's mean Dice rises and no other region's falls; then
    another is looked for, until none helps. A region that is neither there nor predicted counts as 1 here: nothing was
    to be found, and nothing was.

    Args:
        segmented: cases and the segmentation of each.
        labels: label scheme.
        num_workers: threads.
        on_region: told the name of each finished region.
    """
    steps: list[Step] = []
    for region in labels.regions:
        while step := _best_step(region, steps, segmented, labels, num_workers):
            steps.append(step)
        if on_region:
            on_region(region)
    return Postprocessing(num_cases=len(segmented), steps=tuple(steps))


def _best_step(
    region: str, steps: Sequence[Step], segmented: Sequence[Segmented], labels: Labels, num_workers: int
) -> Step | None:
    done = {(step.region, step.action) for step in steps}
    candidates = [c for c in _candidates(region) if (region, c.action) not in done]
    if not candidates:
        return None
    tried = [tuple(steps), *((*steps, candidate.step()) for candidate in candidates)]
    rows = map_cases(lambda pair: _score(pair, tried, labels), segmented, num_workers=num_workers)
    before, *after = [
        {name: float(np.mean([row[index][name] for row in rows])) for name in labels.regions}
        for index in range(len(tried))
    ]
    helping = [
        (means[region], candidate)
        for means, candidate in zip(after, candidates)
        if means[region] >= before[region] + LEAST_GAIN and all(means[n] >= before[n] for n in labels.regions)
    ]
    if not helping:
        return None
    best, chosen = max(helping, key=lambda pair: pair[0])
    return chosen.step(before[region], best)


def _candidates(region: str) -> list[_Candidate]:
    whole = [_Candidate(region, action, None) for action in ("keep_largest", "fill_holes")]
    return [*whole, *(_Candidate(region, "remove_small", volume) for volume in VOLUMES_ML)]


def _score(pair: Segmented, tried: Sequence[tuple[Step, ...]], labels: Labels) -> list[Scores]:
    """Return each region's Dice after each sequence of steps."""
    case, path = pair
    if case.label is None:
        raise ValueError(f"case {case.name} has no label to learn from")
    reference, found = read_label(case.label), read_label(path)
    found = align(found, reference.geometry, path, case.label)
    truth = labels.encode(reference.array[0], str(case.label))
    scores = []
    for steps in tried:
        values = postprocess(found.array[0], steps, labels, reference.geometry.spacing)
        classes = labels.encode(values, str(path))
        classes[truth == IGNORED_CLASS] = IGNORED_CLASS
        members = zip(labels.regions, labels.membership())
        masks = {n: [np.isin(c, np.flatnonzero(m)) for c in (truth, classes)] for n, m in members}
        dices = {name: dice(*both) for name, both in masks.items()}
        scores.append({name: 1.0 if value is None else value for name, value in dices.items()})
    return scores
