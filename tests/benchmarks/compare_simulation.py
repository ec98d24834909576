"""What the report's statistics are worth, by simulation: coverage, false positives, power, and cases needed.

``python tests/benchmarks/compare_simulation.py`` prints the tables and writes docs/benchmarks/compare_simulation.json.
"""

import json
from collections import Counter
from pathlib import Path

import numpy as np

from autoseg.compare.resampling import bootstrap_intervals
from autoseg.compare.statistics import compare_paired, correct_holm, judge, more_cases_needed
from autoseg.compare.summary import MARGIN

OUTPUT = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "compare_simulation.json"
EXPERIMENTS = 1000
BATCH = 50
NUM_PLANS = 4


def draw_differences(rng: np.random.Generator, kind: str, spread: float, shape: tuple[int, ...]) -> np.ndarray:
    """Draw paired differences of mean 0 and standard deviation ``spread``.

    ``normal``; ``skewed``: a shifted gamma distribution of skewness 2; ``failures``: normal, but in one case of twenty
    one of the two plans loses much of the structure.
    """
    if kind == "normal":
        return rng.normal(0, spread, shape)
    if kind == "skewed":
        return (rng.gamma(1.0, 1.0, shape) - 1.0) * spread
    values = rng.normal(0, 1, shape) + (rng.random(shape) < 0.05) * rng.normal(0, 8, shape)
    return values * spread / np.sqrt(1 + 0.05 * 64)


def measure_coverage(kind: str, num_cases: int) -> float:
    """Return how often the 95 % interval of the mean holds the true mean."""
    rng = np.random.default_rng([1, num_cases])
    hits = 0
    for batch in range(EXPERIMENTS // BATCH):
        samples = draw_differences(rng, kind, 1.0, (BATCH, num_cases))
        hits += sum(low <= 0 <= high for low, high in bootstrap_intervals(list(samples), seed=batch))
    return hits / EXPERIMENTS


def measure_verdicts(kind: str, num_cases: int, spread: float, shift: float, num_plans: int) -> Counter[str]:
    """Return how many of 1,000 experiments call plan 1, whose true gain is ``shift``, what; the others gain nothing.

    ``false``: any of the plans without a gain is called better or worse.
    """
    rng = np.random.default_rng([2, num_cases, num_plans])
    base = np.zeros(num_cases)
    counts: Counter[str] = Counter()
    for batch in range(EXPERIMENTS // BATCH):
        drawn = draw_differences(rng, kind, spread, (BATCH * (num_plans - 1), num_cases))
        drawn[:: num_plans - 1] += shift
        found = compare_paired([(values, base) for values in drawn], seed=batch)
        for start in range(0, len(found), num_plans - 1):
            family = found[start : start + num_plans - 1]
            corrected = zip(
                correct_holm([difference.p_value for difference in family]),
                correct_holm([difference.p_permutation for difference in family]),
            )
            verdicts = [judge(d, p, margin=MARGIN, higher_is_better=True) for d, p in zip(family, corrected)]
            counts[verdicts[0]] += 1
            without = verdicts if shift == 0 else verdicts[1:]
            counts["false better"] += "better" in without
            counts["false better or worse"] += bool({"better", "worse"} & set(without))
    return counts


def measure_needed(shift: float, spread: float) -> tuple[int, float]:
    """Return the number of cases that ``more_cases_needed`` asks for, and how often that many then decide."""
    values = np.random.default_rng(0).normal(0, 1, 30)
    values = (values - values.mean()) / values.std(ddof=1) * spread + shift
    more = more_cases_needed(compare_paired([(values, np.zeros(30))])[0], margin=MARGIN)
    total = 30 + (more or 0)
    counts = measure_verdicts("normal", total, spread, shift, 2)
    return total, (EXPERIMENTS - counts["undecided"]) / EXPERIMENTS


def main() -> None:
    """Run all simulations, print and write them."""
    kinds, sizes = ("normal", "skewed", "failures"), (10, 20, 50, 200)
    coverage = {kind: {n: measure_coverage(kind, n) for n in sizes} for kind in kinds}
    null = {kind: {n: measure_verdicts(kind, n, 0.05, 0.0, NUM_PLANS) for n in (20, 50, 200)} for kind in kinds}
    power = {
        str(spread): {n: measure_verdicts("failures", n, spread, 0.01, 2) for n in (20, 50, 200)}
        for spread in (0.01, 0.02, 0.04)
    }
    wanted = ((0.02, 0.06), (0.01, 0.03), (0.0, 0.04))
    needed = [(shift, spread, *measure_needed(shift, spread)) for shift, spread in wanted]
    print("coverage of the 95 % interval:", json.dumps(coverage))
    print("null experiments with 3 plans:", json.dumps(null))
    print("verdicts on a true gain of 1 Dice point, by spread of the differences:", json.dumps(power))
    print("cases needed (gain, spread, total cases, share decided):", needed)
    content = {"experiments": EXPERIMENTS, "coverage": coverage, "null": null, "power": power,
               "needed": [dict(zip(("gain", "spread", "cases", "decided"), row)) for row in needed]}  # fmt: skip
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
