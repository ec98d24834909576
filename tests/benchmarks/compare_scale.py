"""Time, memory and size of large reports: ``python tests/benchmarks/compare_scale.py``.

Prints a table and writes docs/benchmarks/compare_scale.json. Each row runs ``autoseg_compare`` in a process of its own:
8 plans x 5 folds x 1,000 cases x 4 regions without pictures, and 8 plans x 200 cases with pictures of large noisy
images, which hardly compress.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from autoseg.data.volumes import Geometry, write_volume

OUTPUT = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "compare_scale.json"
NUM_PLANS = 8
REGIONS = ("liver", "tumour", "kidney", "spleen")
SHAPE = (120, 512, 512)
SPACING = (2.5, 0.8, 0.8)


def write_run(folder: Path, plan: int, fold: int, cases: list[str]) -> None:
    """Write a finished run with three metrics and both volumes; one value of fifty is undefined."""
    rng = np.random.default_rng([plan, fold])
    hard = np.random.default_rng(fold).gamma(1.2, 0.04, (len(cases), len(REGIONS)))
    volumes = np.random.default_rng(fold).gamma(2.0, 50.0, (len(cases), len(REGIONS)))
    scores = np.clip(0.9 - hard + 0.002 * plan + rng.normal(0, 0.02, hard.shape), 0, 1)
    absent = rng.random(hard.shape) < 0.02
    content = {
        name: {
            region: {
                "dice": None if absent[i, j] else float(scores[i, j]),
                "surface_dice": None if absent[i, j] else float(scores[i, j] ** 0.8),
                "hausdorff_95": None if absent[i, j] else float(30 * (1 - scores[i, j])),
                "reference_volume_ml": float(volumes[i, j]),
                "predicted_volume_ml": float(volumes[i, j] * rng.uniform(0.9, 1.1)),
            }
            for j, region in enumerate(REGIONS)
        }
        for i, name in enumerate(cases)
    }
    (folder / "validation").mkdir(parents=True)
    (folder / "logs").mkdir()
    (folder / "validation" / "metrics.json").write_text(json.dumps({"cases": content}))
    epochs = [{"epoch": k, "train_loss": 1 / k, "validation_loss": 1 / k, "validation_dice": {r: 0.8 for r in REGIONS},
               "seconds": 30.0 + plan} for k in range(1, 1001)]  # fmt: skip
    (folder / "logs" / "metrics.jsonl").write_text("".join(json.dumps(epoch) + "\n" for epoch in epochs))


def make_workspace(root: Path, num_folds: int, cases_a_fold: int) -> list[list[str]]:
    """Write the runs of all plans; return the cases of each fold."""
    folds = [[f"case_{fold}_{k:04d}" for k in range(cases_a_fold)] for fold in range(num_folds)]
    for plan in range(NUM_PLANS):
        for fold, cases in enumerate(folds):
            write_run(root / "results" / "Large" / f"plan_{plan}" / f"fold_{fold}", plan, fold, cases)
    return folds


def add_pictures(root: Path, cases: list[str]) -> None:
    """Write a raw dataset and segmentations: one noisy image that all cases link to, a label map for each plan."""
    raw = root / "raw" / "Dataset001_Large"
    geometry = Geometry(
        shape=SHAPE, spacing=SPACING, origin=(0.0, 0.0, 0.0), direction=(1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)
    )
    rng = np.random.default_rng(0)
    z, y, x = np.ogrid[tuple(slice(-1, 1, complex(size)) for size in SHAPE)]
    (raw / "imagesTr").mkdir(parents=True)
    (raw / "labelsTr").mkdir()
    image = (rng.normal(40, 60, SHAPE) + 100 * (z**2 + y**2 + x**2 < 0.6)).astype(np.int16)
    write_volume(root / "image.nii.gz", image, geometry)
    for plan in range(NUM_PLANS + 1):
        radius = z**2 + (y - 0.02 * plan) ** 2 + x**2
        write_volume(
            root / f"label_{plan}.nii.gz", np.digitize(-radius, (-0.6, -0.3, -0.1, -0.03)).astype(np.uint8), geometry
        )
    for case in cases:
        (raw / "imagesTr" / f"{case}_0000.nii.gz").symlink_to(root / "image.nii.gz")
        (raw / "labelsTr" / f"{case}.nii.gz").symlink_to(root / f"label_{NUM_PLANS}.nii.gz")
        for plan in range(NUM_PLANS):
            folder = root / "results" / "Large" / f"plan_{plan}" / "fold_0" / "validation"
            (folder / f"{case}.nii.gz").symlink_to(root / f"label_{plan}.nii.gz")
    labels = {"background": 0, **{region: value for value, region in enumerate(REGIONS, start=1)}}
    content = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": len(cases), "file_ending": ".nii.gz"}
    (raw / "dataset.json").write_text(json.dumps(content))


def measure(root: Path) -> dict[str, float]:
    """Run ``autoseg_compare`` on the workspace; return seconds, peak memory of the process, and the page's size."""
    before = time.perf_counter()
    command = [sys.executable, "-m", "autoseg.cli.compare", "-w", str(root), "-d", "Large", "--baseline", "plan_0"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - before
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_gb": round(usage.ru_maxrss * 1024 / 1e9, 2),
        "page_mb": round((root / "reports" / "Large" / "report.html").stat().st_size / 1e6, 1),
    }


def run_row(name: str) -> dict[str, float]:
    """Make the workspace of a row and measure it."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if name == "8 plans x 5 folds x 1,000 cases x 4 regions":
            make_workspace(root, 5, 1000)
        else:
            add_pictures(root, make_workspace(root, 1, 200)[0])
        return measure(root)


def main() -> None:
    """Measure each row in a process of its own, so that peaks do not mix."""
    names = ("8 plans x 5 folds x 1,000 cases x 4 regions", "8 plans x 200 cases, with pictures")
    if len(sys.argv) > 1:
        print(json.dumps(run_row(sys.argv[1])))
        return
    rows = {}
    for name in names:
        answer = subprocess.run([sys.executable, __file__, name], check=True, capture_output=True, text=True)
        rows[name] = json.loads(answer.stdout)
        print(f"{name}: {rows[name]}")
    content = {"cores": os.cpu_count(), "load_average_at_the_end": round(os.getloadavg()[0], 1), "rows": rows}
    OUTPUT.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
