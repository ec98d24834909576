"""An exported model in an empty environment: ``export.py OUTPUT IMAGES -w WORKSPACE -d DATASET -a PLAN``.

Exports a trained plan, makes a virtual environment that holds onnxruntime, numpy and SimpleITK (and what these need
themselves) and nothing else, runs the exported segment.py there on images (CASE_0000.ext, one channel), and counts the
voxels that equal autoseg_predict's. Writes OUTPUT.json and OUTPUT.md.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import SimpleITK as sitk

NEEDED = ("onnxruntime", "numpy", "SimpleITK")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("-w", "--workspace", required=True)
    parser.add_argument("-d", "--dataset", required=True)
    parser.add_argument("-a", "--plan", required=True)
    parser.add_argument("--cases", type=int, default=5)
    options = parser.parse_args()
    images = sorted(options.images.glob("*_0000.*"))[: options.cases]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "images").mkdir()
        for image in images:
            (folder / "images" / image.name).symlink_to(image.resolve())
        chosen = ["-d", options.dataset, "-a", options.plan, "-w", options.workspace]
        _run([sys.executable, "-m", "autoseg.cli.export", *chosen, "-o", str(folder / "model")])
        _run([sys.executable, "-m", "autoseg.cli.predict", *chosen, "-i", str(folder / "images"), "-o",
              str(folder / "expected"), "--device", "cpu"])  # fmt: skip
        python = _empty_environment(folder / "environment")
        rows = [_compare(python, folder, image) for image in images]
        packages = json.loads(_run([python, "-m", "pip", "list", "--format", "json"]))
        size = sum(path.stat().st_size for path in (folder / "model").rglob("*") if path.is_file())
    result = {
        "plan": f"{options.plan} of {options.dataset}", "megabytes": size / 1e6, "cases": rows,
        "packages": {package["name"]: package["version"] for package in packages},
    }  # fmt: skip
    options.output.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    options.output.with_suffix(".md").write_text(_page(result), encoding="utf-8")


def _run(command: list[str]) -> str:
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        sys.exit(f"{' '.join(command)}\n{finished.stderr}")
    return finished.stdout


def _empty_environment(folder: Path) -> str:
    """Make a virtual environment with only what the script needs, and return its Python."""
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    _run([python, "-m", "pip", "install", "--quiet", *NEEDED])
    for absent in ("torch", "autoseg", "scipy"):
        found = subprocess.run([python, "-I", "-c", f"import {absent}"], capture_output=True, check=False)
        assert found.returncode, f"{absent} is in the environment that should be empty"
    return python


def _compare(python: str, folder: Path, image: Path) -> dict[str, Any]:
    name = image.name.replace("_0000", "", 1)
    target = folder / "found" / name
    target.parent.mkdir(exist_ok=True)
    start = perf_counter()
    _run([python, "-I", str(folder / "model" / "segment.py"), str(image), str(target)])
    seconds = perf_counter() - start
    found, expected = (sitk.ReadImage(str(path)) for path in (target, folder / "expected" / name))
    values = [sitk.GetArrayFromImage(one) for one in (found, expected)]
    grids = [(one.GetSize(), one.GetSpacing(), one.GetOrigin(), one.GetDirection()) for one in (found, expected)]
    return {
        "case": name, "voxels": values[0].size, "foreground": int(np.count_nonzero(values[1])),
        "different": int((values[0] != values[1]).sum()), "same_grid": bool(np.allclose(*map(_flat, grids), atol=1e-6)),
        "seconds": seconds,
    }  # fmt: skip


def _flat(grid: tuple[tuple[float, ...], ...]) -> list[float]:
    return [number for part in grid for number in part]


def _page(result: dict[str, Any]) -> str:
    lines = [
        "# Exported models\n",
        f"Made by `tests/benchmarks/export.py`: {result['plan']}, exported ({result['megabytes']:.0f} MB), its "
        "`segment.py` run in a virtual environment that holds only "
        f"{', '.join(f'{name} {version}' for name, version in result['packages'].items())}; compared with "
        "`autoseg_predict`.\n",
        "| case | voxels | foreground | different voxels | same grid | seconds |\n|---|---|---|---|---|---|",
    ]
    for row in result["cases"]:
        same = "yes" if row["same_grid"] else "no"
        numbers = f"{row['voxels']} | {row['foreground']} | {row['different']} | {same} | {row['seconds']:.1f}"
        lines.append(f"| {row['case']} | {numbers} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
