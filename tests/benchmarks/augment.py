"""Time nnU-Net's augmentation of a batch: autoseg's pipeline, on CPUs or a GPU, against batchgeneratorsv2 on CPUs.

``python tests/benchmarks/augment.py`` prints a table and writes docs/benchmarks/augment.{json,md}; with --device cuda
it also times the network's own step. batchgeneratorsv2 augments sample by sample: its time for a batch is the number
of samples times the sum over its transforms of probability times time. autoseg's is the mean over drawn batches, in
which augmentations occur about as often as on average. On a CPU the processor's time is counted and not the clock's,
so that what else the machine does matters little; with one thread, as nnU-Net's workers have, both are equal on an idle
machine.
"""

import argparse
import json
import math
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from autoseg.augment import spatial
from autoseg.augment._pipeline import BatchParameters, Pipeline
from autoseg.networks import load_architecture
from autoseg.plan.augmentation import Setting, make_recipe
from autoseg.train.device import DTYPES, choose_precision, name_device

SIZES = ((64, 64, 64), (128, 128, 128), (160, 192, 160))
CHANNELS = (1, 4)
CLASSES = (2, 15, 100)
BATCHES = (1, 2, 4, 8)
ROOT = Path(__file__).resolve().parents[2]

Size = tuple[int, ...]
Row = dict[str, Any]


def make_batch(batch: int, channels: int, size: Size, num_classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a noisy smooth image and blobs of ``num_classes`` classes."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(batch, channels, *(max(n // 8, 2) for n in size), generator=generator)
    noise = torch.randn(batch, channels, *size, generator=generator)
    images = F.interpolate(coarse, size, mode="trilinear") + 0.1 * noise
    blobs = torch.randint(0, num_classes, (batch, 1, 6, 6, 6), generator=generator).float()
    return images, F.interpolate(blobs, size, mode="nearest")[:, 0].short()


def median_seconds(
    run: Callable[[], object], repeats: int, clock: Callable[[], float] = time.process_time, *, warm_up: bool = True
) -> float:
    """Return the median time of a call, by default after one call to warm up."""
    times = []
    for _ in range(repeats + warm_up):
        started = clock()
        run()
        times.append(clock() - started)
    return statistics.median(times[warm_up:])


def batchgenerators_transforms(patch_size: Size) -> dict[str, tuple[float, Any]]:
    """Return nnU-Net's transforms, each always applied, and how often nnU-Net applies each to a sample or channel."""
    from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
    from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
    from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
    from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
    from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
    from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
    from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform

    factor, gamma = BGContrast((0.75, 1.25)), BGContrast((0.7, 1.5))
    return {
        "gaussian_noise": (0.1, GaussianNoiseTransform((0, 0.1), 1, True)),
        "gaussian_blur": (0.2 * 0.5, GaussianBlurTransform((0.5, 1.0), False, False, 1, benchmark=True)),
        "brightness": (0.15, MultiplicativeBrightnessTransform(factor, False, 1)),
        "contrast": (0.15, ContrastTransform(factor, True, False, 1)),
        "low_resolution": (0.25 * 0.5, SimulateLowResolutionTransform((0.5, 1), False, True, None, None, 1)),
        "gamma, inverted": (0.1, GammaTransform(gamma, 1, False, 1, 1)),
        "gamma": (0.3, GammaTransform(gamma, 0, False, 1, 1)),
        "mirror": (1.0, MirrorTransform((0, 1, 2))),
    }


def largest_box(size: Size) -> tuple[float, ...]:
    """Return the box that nnU-Net reads of every sample, and that no sample of autoseg's exceeds."""
    return spatial._largest_source(spatial.Config(), size)


def time_batchgenerators(size: Size, channels: int, num_classes: int, repeats: int) -> dict[str, float]:
    """Return the expected seconds of each step for one sample, with the present number of threads."""
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform

    images, classes = make_batch(1, channels, tuple(int(n) for n in largest_box(size)), num_classes)
    options = {"p_synchronize_scaling_across_axes": 1, "border_mode_seg": "constant", "padding_value_seg": -1}
    rotation, scaling = (-0.5236, 0.5236), (0.7, 1.4)
    certain = SpatialTransform(size, 0, False, p_rotation=1, rotation=rotation, p_scaling=1, scaling=scaling, **options)
    never = SpatialTransform(size, 0, False, **options)

    def both(transform: Any) -> Callable[[], object]:
        return lambda: transform(image=images[0], segmentation=classes)

    seconds = {
        "spatial": 0.36 * median_seconds(both(certain), max(repeats // 2, 1), warm_up=num_classes < 50)
        + 0.64 * median_seconds(both(never), repeats)
    }
    patch, labels = spatial.crop_centre(images[0], size).clone(), spatial.crop_centre(classes, size).clone()
    for name, (probability, transform) in batchgenerators_transforms(size).items():
        data = {"image": patch.clone()} | ({"segmentation": labels.clone()} if name == "mirror" else {})
        if name == "gaussian_blur":  # lets it choose its convolutions for each width of the kernel
            for _ in range(4):
                transform(image=patch.clone())
        seconds[name] = probability * median_seconds(lambda t=transform, d=data: t(**d), repeats)
    return seconds


def time_autoseg(
    size: Size, channels: int, num_classes: int, batch: int, num_batches: int, device: torch.device
) -> float:
    """Return the mean seconds of augmenting a batch over ``num_batches`` drawn ones, and in front of these one more."""
    pipeline = Pipeline([(entry.pop("name"), entry) for entry in make_recipe("nnunet", Setting(size))])
    largest = tuple(n + 2 * math.ceil((most - n) / 2) for n, most in zip(size, largest_box(size)))
    whole = [part.expand(batch, *part.shape[1:]) for part in make_batch(1, channels, largest, num_classes)]
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    times = []
    drawn = draw_typical(pipeline, (batch, channels, *size), num_batches)
    for parameters in (drawn[0], *drawn):
        source = pipeline.source_shape(parameters, size)
        images, classes = (spatial.crop_centre(part, source).clone().to(device) for part in whole)
        synchronize(device)
        started = clock()
        pipeline.apply(images, classes, parameters, size)
        synchronize(device)
        times.append(clock() - started)
    return statistics.mean(times[1:])


def draw_typical(pipeline: Pipeline, shape: Size, num_batches: int) -> list[BatchParameters]:
    """Return the parameters of batches that are augmented about as often as on average, of 50 draws the nearest."""

    def rates(batches: list[BatchParameters]) -> torch.Tensor:
        applied = [[one["applied"].float().mean() for one in batch if "applied" in one] for batch in batches]
        return torch.tensor(applied).mean(0)

    draws = []
    for seed in range(50):
        generator = torch.Generator().manual_seed(seed)
        draws.append([pipeline.sample(shape, generator) for _ in range(num_batches)])
    found = torch.stack([rates(batches) for batches in draws])
    expected = torch.tensor([0.36, 0.1, 0.2 * 0.5, 0.15, 0.15, 0.25 * 0.5, 0.1, 0.3])
    weights = torch.tensor([4.0, *[1.0] * 7])  # interpolation takes most of the time
    return draws[int(((found - expected).abs() * weights).sum(1).argmin())]


def time_step(size: Size, channels: int, num_classes: int, batch: int, device: torch.device, repeats: int) -> float:
    """Return the seconds of one training step of the plan ``nnunet``, augmentation left out."""
    architecture = load_architecture("nnunet")
    config = architecture.derive((1.0,) * 3, size)
    network = architecture.build(config, channels, num_classes).to(device)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.99, nesterov=True)
    images, classes = (part.to(device) for part in make_batch(batch, channels, size, num_classes))
    precision = choose_precision("bf16", device)

    def step() -> None:
        with torch.autocast(device.type, dtype=DTYPES[precision], enabled=precision != "fp32"):
            logits = network(images)[0]
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(logits.float(), classes.long()).backward()
        optimizer.step()
        synchronize(device)

    return median_seconds(step, repeats, time.perf_counter)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(options: argparse.Namespace, done: list[Row]) -> Iterator[Row]:
    """Yield a row for each size, number of channels, classes and samples that is not ``done``."""
    for size, channels, num_classes in product(options.sizes, options.channels, options.classes):
        wanted = {"size": list(size), "channels": channels, "classes": num_classes}
        have = [row["batch"] for row in done if wanted.items() <= row.items()]
        missing = [batch for batch in options.batches if batch not in have]
        theirs = peer_seconds(size, channels, num_classes, options) if missing else 0.0
        for batch in missing:
            yield {**wanted, **measure_row(size, channels, num_classes, batch, theirs, options)}


def measure_row(
    size: Size, channels: int, num_classes: int, batch: int, theirs: float, options: argparse.Namespace
) -> Row:
    """Return the figures of one row; batchgeneratorsv2 takes ``theirs`` seconds for a sample."""
    device = torch.device(options.device)
    num_batches = max(options.samples // batch, 2)
    own = time_autoseg(size, channels, num_classes, batch, num_batches, device)
    row = {"batch": batch, "num_batches": num_batches, "autoseg_s": own, "batchgeneratorsv2_s": batch * theirs}
    row["ratio"] = batch * theirs / own
    if options.step:
        row["step_s"] = time_step(size, channels, num_classes, batch, device, options.repeats)
        row["share_of_step"] = own / row["step_s"]
    return row


def peer_seconds(size: Size, channels: int, num_classes: int, options: argparse.Namespace) -> float:
    """Return batchgeneratorsv2's seconds for a sample."""
    steps = time_batchgenerators(size, channels, num_classes, options.repeats)
    if options.verbose:
        print({name: round(1e3 * value, 2) for name, value in steps.items()}, flush=True)
    return sum(steps.values())


COLUMNS = ("size", "channels", "classes", "batch", "autoseg, ms", "batchgeneratorsv2, ms", "ratio")


def cells(row: Row) -> list[str]:
    """Return the row of the table."""
    size = "x".join(map(str, row["size"]))
    own, theirs = (f"{1e3 * row[key]:.1f}" for key in ("autoseg_s", "batchgeneratorsv2_s"))
    texts = [size, str(row["channels"]), str(row["classes"]), str(row["batch"]), own, theirs, f"{row['ratio']:.1f}"]
    return texts + ([f"{1e3 * row['step_s']:.1f}", f"{row['share_of_step']:.1%}"] if "step_s" in row else [])


def write(rows: list[Row], options: argparse.Namespace) -> None:
    """Write the JSON document and the table."""
    from importlib.metadata import version

    device = torch.device(options.device)
    machine = {
        "device": name_device(device), "cpu": name_device(torch.device("cpu")), "threads": options.threads,
        "python": platform.python_version(), "torch": torch.__version__,
        "batchgeneratorsv2": version("batchgeneratorsv2"),
    }  # fmt: skip
    ratio = statistics.geometric_mean(row["ratio"] for row in rows)
    document = {"machine": machine, "mean_ratio": ratio, "rows": rows}
    folder = options.output
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{options.name}.json").write_text(json.dumps(document, indent=1) + "\n")
    columns = [*COLUMNS, *(("step, ms", "share of the step") if options.step else ())]
    lines = [
        "# Augmentation: time of a batch",
        "",
        f"Made by `python tests/benchmarks/augment.py` on {machine['device']} with {options.threads} CPU thread(s), "
        f"torch {machine['torch']}, batchgeneratorsv2 {machine['batchgeneratorsv2']}. How it is measured stands in the "
        f"script. On the (geometric) average batchgeneratorsv2 takes {ratio:.1f} times as long.",
        "",
        "| " + " | ".join(columns) + " |",
        "|" + "---|" * len(columns),
        *("| " + " | ".join(cells(row)) + " |" for row in rows),
    ]
    (folder / f"{options.name}.md").write_text("\n".join(lines) + "\n")


def sizes(text: str) -> Size:
    return tuple(int(part) for part in text.split("x"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=sizes, nargs="+", default=SIZES, help="e.g. 64x64x64")
    parser.add_argument("--channels", type=int, nargs="+", default=CHANNELS)
    parser.add_argument("--classes", type=int, nargs="+", default=CLASSES)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--samples", type=int, default=64, help="samples that autoseg augments for each row")
    parser.add_argument("--repeats", type=int, default=4, help="timed calls of each of batchgeneratorsv2's transforms")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--step", action="store_true", help="time the network's step too; always on a GPU")
    parser.add_argument("--verbose", action="store_true", help="print the parts of batchgeneratorsv2's time")
    parser.add_argument("--resume", action="store_true", help="measure only the rows that the files lack")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "benchmarks")
    parser.add_argument("--name", default="augment", help="of the files")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.step = options.step or options.device != "cpu"
    path = options.output / f"{options.name}.json"
    rows = json.loads(path.read_text())["rows"] if options.resume else []
    for row in measure(options, list(rows)):
        rows.append(row)
        print("  ".join(text.rjust(12) for text in cells(row)), flush=True)
        write(rows, options)
    print(f"wrote {path} and .md")


if __name__ == "__main__":
    main()
