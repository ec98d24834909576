"""Would the tests notice? One fault after another is put into a copy of the package, and the tests of its folder run.

    python tests/benchmarks/mutations.py docs/benchmarks/mutations --resume

Each fault is a line's text and what takes its place; a fault that no test notices is a hole in the tests. ``--resume``
keeps the rows that the JSON document has already.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 900
MISSED = "not noticed"

# (module, what stands there, what takes its place, the folder of tests that should notice)
MUTATIONS = (
    ("data/splits", "np.random.RandomState(seed).shuffle(indices)", "pass", "data"),
    ("data/splits", "if group not in validation_groups", "if True", "data"),
    ("data/splits", "MAX_MEAN_GROUP = 10", "MAX_MEAN_GROUP = 1000", "data"),
    ("data/splits", "sum(n in found for n in parts[i])", "0", "data"),
    ("data/labels", "return single != [(value,)", "return single == [(value,)", "data"),
    ("data/labels", "if name != IGNORE_NAME and value != 0", "if value != 0", "data"),
    ("fingerprint/measure", "shape_after_crop=canonical_geometry(cropped_geometry).shape",
     "shape_after_crop=image.geometry.shape", "fingerprint"),
    ("fingerprint/measure", "cropped, mask = image.array[(slice(None), *box)], classes[box] > 0",
     "cropped, mask = image.array[(slice(None), *box)], classes[box] >= 0", "fingerprint"),
    ("plan/spacing", "np.round(spacings / target * shapes)", "np.floor(spacings / target * shapes)", "plan"),
    ("plan/spacing", "low if low >= widest else", "low if low <= widest else", "plan"),
    ("plan/spacing", "rules.LOW_RESOLUTION_STEP, 1.0", "rules.LOW_RESOLUTION_STEP, 1.01", "plan"),
    ("plan/patch_size", "memory_batch = round(", "memory_batch = math.ceil(", "plan"),
    ("plan/rules", "FLAT_PATCH = 3.0", "FLAT_PATCH = 2.5", "plan"),
    ("plan/rules", "MAX_COVERAGE = 0.05", "MAX_COVERAGE = 0.06", "plan"),
    ("preprocess/resample", "np.floor(centres + 0.5)", "np.rint(centres)", "preprocess"),
    ("preprocess/resample", "if order > 1:", "if order > 3:", "preprocess"),
    ("preprocess/resample", "self.nearest_score >= self.best - TIE",
     "self.nearest_score > self.best + TIE", "preprocess"),
    ("preprocess/resample", "axes[0] if len(axes) == 1 else None", "axes[0]", "preprocess"),
    ("preprocess/normalize", "np.clip(channel, lower, upper, out=channel)", "pass", "preprocess"),
    ("preprocess/normalize", "channel[mask] = inside", "pass", "preprocess"),
    ("losses/_deep_supervision", "weights[-1] = 0.0", "pass", "losses"),
    ("losses/_deep_supervision", "slice(factor // 2, None, factor)", "slice(0, None, factor)", "losses"),
    ("losses/_overlap", "alpha * false_positive + beta * false_negative",
     "beta * false_positive + alpha * false_negative", "losses"),
    ("losses/generalized_dice", "(smallest / volumes.clamp_min(1)).square()",
     "smallest / volumes.clamp_min(1)", "losses"),
    ("augment/gamma", "torch.where(sign > 0, low, high)", "low", "augment"),
    ("augment/contrast", ".clamp_(low, high)", "", "augment"),
    ("augment/mirror", "& allowed", "", "augment"),
    ("augment/one_of", "torch.where(offered, choice, -1)", "choice", "augment"),
    ("train/patches", "sample >= round(batch_size * (1 - oversampling))",
     "sample > round(batch_size * (1 - oversampling))", "train"),
    ("train/patches", "present[int(rng.integers(len(present)))]", "present[0]", "train"),
    ("train/patches", "rng.integers(low, high + 1)", "rng.integers(low, max(high, low + 1))", "train"),
    ("train/patches", "np.array([0, sample, iteration, epoch]", "np.array([0, sample, iteration, 0]", "train"),
    ("train/optimization", "base * (iteration + 1) / warmup", "base * iteration / warmup", "train"),
    ("train/optimization", "1 - abs(2 * place - 1)", "abs(2 * place - 1)", "train"),
    ("train/optimization", "if waited > patience:", "if waited >= patience:", "train"),
    ("predict/sliding_window", "SIGMA = 1 / 8", "SIGMA = 1 / 4", "predict"),
    ("predict/sliding_window", "round(gap / (count - 1) * index)", "int(gap / (count - 1) * index)", "predict"),
    ("predict/sliding_window", "yield box, tile.flip([a + 1 for a in flips])", "yield box, tile", "predict"),
    ("predict/sliding_window", "self._constant is None or self._constant[0] != value",
     "self._constant is None", "predict"),
    ("predict/postprocess", "sizes * voxel_ml >= (step.volume_ml or 0.0)",
     "sizes >= (step.volume_ml or 0.0)", "predict"),
    ("predict/postprocess", "& (part == 0)", "", "predict"),
    ("evaluate/metrics", "2 * self.common, self.reference + self.predicted)",
     "self.common, self.reference + self.predicted)", "evaluate"),
    ("evaluate/metrics", "TOLERANCE_SLACK_MM = 1e-5", "TOLERANCE_SLACK_MM = -1e-5", "evaluate"),
    ("evaluate/metrics", "np.cumsum(areas[order])", "np.cumsum(np.ones(len(order)))", "evaluate"),
    ("evaluate/lesions", "self.iou >= threshold", "self.iou > threshold", "evaluate"),
    ("evaluate/lesions", "NEIGHBOURS = np.ones((3, 3, 3), dtype=bool)", "NEIGHBOURS = None", "evaluate"),
    ("compare/statistics", "p * (len(order) - rank)", "p * len(order)", "compare"),
    ("compare/statistics", "max(known) >= SIGNIFICANCE", "min(known) >= SIGNIFICANCE", "compare"),
    ("compare/statistics", "-margin <= difference.low and difference.high <= margin",
     "-margin <= difference.mean <= margin", "compare"),
    ("compare/resampling", "(6 * spread**1.5)", "(-6 * spread**1.5)", "compare"),
    ("compare/resampling", "else (hits + 1) / (drawn + 1)", "else hits / drawn", "compare"),
    ("compare/critical_difference", "(6 * num_datasets)", "(12 * num_datasets)", "compare"),
    ("train/state", "EMA_WEIGHT = 0.9", "EMA_WEIGHT = 0.5", "train"),
    ("train/state", "len(history) >= plan.training.epochs", "len(history) > plan.training.epochs", "train"),
    ("train/state", 'make_seed(seed, "dropout", epoch, 0, rank)', 'make_seed(seed, "dropout", 0, 0, rank)', "train"),
    ("train/step", "/ section.gradient_accumulation", "", "train"),
    ("train/step", "part * setup.processes.count", "part", "train"),
    ("train/step", "min(decay, (1 + iteration) / (10 + iteration))", "decay", "train"),
    ("train/initial", "for network in (state.network, state.averaged):", "for network in (state.network,):", "train"),
    ("plan/time_budget", "MARGIN = 0.05", "MARGIN = 0.0", "plan"),
    ("launch/initial", "if name not in scored]", "if False]", "cli/test_extend.py"),
    ("launch/order", "needs.get(key.plan, Needs())", "Needs()", "launch"),
    ("launch/order", "own.initial_weights or \"\", key.fold", "own.initial_weights or \"\", 0", "launch"),
    ("launch/select", "key=lambda c: c.dice if c.postprocessed_dice is None else c.postprocessed_dice",
     "key=lambda c: c.dice", "launch"),
    ("tune/outcome", "if (one.dice or 0.0) > best:", "if (one.dice or 0.0) >= 0:", "tune"),
)  # fmt: skip


def run_mutation(copy: Path, module: str, old: str, new: str, tests: str) -> str:
    """Return what came of a fault: ``noticed``, with the first test that did, or ``not noticed``."""
    path = copy / "autoseg" / f"{module}.py"
    text = path.read_text(encoding="utf-8")
    if text.count(old) != 1:
        raise SystemExit(f"{module}: {old!r} stands there {text.count(old)} times instead of once")
    path.write_text(text.replace(old, new), encoding="utf-8")
    own = f"{tests}/test_{path.stem.lstrip('_')}.py"  # the nearest tests first: they are the quickest to fail
    places = [own, tests] if (copy / "tests" / own).is_file() else [tests]
    try:
        outcomes = (_run_tests(copy, place) for place in places)
        return next((outcome for outcome in outcomes if outcome != MISSED), MISSED)
    finally:
        path.write_text(text, encoding="utf-8")


def _run_tests(copy: Path, tests: str) -> str:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", f"tests/{tests}"]
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return "noticed: the tests did not end"
    if done.returncode == 0:
        return MISSED
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return f"noticed: {found.group(1)}" if found else f"noticed: {done.stdout.strip().splitlines()[-1]}"


def write_table(rows: list[dict[str, str]], target: Path) -> None:
    """Write the rows as JSON and as a page."""
    target.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    caught = sum(row["outcome"].startswith("noticed") for row in rows)
    lines = [
        "# Would the tests notice?",
        "",
        f"Made by `tests/benchmarks/mutations.py`: {caught} of {len(rows)} faults, put into the package one at a time, "
        "fail a test of the folder named like the package's, or of the command that it is for.",
        "",
        "| module | what stood there | what took its place | noticed by |",
        "|---|---|---|---|",
    ]
    for row in rows:
        cells = (f"`{row[key].replace('|', '&#124;')}`" if row[key] else "" for key in ("module", "old", "new"))
        outcome = row["outcome"].removeprefix("noticed: ").split("::")
        lines.append(f"| {' | '.join(cells)} | {'`' + outcome[-1] + '`' if len(outcome) > 1 else outcome[0]} |")
    target.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Run the faults that have no row yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path, help="files to write, without their endings")
    parser.add_argument("--resume", action="store_true", help="keep the rows that are there and noticed")
    options = parser.parse_args()
    kept = options.target.with_suffix(".json")
    rows = json.loads(kept.read_text(encoding="utf-8")) if options.resume and kept.is_file() else []
    done = {(r["module"], r["old"], r["new"]): r for r in rows if r["outcome"].startswith("noticed")}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        ignored = shutil.ignore_patterns(".git", "__pycache__", "*.egg-info", ".mypy_cache", ".ruff_cache")
        shutil.copytree(ROOT, copy, ignore=ignored)
        for module, old, new, tests in MUTATIONS:
            row = done.get((module, old, new))
            outcome = row["outcome"] if row else run_mutation(copy, module, old, new, tests)
            rows.append({"module": module, "old": old, "new": new, "outcome": outcome})
            print(f"{module}: {old} -> {new}: {outcome}", flush=True)
            write_table(rows, options.target)


if __name__ == "__main__":
    main()
