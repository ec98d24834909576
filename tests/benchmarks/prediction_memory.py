"""Peak host memory of a whole prediction, from file to file.

    python tests/benchmarks/prediction_memory.py OUTPUT [--only CLASSES,SLICES ...]

A network of one convolution gives as many classes as asked for, so that the time is that of everything else. Each size
runs in a process of its own. Writes OUTPUT.json and OUTPUT.md; what they hold of other sizes is kept. Tiles do not
overlap here (tile_step 1), which changes the time and not the memory.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter, process_time

SIZES = tuple((classes, slices) for slices in (600, 150, 300) for classes in (100, 15, 2))
PATCH = (64, 128, 128)
EXPLANATION = (
    "What is held: torch and Python (0.4 GB), the preprocessed image (4 bytes a voxel), and logits, of which all "
    "models together hold `LOGITS_BYTES` (3 GB) at most. A case whose logits take no more than half of that is "
    "computed at once; of a larger one only the slices that tiles still reach are held, and where even these are more "
    "than the limit, the image is done in strips, some of whose tiles are computed again for the next strip. So memory "
    "grows with the classes up to the limit and not beyond it; a smaller limit would be flatter and slower. On top "
    "come the logits of the tile that is being computed (0.4 GB for 100 classes here)."
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    parser.add_argument("--one", nargs=2, type=int, metavar=("CLASSES", "SLICES"))
    parser.add_argument("--only", nargs="+", metavar="CLASSES,SLICES", help="these sizes")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(*options.one)))
        return
    sizes = [tuple(map(int, size.split(","))) for size in options.only] if options.only else SIZES
    document = options.output.with_suffix(".json")
    rows = json.loads(document.read_text()) if document.is_file() else []
    for classes, slices in sizes:
        command = [sys.executable, __file__, str(options.output), "--one", str(classes), str(slices)]
        finished = subprocess.run(command, capture_output=True, text=True, check=True)
        row = json.loads(finished.stdout.splitlines()[-1])
        print(row, flush=True)
        rows = [one for one in rows if (one["classes"], one["shape"][0]) != (classes, slices)]
        rows = sorted([*rows, row], key=lambda one: (one["classes"], one["shape"][0]))
        document.write_text(json.dumps(rows, indent=1) + "\n")
        options.output.with_suffix(".md").write_text(page(rows))


def measure(classes: int, slices: int) -> dict[str, object]:
    """Predict one case, and return what it took."""
    import numpy as np
    import torch
    from torch import nn

    from autoseg.data.cases import Case
    from autoseg.data.labels import Labels
    from autoseg.data.volumes import Geometry, write_volume
    from autoseg.plan.plan import Normalization, Plan, PlanDataset, Prediction, Preprocessing, Training
    from autoseg.predict.logits import LOGITS_BYTES
    from autoseg.predict.model import Member, Model
    from autoseg.predict.predictor import predict_cases

    labels = Labels.from_names({"background": 0, **{f"class {n}": n for n in range(1, classes)}})
    scheme = Normalization(scheme="ct", use_mask=False, lower=-1000.0, upper=1000.0, mean=0.0, std=500.0)
    plan = Plan.model_construct(
        name="memory",
        dataset=PlanDataset(name="Memory", channels=("CT",), labels=labels.labels, regions=labels.regions,
                            fingerprint_sha256="0" * 64),
        preprocessing=Preprocessing(orientation="LPS", transpose=(0, 1, 2), spacing=(1.05, 0.8, 0.8), downsample=1.0,
                                    normalization=(scheme,), image_order=3, label_order=1, separate_axis_threshold=3.0),
        training=Training.model_construct(patch_size=PATCH, precision="fp32"),
        prediction=Prediction(tile_step=1.0, mirror_axes=(), surface_tolerance_mm=2.0),
    )  # fmt: skip
    torch.manual_seed(0)
    network = nn.Conv3d(1, classes, 1).eval()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path, shape = Path(folder) / "case_0000.nii", (slices, 512, 512)
        geometry = Geometry(shape=shape, spacing=(1.0, 0.8, 0.8), origin=(0.0,) * 3,
                            direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))  # fmt: skip
        coarse = rng.integers(-1000, 1000, (slices // 10, 52, 52)).astype(np.int16)
        write_volume(path, coarse.repeat(10, 0).repeat(10, 1).repeat(10, 2)[:, :512, :512], geometry)
        start, cpu = perf_counter(), process_time()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        model = Model((Member(plan, (network,)),), torch.device("cpu"))
        predict_cases(model, [Case("case", (path,), None)], Path(folder))
        seconds, cpu_seconds = perf_counter() - start, process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "classes": classes, "shape": [slices, 512, 512], "peak_gb": peak / 1e9, "before_gb": before * 1024 / 1e9,
        "logits_of_the_whole_gb": 4e-9 * classes * slices * 512 * 512, "limit_of_logits_gb": LOGITS_BYTES / 1e9,
        "seconds": seconds, "cpu_seconds": cpu_seconds,
    }  # fmt: skip


def page(rows: list[dict[str, object]]) -> str:
    """Return the table as Markdown."""
    lines = [
        "# Host memory of a prediction\n",
        "Made by `tests/benchmarks/prediction_memory.py`: one case from file to file, resampled along z both ways (1 "
        f"to 1.05 mm), patch {' x '.join(map(str, PATCH))}, a network of one convolution, on the CPU. The peak is that "
        "of the whole process, torch included. The machine was busy otherwise, which stretches seconds and not CPU "
        "seconds.\n",
        "| classes | image (z, y, x) | peak | all logits at once would be | seconds | CPU seconds |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        size = " x ".join(map(str, row["shape"]))
        whole = row["logits_of_the_whole_gb"]
        times = f"{row['seconds']:.0f} | {row['cpu_seconds']:.0f}"
        lines.append(f"| {row['classes']} | {size} | {row['peak_gb']:.1f} GB | {whole:.1f} GB | {times} |")
    return "\n".join([*lines, f"\n{EXPLANATION}"]) + "\n"


if __name__ == "__main__":
    main()
