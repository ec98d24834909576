"""Whole predictions beside nnU-Net's, with the same network, weights, tiles and mirroring, from array to array.

    python tests/benchmarks/prediction_speed.py RUN IMAGES OUTPUT --peer PYTHON [--cases N] [--repeat-slices K]

RUN is a trained fold of a 3-D plan, IMAGES a folder of its images. PYTHON has nnunetv2 and can import autoseg. Each
tool runs in a process of its own, one after the other. CPU seconds are given beside the wall clock's, since a busy
machine stretches only the latter. Writes OUTPUT.json and OUTPUT.md.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

TOOLS = ("nnunet", "autoseg_fp32", "autoseg")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--peer", default=sys.executable)
    parser.add_argument("--cases", type=int, default=5)
    parser.add_argument("--tool", choices=TOOLS)
    parser.add_argument("--title", default="")
    options = parser.parse_args()
    if options.tool:
        print(json.dumps(_measure(options)))
        return
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for tool in TOOLS:
            command = [options.peer, __file__, str(options.run), str(options.images), folder, "--tool", tool,
                       "--cases", str(options.cases)]  # fmt: skip
            finished = subprocess.run(command, capture_output=True, text=True, check=False)
            if finished.returncode:
                sys.exit(finished.stderr)
            rows[tool] = json.loads(finished.stdout.splitlines()[-1])
            print(tool, rows[tool], flush=True)
        expected = np.load(Path(folder) / "nnunet.npz")
        for tool in TOOLS[1:]:
            found = np.load(Path(folder) / f"{tool}.npz")
            same = sum(int((found[name] == expected[name]).sum()) for name in expected)
            rows[tool]["same_voxels"] = same / sum(expected[name].size for name in expected)
    rows["title"] = options.title
    options.output.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
    options.output.with_suffix(".md").write_text(_page(rows))


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    import torch

    from autoseg.data.volumes import read_image, to_canonical
    from autoseg.documents import read_document
    from autoseg.plan.plan import Plan
    from autoseg.train.state import load_network

    plan = read_document(options.run / "plan.json", Plan)
    network = load_network(options.run, plan, which="last", device=torch.device("cpu"))
    paths = sorted(options.images.glob("*_0000.*"))[: options.cases]
    volumes = {path.name: to_canonical(read_image([path])) for path in paths}
    segment = _nnunet(plan, network) if options.tool == "nnunet" else _autoseg(plan, network, options.tool)
    first = next(iter(volumes.values()))
    segment(first)  # what is set up once counts for neither
    wall, cpu = perf_counter(), process_time()
    found = {name: segment(volume) for name, volume in volumes.items()}
    times = perf_counter() - wall, process_time() - cpu
    np.savez(options.output / f"{options.tool}.npz", **found)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    shapes = [list(volume.array.shape) for volume in volumes.values()]
    return {"seconds": times[0], "cpu_seconds": times[1], "peak_gb": peak, "cases": len(found), "shapes": shapes}


def _autoseg(plan: Any, network: Any, tool: str) -> Any:
    import torch

    from autoseg.predict.model import Member, Model
    from autoseg.predict.predictor import predict_volume

    if tool == "autoseg_fp32":
        plan = plan.model_copy(update={"training": plan.training.model_copy(update={"precision": "fp32"})})
    model = Model((Member(plan, (network,)),), torch.device("cpu"))
    return lambda volume: predict_volume(model, volume)


def _nnunet(plan: Any, network: Any) -> Any:
    import torch
    from torch import nn

    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ.setdefault(name, tempfile.gettempdir())
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    class Finest(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.network(x)[0]

    finest, manager = Finest().eval(), PlansManager(_nnunet_plans(plan))
    predictor = nnUNetPredictor(
        tile_step_size=plan.prediction.tile_step, use_gaussian=True, use_mirroring=bool(plan.prediction.mirror_axes),
        perform_everything_on_device=False, device=torch.device("cpu"), verbose=False, allow_tqdm=False,
    )  # fmt: skip
    dataset = {"labels": plan.dataset.labels, "channel_names": {str(i): c for i, c in enumerate(plan.dataset.channels)},
               "file_ending": ".nii.gz"}  # fmt: skip
    axes = tuple(plan.prediction.mirror_axes)
    predictor.manual_initialization(
        finest, manager, manager.get_configuration("3d_fullres"), [finest.state_dict()], dataset, "x", axes
    )

    def segment(volume: Any) -> np.ndarray:
        properties = {"spacing": list(volume.geometry.spacing)}
        return np.asarray(predictor.predict_single_npy_array(volume.array.copy(), properties)).astype(np.uint8)

    return segment


def _nnunet_plans(plan: Any) -> dict[str, Any]:
    """Return what nnU-Net calls plans, for the same preprocessing and patch."""
    schemes = {"ct": "CTNormalization", "zscore": "ZScoreNormalization", "rescale": "RescaleTo01Normalization",
               "rgb": "RGBTo01Normalization", "none": "NoNormalization"}  # fmt: skip
    settings, resample = plan.preprocessing, "resample_data_or_seg_to_shape"
    channels = settings.normalization
    orders = {"order_z": 0, "force_separate_z": None}
    return {
        "dataset_name": "Dataset001_X", "plans_name": "x", "image_reader_writer": "SimpleITKIO",
        "label_manager": "LabelManager", "experiment_planner_used": "ExperimentPlanner",
        "transpose_forward": list(settings.transpose),
        "transpose_backward": [int(axis) for axis in np.argsort(settings.transpose)],
        "foreground_intensity_properties_per_channel": {
            str(i): {"percentile_00_5": c.lower, "percentile_99_5": c.upper, "mean": c.mean, "std": c.std}
            for i, c in enumerate(channels)
        },
        "configurations": {"3d_fullres": {
            "data_identifier": "x", "preprocessor_name": "DefaultPreprocessor", "batch_size": 2,
            "patch_size": list(plan.training.patch_size), "spacing": list(settings.spacing),
            "median_image_size_in_voxels": list(plan.training.patch_size),
            "normalization_schemes": [schemes[c.scheme] for c in channels],
            "use_mask_for_norm": [c.use_mask for c in channels],
            "resampling_fn_data": resample, "resampling_fn_seg": resample, "resampling_fn_probabilities": resample,
            "resampling_fn_data_kwargs": {"is_seg": False, "order": settings.image_order, **orders},
            "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, **orders},
            "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, **orders},
            "architecture": {"network_class_name": "x", "arch_kwargs": {}, "_kw_requires_import": []},
            "batch_dice": False,
        }},
    }  # fmt: skip


def _page(rows: dict[str, Any]) -> str:
    peer = rows["nnunet"]
    names = {"nnunet": "nnU-Net 2.8.1's predictor", "autoseg_fp32": "autoseg in fp32", "autoseg": "autoseg as it runs"}
    lines = [
        f"# Prediction beside nnU-Net: {rows['title']}\n",
        f"Made by `tests/benchmarks/prediction_speed.py`: {peer['cases']} cases of {peer['shapes'][0]} voxels and the "
        "like, the same network, weights, tiles and mirroring, on two cores of a CPU that was busy otherwise.\n",
        "| | seconds | CPU seconds | nnU-Net's CPU seconds over these | peak memory | same voxels |",
        "|---|---|---|---|---|---|",
    ]
    for tool in TOOLS:
        row = rows[tool]
        same = f"{100 * row['same_voxels']:.4f} %" if "same_voxels" in row else ""
        ratio = peer["cpu_seconds"] / row["cpu_seconds"]
        times = f"{row['seconds']:.1f} | {row['cpu_seconds']:.1f} | {ratio:.2f}"
        lines.append(f"| {names[tool]} | {times} | {row['peak_gb']:.2f} GB | {same} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
