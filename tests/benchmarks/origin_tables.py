"""The shipped tables of experiments as one page, from the reports that autoseg_run wrote of them:

    python tests/benchmarks/origin_tables.py losses=REPORTS/Hippocampus optimizers=... --command "autoseg_run ..."

Each folder holds the ``summary.json`` of a comparison. Writes docs/benchmarks/origin_tables.md.
"""

import argparse
import json
from pathlib import Path

from autoseg.compare.statistics import Description, Difference
from autoseg.compare.summary import FOREGROUND, PRIMARY, Summary
from autoseg.documents import read_document

ROOT = Path(__file__).parents[2]
TARGET = ROOT / "docs" / "benchmarks" / "origin_tables.md"
TABLES = ROOT / "plans" / "experiments"


def main() -> None:
    """Read the reports and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reports", nargs="+", help="TABLE=FOLDER of a report")
    parser.add_argument("--command", required=True, help="the command that was typed")
    parser.add_argument("--machine", required=True, help="what it ran on")
    options = parser.parse_args()
    parts = [_section(*entry.split("=", 1)) for entry in options.reports]
    head = [
        "# The shipped tables of experiments, on the hippocampus", "",
        f"Made by `tests/benchmarks/origin_tables.py` from the reports of `{options.command}` for each table, on "
        f"{options.machine}.", "",
        "These are short trainings of small networks, each plan once, on one fold: they show that the tables run and "
        "what their reports look like, not which setting is best. Intervals are 95 %, over cases; they do not hold "
        "what another seed or fold would change. A verdict is corrected for the comparisons of its table. On "
        "a machine that does other work, times are stretched unequally and say nothing.",
    ]  # fmt: skip
    TARGET.write_text("\n".join(head) + "\n" + "".join(parts), encoding="utf-8")


def _section(table: str, folder: str) -> str:
    summary = read_document(Path(folder) / "summary.json", Summary)
    about = json.loads((TABLES / f"{table}.json").read_text(encoding="utf-8"))["about"]
    titles = ("plan", "iterations", "cases", "weights", "mean Dice", f"against `{summary.baseline}`", "verdict",
              "training", "a case")  # fmt: skip
    lines = ["", f"## {table}", "", about, "", f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for plan in summary.plans:
        found, cost = summary.primary(plan.name), plan.cost
        cells = (
            f"`{plan.name}`", str(cost.iterations), str(plan.num_cases), f"{(cost.parameters or 0) / 1e6:.2f} M",
            _interval(plan.scores[FOREGROUND][PRIMARY]), _interval(found.difference) if found else "",
            found.verdict if found else "", f"{(cost.training_seconds or 0) / 60:.1f} min",
            f"{cost.inference_seconds or 0:.2f} s",
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _interval(values: Description | Difference) -> str:
    if values.mean is None:
        return ""
    sign = "+" if isinstance(values, Difference) else ""
    ends = "" if values.low is None or values.high is None else f" [{values.low:{sign}.3f}, {values.high:{sign}.3f}]"
    return f"{values.mean:{sign}.3f}{ends}"


if __name__ == "__main__":
    main()
