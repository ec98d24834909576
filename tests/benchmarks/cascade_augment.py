"""Time a cascade's two augmentations, always applied, against batchgeneratorsv2's on one CPU thread.

``python tests/benchmarks/cascade_augment.py`` prints a table and writes docs/benchmarks/cascade_augment.json. Both get
the same operators, radii and components; batchgeneratorsv2 works on one-hot channels, autoseg on the map of classes.
The processor's time is counted. ``--device cuda`` times autoseg there instead, by the clock.
"""

import argparse
import json
import platform
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from skimage.measure import label
from torch.nn import functional as F

from autoseg.augment import load_augmentation

ROOT = Path(__file__).resolve().parents[2]
RADII = (1, 4, 8)


def make_found(size: int, num_labels: int) -> torch.Tensor:
    """Return classes (1, Z, Y, X) in blobs, about half of it background."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(-num_labels, num_labels + 1, (1, 1, 8, 8, 8), generator=generator).clamp_min(0)
    return F.interpolate(coarse.float(), (size,) * 3, mode="nearest")[:, 0].to(torch.int16)


def seconds(run: Callable[[], object], repeats: int, device: str) -> float:
    """Return the least time of a call."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    times = []
    for _ in range(repeats + 1):
        started = clock()
        run()
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(clock() - started)
    return min(times[1:])


def time_morphology(size: int, num_labels: int, radius: int, repeats: int, device: str) -> tuple[float, float | None]:
    """Return the seconds of dilating every class, here and there."""
    module = load_augmentation("previous_morphology")
    found = make_found(size, num_labels)
    images, maps = torch.zeros(1, 1, 1, 1, 1, device=device), torch.stack([found, found], dim=1).to(device)
    drawn = {
        "order": torch.arange(1, num_labels + 1)[None],
        "applied": torch.ones(1, num_labels, dtype=torch.bool),
        "operator": torch.zeros(1, num_labels, dtype=torch.long),
        "radius": torch.full((1, num_labels), radius),
    }
    own = seconds(lambda: module.apply(images, maps.clone(), drawn), repeats, device)
    if device != "cpu":
        return own, None
    from batchgeneratorsv2.transforms.nnunet import random_binary_operator as theirs

    channels = list(range(num_labels))
    operators = [theirs.binary_dilation_torch] * num_labels
    parameters = {"apply_to_channels": channels, "operators": operators, "strel_size": [radius] * num_labels}
    transform = theirs.ApplyRandomBinaryOperatorTransform(channels)
    hot = torch.stack([(found[0] == one).float() for one in range(1, num_labels + 1)])
    return own, seconds(lambda: transform._apply_to_image(hot.clone(), **parameters), repeats, device)


def time_component(size: int, num_labels: int, repeats: int, device: str) -> tuple[float, float | None]:
    """Return the seconds of taking away a component of every class, here and there."""
    module = load_augmentation("previous_component")
    found = make_found(size, num_labels)
    images, maps = torch.zeros(1, 1, 1, 1, 1, device=device), torch.stack([found, found], dim=1).to(device)
    config = module.Config(probability=1.0, probability_label=1.0, num_labels=num_labels)
    drawn = module.sample(config, (1, 1, size, size, size), torch.Generator().manual_seed(0))
    own = seconds(lambda: module.apply(images, maps.clone(), drawn), repeats, device)
    if device != "cpu":
        return own, None
    transform, channels = _import_removal()(list(range(num_labels)), 0, 0.15), list(range(num_labels))
    hot = torch.stack([(found[0] == one).float() for one in range(1, num_labels + 1)])
    return own, seconds(lambda: transform._apply_to_image(hot.clone(), apply_to_channels=channels), repeats, device)


def _import_removal() -> Any:
    """Import batchgeneratorsv2's removal, whose helper package may not be there; the helper is three lines."""

    def label_with_component_sizes(mask: np.ndarray) -> tuple[np.ndarray, dict[int, int]]:
        components = label(mask)
        return components, {i + 1: int(n) for i, n in enumerate(np.bincount(components.ravel())[1:])}

    for name in ("acvl_utils", "acvl_utils.morphology", "acvl_utils.morphology.morphology_helper"):
        sys.modules.setdefault(name, types.ModuleType(name))
    helper: Any = sys.modules["acvl_utils.morphology.morphology_helper"]
    helper.label_with_component_sizes = label_with_component_sizes
    from batchgeneratorsv2.transforms.nnunet.remove_connected_components import (
        RemoveRandomConnectedComponentFromOneHotEncodingTransform,
    )

    return RemoveRandomConnectedComponentFromOneHotEncodingTransform


def main() -> None:
    """Print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for size in options.sizes:
        for num_labels in (1, 2, 14):
            jobs = [(f"dilation, radius {r}", time_morphology, (size, num_labels, r)) for r in RADII]
            for name, run, arguments in (*jobs, ("component", time_component, (size, num_labels))):
                own, theirs = run(*arguments, options.repeats, options.device)
                rows.append({"size": size, "labels": num_labels, "what": name, "autoseg_ms": 1e3 * own,
                             "batchgeneratorsv2_ms": None if theirs is None else 1e3 * theirs})  # fmt: skip
                ratio = "" if theirs is None else f"{1e3 * theirs:10.1f} ms {theirs / own:6.1f} times"
                print(f"{size:4}^3 {num_labels:3} labels  {name:20} {1e3 * own:8.1f} ms {ratio}", flush=True)
    path = ROOT / "docs" / "benchmarks" / f"cascade_augment{'' if options.device == 'cpu' else '_cuda'}.json"
    path.write_text(json.dumps({"machine": platform.processor() or platform.machine(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
