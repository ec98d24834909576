"""summary.json: the numbers of the report as documents. ``measure`` computes them."""

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from autoseg.compare.ranking import RuleRanking
from autoseg.compare.statistics import Description, Difference, Verdict
from autoseg.documents import Document

FOREGROUND = "mean of regions"
PRIMARY = "dice"
VOLUME = "reference_volume_ml"
MARGIN = 0.01
Fold = int | str


@dataclass(frozen=True)
class Metric:
    """How a metric is shown and judged; a difference up to ``margin`` does not matter, None where nobody can say so."""

    title: str
    unit: str
    higher_is_better: bool
    margin: float | None
    definition: str


METRICS = {
    "dice": Metric(
        "Dice", "", True, MARGIN,
        "Twice the common voxels over the voxels of both segmentations; undefined if both are empty",
    ),
    "surface_dice": Metric(
        "Surface Dice", "", True, MARGIN,
        "The part of both surfaces that lies within the tolerance of the other (Nikolov et al., 2018); "
        "0 if one is empty, undefined if both are",
    ),
    "hausdorff_95": Metric(
        "Hausdorff distance, 95 %", "mm", False, None,
        "The larger of the two 95th percentiles of the distances between the surfaces, weighted by area; "
        "the image's diagonal if one is empty, undefined if both are",
    ),
    "average_surface_distance": Metric(
        "Average surface distance", "mm", False, None,
        "Mean distance between the surfaces over the area of both; "
        "the image's diagonal if one is empty, undefined if both are",
    ),
    "lesion_f1_10": Metric(
        "Lesion F1, overlap 0.1", "", True, MARGIN,
        "Of lesions (connected components) that match at an intersection over union of at least 0.1: was it seen?",
    ),
    "lesion_f1_50": Metric(
        "Lesion F1, overlap 0.5", "", True, MARGIN,
        "Of lesions (connected components) that match at an intersection over union of at least 0.5: how well?",
    ),
    "sensitivity": Metric("Sensitivity", "", True, MARGIN, "The part of the reference's voxels that was found"),
    "precision": Metric("Precision", "", True, MARGIN, "The part of the segmented voxels that is in the reference"),
}  # fmt: skip
MAIN_METRICS = ("dice", "surface_dice", "hausdorff_95")
"""What tables for papers and terminals hold, and what the page shows without being asked."""


MemoryKind = Literal["device", "host", "predicted"]


class Cost(Document):
    """What a plan costs; None where it is not known.

    Of a cascade, both stages: parameters, training and inference are added (one fold of the first stage to one of the
    second, as in a whole cross-validation), of memory the larger counts. Epochs and operations are the second stage's.
    Of a plan that starts from another's weights, time and energy of training are those of both; where that one's runs
    are gone, they are not known. Epochs and iterations are its own.

    Attributes:
        parameters: trained weights. flops_per_iteration: operations of one training iteration, as planned.
        epochs, iterations: trained, of the longest fold.
        epoch_seconds: median over all epochs. training_seconds: mean over the folds.
        inference_seconds: mean over the cases.
        memory_predicted_gb, memory_measured_gb: device memory in training, 10^9 bytes.
        memory_host_gb: largest memory of the training process itself, 10^9 bytes.
        energy_kwh: of training, mean over the folds, where it was counted.
        devices: names of what it was trained on.
    """

    parameters: int | None
    flops_per_iteration: int | None
    epochs: int
    iterations: int | None
    epoch_seconds: float | None
    training_seconds: float | None
    inference_seconds: float | None
    memory_predicted_gb: float | None
    memory_measured_gb: float | None
    devices: tuple[str, ...]
    energy_kwh: float | None = None
    memory_host_gb: float | None = None

    @property
    def memory(self) -> tuple[float | None, MemoryKind]:
        """What the training took and which memory that is: the device's, else the host's, else the plan's estimate."""
        if self.memory_measured_gb is not None:
            return self.memory_measured_gb, "device"
        if self.memory_host_gb is not None:
            return self.memory_host_gb, "host"
        return self.memory_predicted_gb, "predicted"


class PlanSummary(Document):
    """One plan, pooled by case over its finished folds; ``scores`` is region to metric to description.

    ``num_failed`` of its ``num_cases`` have no segmentation and count with the worst score.
    """

    name: str
    architecture: str
    folds: tuple[Fold, ...]
    num_cases: int
    num_failed: int
    scores: dict[str, dict[str, Description]]
    cost: Cost


class Comparison(Document):
    """A plan minus the baseline in one region and metric.

    Attributes:
        p_holm, p_permutation_holm: corrected within the family of comparisons, signed-rank and permutation test.
        more_cases: how many more cases an undecided comparison would need, None where decided or not to be told.
    """

    plan: str
    baseline: str
    region: str
    metric: str
    family: Literal["primary", "secondary"]
    difference: Difference
    p_holm: float | None
    p_permutation_holm: float | None
    verdict: Verdict
    more_cases: int | None


class Rank(Document):
    """A plan's place among all by mean foreground Dice on the cases that all of them have.

    Attributes:
        mean: on those cases. first_share: how often it is first when these cases are resampled.
        to_best: difference to the first plan, None for the first itself.
    """

    plan: str
    mean: float
    first_share: float
    to_best: Difference | None


class Significance(Document):
    """p (plans, plans) that the row's plan has a higher Dice than the column's: one-sided, Holm-corrected; None on
    the diagonal.
    """

    plans: tuple[str, ...]
    p_values: tuple[tuple[float | None, ...], ...]


class SizeClass(Document):
    """A third of the cases by the reference volume of a region, from ``low_ml`` to ``high_ml``; ``scores`` is plan to
    Dice.
    """

    region: str
    low_ml: float
    high_ml: float
    scores: dict[str, Description]


class SeedGroup(Document):
    """Plans that differ in nothing but the seed: the spread of training itself.

    Attributes:
        plans, means: names and mean Dice on the cases that all of them have.
        spread: standard deviation of the means. largest: the largest difference between two of them.
    """

    plans: tuple[str, ...]
    means: tuple[float, ...]
    spread: float
    largest: float


class Group(Document):
    """Plans that differ in one thing: its ``values`` belong to ``plans``; each but the ``reference`` is compared with
    that.
    """

    by: str
    reference: str
    plans: tuple[str, ...]
    values: tuple[str, ...]
    comparisons: tuple[Comparison, ...]


class UnfinishedRun(Document):
    """A run that does not count, and why."""

    plan: str
    fold: Fold
    state: str
    detail: str


class Summary(Document):
    """summary.json: what the report says, without its pictures.

    Attributes:
        fronts: cost to the plans that no other beats in both that cost and Dice.
        skipped_metrics: metrics of the runs that the report does not know how to judge; cases.csv holds them.
    """

    schema_: Literal["autoseg.summary.1"] = Field(default="autoseg.summary.1", alias="schema")
    autoseg: str
    dataset: str
    regions: tuple[str, ...]
    metrics: tuple[str, ...]
    skipped_metrics: tuple[str, ...]
    baseline: str | None
    wanted_baseline: str
    num_common_cases: int
    ranking: tuple[Rank, ...]
    rules: tuple[RuleRanking, ...]
    significance: Significance | None
    plans: tuple[PlanSummary, ...]
    fronts: dict[str, tuple[str, ...]]
    comparisons: tuple[Comparison, ...]
    sizes: tuple[SizeClass, ...]
    seeds: tuple[SeedGroup, ...]
    groups: tuple[Group, ...]
    unfinished: tuple[UnfinishedRun, ...]
    headline: str = ""
    sentences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def plan(self, name: str) -> PlanSummary:
        """Return the summary of one plan."""
        return next(plan for plan in self.plans if plan.name == name)

    def primary(self, plan: str) -> Comparison | None:
        """Return the comparison of a plan's mean Dice with the baseline's, None where there is none."""
        return next((c for c in self.comparisons if c.plan == plan and c.family == "primary"), None)
