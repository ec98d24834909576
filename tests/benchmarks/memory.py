"""Predicted against measured training memory of every architecture: ``python tests/benchmarks/memory.py``.

On a CUDA device each architecture's plan (for a budget of 8 GB, or ``--memory GB``) is run for a few real iterations of
the training loop's own kind, and torch.cuda.max_memory_reserved is compared with the prediction. Without one, only what
does not depend on cuDNN is compared: the tensors of an fp32 iteration, counted while it really runs on the CPU at a
small patch. Writes docs/benchmarks/memory.json and prints it as a table.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from autoseg.data.labels import Labels
from autoseg.documents import write_text
from autoseg.errors import PlanError
from autoseg.fingerprint.fingerprint import CaseFingerprint, ChannelIntensities, Fingerprint
from autoseg.losses._deep_supervision import build_loss
from autoseg.networks import available_architectures, load_architecture
from autoseg.networks._topology import pad_to_multiple
from autoseg.plan.memory import STATE_PER_PARAMETER, Workload, measure_cost
from autoseg.plan.plan import Plan
from autoseg.plan.planner import make_plan
from autoseg.plan.trace import Tracker
from autoseg.train.device import DTYPES, choose_precision, cudnn_settings, name_device, place_network
from autoseg.train.optimization import build_optimizer
from autoseg.train.state import build_network

TARGET = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "memory.json"
ITERATIONS = 5


def ct_fingerprint() -> Fingerprint:
    """Return a LiTS-like dataset: 131 equal CTs of 432 x 512 x 512 voxels of 1.0 x 0.77 x 0.77 mm."""
    labels = Labels.from_names({"background": 0, "liver": 1, "tumor": 2})
    case = CaseFingerprint(
        name="case", spacing=(1.0, 0.7676, 0.7676), shape=(432, 512, 512), shape_after_crop=(432, 512, 512),
        orientation="LPS", label_voxels={},
    )  # fmt: skip
    cases = tuple(case.model_copy(update={"name": f"case_{i:03d}"}) for i in range(131))
    intensities = ChannelIntensities(
        mean=99.4, median=99.0, std=39.4, min=-200.0, max=400.0, percentile_00_5=-17.0, percentile_99_5=201.0
    )
    return Fingerprint(
        schema="autoseg.fingerprint.1", dataset="Lits", channels=("CT",), labels=labels.labels, regions=labels.regions,
        num_training=131, cases=cases, intensities=(intensities,), median_relative_size_after_cropping=1.0,
    )  # fmt: skip


def measure_on_gpu(plan: Plan, device: torch.device) -> dict[str, Any]:
    """Train the plan's network for a few iterations on random images; return memory and time."""
    training, labels = plan.training, plan.dataset.label_scheme
    precision = choose_precision(training.precision, device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    network = place_network(build_network(plan), device).train()
    optimizer = build_optimizer(training.optimizer, network.parameters())
    loss_of = build_loss(
        training.loss.name, training.loss.parameters, labels, deep_supervision=training.deep_supervision
    ).to(device)
    shape = (training.batch_size, *training.patch_shape)
    images = torch.randn(shape[0], len(plan.dataset.channels), *shape[1:], device=device)
    classes = torch.randint(0, labels.num_classes, shape, device=device, dtype=torch.int16)
    with cudnn_settings(device):
        for iteration in range(ITERATIONS):
            if iteration == 1:
                torch.cuda.synchronize(device)
                started = time.perf_counter()
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cuda", dtype=DTYPES[precision], enabled=precision != "fp32"):
                outputs = network(images)
            loss_of([logits.float() for logits in outputs], classes).backward()
            optimizer.step()
        torch.cuda.synchronize(device)
    seconds = (time.perf_counter() - started) / (ITERATIONS - 1)
    return {
        "reserved_gb": torch.cuda.max_memory_reserved(device) / 1e9,
        "allocated_gb": torch.cuda.max_memory_allocated(device) / 1e9,
        "seconds_per_iteration": seconds,
        "tflops_per_second": plan.estimate.flops_per_iteration / seconds / 1e12,
    }


def compare_on_gpu(memory_gb: float) -> dict[str, Any]:
    """Return a row an architecture: prediction, measurement, their ratio."""
    device, rows = torch.device("cuda"), []
    for name in available_architectures():
        try:
            plan = make_plan(name, ct_fingerprint(), memory_gb=memory_gb)
        except PlanError as error:
            rows.append({"architecture": name, "refused": str(error)})
            continue
        row = _described(plan)
        try:
            measured = measure_on_gpu(plan, device)
            row |= measured | {"predicted_over_reserved": plan.estimate.memory_gb / measured["reserved_gb"]}
        except torch.OutOfMemoryError:
            row["out_of_memory"] = True
        rows.append(row)
    return {"device": name_device(device), "torch": torch.__version__, "budget_gb": memory_gb, "rows": rows}


def compare_on_cpu() -> dict[str, Any]:
    """Return a row an architecture: bytes foreseen without values, and counted in a real fp32 iteration."""
    rows = []
    for name in available_architectures():
        architecture = load_architecture(name)
        spacing, size = (1.0, 1.0, 1.0), (32, 32, 64)
        size = pad_to_multiple(size, architecture.divisor(architecture.derive(spacing, size)))
        config = architecture.derive(spacing, size)
        workload = Workload(architecture=architecture, in_channels=1, out_channels=3, precision="fp32", optimizer="sgd")
        cost = measure_cost(workload, config, size, 1)
        foreseen = cost.memory_bytes - 4 * cost.parameters * STATE_PER_PARAMETER["sgd"]
        counted = _count_real_iteration(replace(workload), config, size)
        rows.append(
            {"architecture": name, "patch": list(size), "foreseen_gb": foreseen / 1e9, "counted_gb": counted / 1e9,
             "ratio": foreseen / counted}
        )  # fmt: skip
    missing = "no CUDA device: autocast, cuDNN's workspaces and the allocator's gaps are unmeasured; run this on a GPU"
    return {"device": "cpu", "torch": torch.__version__, "missing": missing, "rows": rows}


def _count_real_iteration(workload: Workload, config: Any, size: tuple[int, ...]) -> int:
    """Run an iteration with values and count what its tensors take at most."""
    from autoseg.plan.memory import _loss

    network = workload.architecture.build(config, workload.in_channels, workload.out_channels)
    tracker = Tracker(with_rules=False)
    for tensor in (*network.parameters(), *network.buffers()):
        tracker.add(tensor)
    with tracker:
        images, classes = torch.zeros(1, 1, *size), torch.zeros(1, *size, dtype=torch.int16)
        outputs = network(images)
        losses = [_loss(logits, classes) for logits in outputs]
        del outputs
        torch.stack(losses).sum().backward()
    return tracker.peak


def _described(plan: Plan) -> dict[str, Any]:
    training, estimate = plan.training, plan.estimate
    return {
        "architecture": plan.name, "patch": list(training.patch_size), "batch": training.batch_size,
        "parameters": estimate.parameters, "flops_per_iteration": estimate.flops_per_iteration,
        "predicted_gb": estimate.memory_gb,
    }  # fmt: skip


def main() -> None:
    """Compare, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory", type=float, default=8.0, help="budget of the plans in GB")
    arguments = parser.parse_args()
    result = compare_on_gpu(arguments.memory) if torch.cuda.is_available() else compare_on_cpu()
    for row in result["rows"]:
        texts = (f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items())
        print("  ".join(texts))
    write_text(TARGET, json.dumps(result, indent=1) + "\n")
    print(f"wrote {TARGET}")


if __name__ == "__main__":
    main()
