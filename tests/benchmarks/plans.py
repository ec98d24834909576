"""Side by side, the plans of all architectures: ``python tests/benchmarks/plans.py``.

For Lits at 8, 24 and 80 GB and ACDC at 8 GB, from the fingerprints of the reference plans. Prints Markdown, for
docs/benchmarks/plans.md, and writes docs/benchmarks/plans.json.
"""

import json
from pathlib import Path
from typing import Any

from autoseg.errors import PlanError
from autoseg.fingerprint.fingerprint import Fingerprint, read_fingerprint
from autoseg.plan.planner import make_plan
from autoseg.plan.recipe import recipe_names
from autoseg.plan.summary import COLUMNS, summarise

ROOT = Path(__file__).resolve().parents[2]
TABLES = (("Lits", 8.0), ("Lits", 24.0), ("Lits", 80.0), ("ACDC", 8.0))


def make_table(fingerprint: Fingerprint, memory_gb: float) -> list[dict[str, Any]]:
    """Return a row a recipe: its summary, or the reason why it was skipped."""
    rows: list[dict[str, Any]] = []
    for name in recipe_names():
        try:
            rows.append({"plan": name, **summarise(make_plan(name, fingerprint, memory_gb=memory_gb), fingerprint)})
        except PlanError as error:
            rows.append({"plan": name, "skipped": str(error)})
    return rows


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table, what was skipped below it."""
    lines = ["| plan | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    lines += ["| " + " | ".join(row.values()) + " |" for row in rows if "skipped" not in row]
    lines += [f"\nskipped: `{row['plan']}`: {row['skipped']}" for row in rows if "skipped" in row]
    return "\n".join(lines)


def main() -> None:
    """Print and write all tables."""
    result = {}
    for dataset, memory_gb in TABLES:
        fingerprint = read_fingerprint(ROOT / "plans" / dataset / "fingerprint.json")
        rows = make_table(fingerprint, memory_gb)
        result[f"{dataset}, {memory_gb:g} GB"] = rows
        print(f"\n### {dataset}, {memory_gb:g} GB\n\n{as_markdown(rows)}", flush=True)
    target = ROOT / "docs" / "benchmarks" / "plans.json"
    target.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
