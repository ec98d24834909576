"""What each dependency costs: ``python tests/benchmarks/dependencies.py`` writes docs/explanation/dependencies.md.

Import times are the cumulative ones of ``python -X importtime`` in a process of its own; sizes are those of the files
that the distribution installed, without what it depends on; versions and licences are its own metadata's.
"""

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "explanation" / "dependencies.md"
RUNS = 1

MODULES = {"SimpleITK": "SimpleITK", "pillow": "PIL", "jinja2": "jinja2"}
"""Import names that differ from those of the distributions."""

REASONS = {
    "torch": "networks, losses and augmentation; nothing else runs on every GPU",
    "numpy": "arrays",
    "scipy": "splines, distance maps, search trees, statistics",
    "SimpleITK": "grids of NIfTI files as ITK understands them; NRRD, MHA, DICOM",
    "nibabel": "MGZ, and the headers of NIfTI files",
    "monai": "SegResNet, UNETR, Swin UNETR: the implementations that papers are compared with",
    "einops": "imported by MONAI's transformers, which do not declare it as needed",
    "blosc2": "preprocessed cases: reads a box of a compressed array",
    "pydantic": "every document: checks, errors with the field's name, JSON schemas",
    "typer": "options of the commands from their annotations; shell completion",
    "rich": "tables and progress",
    "tensorboard": "curves of a training while it runs; `torch.utils.tensorboard` cannot write without it",
    "jinja2": "the pages of the report and of a search",
    "plotly": "figures in the report that can be pointed at, in one file without a network",
    "pillow": "overlays, previews, progress.png",
}


def main() -> None:
    """Measure and write the page."""
    needed = [line for line in metadata.requires("autoseg") or [] if "extra ==" not in line]
    names = list(dict.fromkeys(re.split(r"[<>=!~ ;\[]", line)[0] for line in needed))
    unexplained = [name for name in names if name not in REASONS]
    if unexplained:
        raise SystemExit(f"say in REASONS why these are needed: {', '.join(unexplained)}")
    rows = [_row(name) for name in names]
    own = import_seconds("autoseg")
    PAGE.write_text(_page(rows, own), encoding="utf-8")


def _row(name: str) -> str:
    found = metadata.distribution(name)
    megabytes = (
        sum(file.locate().stat().st_size for file in found.files or [] if Path(str(file.locate())).is_file()) / 1e6
    )
    seconds = import_seconds(MODULES.get(name, name))
    return f"| {name} | {found.version} | {licence(found)} | {megabytes:.1f} MB | {seconds:.2f} s | {REASONS[name]} |"


def licence(found: metadata.Distribution) -> str:
    """Return the licence in a few words: the SPDX expression, else the classifier, else the first line."""
    fields = found.metadata
    classifiers = [line.rpartition(" :: ")[2] for line in fields.get_all("Classifier") or [] if "License ::" in line]
    text = fields.get("License-Expression") or ", ".join(classifiers) or (fields.get("License") or "?").splitlines()[0]
    return text.replace("|", "/")[:60]


def import_seconds(module: str) -> float:
    """Return the cumulative time of importing a module, the least of some runs."""
    return min(_import_once(module) for _ in range(RUNS))


def _import_once(module: str) -> float:
    command = [sys.executable, "-X", "importtime", "-c", f"import {module}"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stderr.splitlines()
    times = [line.split("|") for line in lines if line.endswith(f"| {module}")]
    return int(times[-1][1]) / 1e6


def _page(rows: list[str], own: float) -> str:
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    table = "\n".join(["| package | version | licence | size | import | why |", "|---|---|---|---|---|---|", *rows])
    return f"""# Dependencies

`python tests/benchmarks/dependencies.py` writes this table from the installed packages, on Python
{sys.version.split()[0]}. Sizes are those of the package alone (torch as a wheel for CPUs). Import times
are wall-clock times of one process, here with a load of {load:.1f} processes a core: compare the rows, not the values.

{table}

`import autoseg` takes {own:.3f} s, since it imports none of them; `--help` of every command waits for typer alone
(tested). What a command needs is imported when it needs it.

What is asked of each: is it kept up, is it small against what it saves, could the standard library do it? `einops` is
not imported by autoseg itself, but MONAI's UNETR and Swin UNETR cannot be built without it. Extras bring what only some
want: `tune` (Optuna, CMA-ES), `slurm` (submitit), `export` (ONNX), `clearml`, `energy` (NVML), `docs`, `dev`, `test`.
"""


if __name__ == "__main__":
    main()
