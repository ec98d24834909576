"""Peak memory of bringing logits back to the image's grid, for 2, 15 and 100 classes, in a process each.

The source makes each channel's slices when they are asked for, as a sliding window over strips does; so what is
measured is the way back alone. Writes docs/benchmarks/restore_memory.json and .md.

    python tests/benchmarks/restore_memory.py --shape 600 512 512
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.data.labels import Labels
from autoseg.data.volumes import Geometry
from autoseg.plan.plan import Normalization, Plan, PlanDataset, Preprocessing
from autoseg.preprocess.case import CaseProperties, resampled_shape
from autoseg.preprocess.restore import Restorable, restore, separate_axis_back

OUTPUT = Path(__file__).resolve().parents[2] / "docs" / "benchmarks"
CLASSES = (2, 15, 100)
GOAL_GB = 4.0
SPACING, TARGET = (1.0, 0.8, 0.8), (1.25, 1.0, 1.0)
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
TEXT = """# Memory of the way back

Logits of a preprocessed case (spacing {target} mm) become label values on the image's grid (spacing {spacing} mm),
{shape} voxels (z, y, x). The logits are made when they are read, so this is the way back alone; a whole prediction
stands in [prediction_memory.md](prediction_memory.md). The peak is that of the whole process, Python and torch included
({base:.2f} GB before). Made by `python tests/benchmarks/restore_memory.py --shape {arguments}`. The goal is {goal:g} GB
with 100 classes on 600 x 512 x 512.

| classes | peak | all logits at once would be | seconds |
|---|---|---|---|
{rows}
"""


class MadeLogits:
    """Logits that exist only while they are read; every class leads somewhere."""

    def __init__(self, num_classes: int, strip: slice, width: int) -> None:
        self.num_classes = num_classes
        self.plane = np.random.default_rng(0).normal(size=(strip.stop - strip.start, width)).astype(np.float32)

    def channels(self, rows: slice) -> Iterator[np.ndarray]:
        """Yield each channel's rows."""
        depth = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None, None]
        for channel in range(self.num_classes):
            yield np.sin(self.plane * (channel + 1) + depth)


def measure(num_classes: int, shape: tuple[int, int, int]) -> dict[str, Any]:
    """Bring one case back in this process, and return what it took."""
    plan, case = make_plan(num_classes), make_case(shape)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    axis = separate_axis_back(plan, case)
    model = Restorable(lambda strip, _: MadeLogits(num_classes, strip, case.shape[2]), case.shape, axis)
    values = restore([model], case, plan)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "classes": num_classes, "shape": list(values.shape), "found": len(np.unique(values)), "seconds": seconds,
        "peak_gb": peak * 1024e-9, "before_gb": before * 1024e-9,
        "all_logits_gb": 4e-9 * num_classes * float(np.prod(shape)),
    }  # fmt: skip


def make_plan(num_classes: int) -> Plan:
    """Return a plan of which only what the way back needs is filled in."""
    labels = Labels.from_names({"background": 0, **{f"class {n}": n for n in range(1, num_classes)}})
    scheme = Normalization(scheme="none", use_mask=False, lower=None, upper=None, mean=None, std=None)
    return Plan.model_construct(
        name="memory",
        dataset=PlanDataset(name="Memory", channels=("CT",), labels=labels.labels, regions=labels.regions,
                            fingerprint_sha256="0" * 64),
        preprocessing=Preprocessing(orientation="LPS", transpose=(0, 1, 2), spacing=TARGET, downsample=1.0,
                                    normalization=(scheme,), image_order=3, label_order=1, separate_axis_threshold=3.0),
    )  # fmt: skip


def make_case(shape: tuple[int, int, int]) -> CaseProperties:
    """Return a case that was not cropped."""
    return CaseProperties(
        schema="autoseg.case.1", name="case", spacing=SPACING, shape_before_crop=shape, shape_before_resampling=shape,
        geometry=Geometry(shape=shape, spacing=SPACING, origin=(0.0, 0.0, 0.0), direction=IDENTITY),
        box=((0, shape[0]), (0, shape[1]), (0, shape[2])), shape=resampled_shape(shape, SPACING, TARGET), sources=(),
    )  # fmt: skip


def main() -> None:
    """Measure each number of classes in a process of its own, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", nargs=3, type=int, default=(600, 512, 512), metavar=("Z", "Y", "X"))
    parser.add_argument("--one", type=int, help="Measure this number of classes here, and print it.")
    options = parser.parse_args()
    z, y, x = options.shape
    if options.one:
        print(json.dumps(measure(options.one, (z, y, x))))
        return
    rows = []
    for count in CLASSES:
        command = [sys.executable, __file__, "--one", str(count), "--shape", str(z), str(y), str(x)]
        finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows.append(json.loads(finished.stdout.splitlines()[-1]))
    lines = "\n".join(
        f"| {row['classes']} | {row['peak_gb']:.2f} GB | {row['all_logits_gb']:.1f} GB | {row['seconds']:.0f} |"
        for row in rows
    )
    text = TEXT.format(
        target=_times(TARGET), spacing=_times(SPACING), shape=_times((z, y, x)), base=rows[0]["before_gb"],
        arguments=f"{z} {y} {x}", goal=GOAL_GB, rows=lines,
    )  # fmt: skip
    OUTPUT.mkdir(parents=True, exist_ok=True)
    (OUTPUT / "restore_memory.json").write_text(json.dumps(rows, indent=1) + "\n")
    (OUTPUT / "restore_memory.md").write_text(text)
    sys.stdout.write(text)


def _times(values: tuple[float, ...]) -> str:
    return " x ".join(f"{value:g}" for value in values)


if __name__ == "__main__":
    main()
