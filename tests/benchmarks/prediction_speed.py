"""Whole predictions beside nnU-Net's, with the same weights, tiles and mirroring, from array to array.

    python tests/benchmarks/prediction_speed.py OUTPUT --peer PYTHON -a PLAN -d IMAGES [--run FOLD] [--cases N]
    python tests/benchmarks/prediction_speed.py OUTPUT --peer PYTHON -a PLAN --phantom Z,Y,X --classes N

PLAN is the document of a 3-D plan, changed by ``--set KEY=VALUE``; its weights are drawn unless ``--run`` names a
trained fold of it. IMAGES is a folder of images; a phantom is a drawn CT instead. PYTHON has nnunetv2 and can import
autoseg. nnU-Net runs its own network class on the same weights where the architecture is ``nnunet``. Each tool runs in
a process of its own, on one thread, one after the other. CPU seconds are given beside the wall clock's, since a busy
machine stretches only the latter; those within the networks are counted apart. Writes OUTPUT.json and OUTPUT.md.
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
NAMES = {"nnunet": "nnU-Net 2.8.1's predictor", "autoseg_fp32": "autoseg in fp32", "autoseg": "autoseg as it runs"}


def main() -> None:
    options = _options()
    if options.tool:
        print(json.dumps(_measure(options)))
        return
    rows: dict[str, Any] = {"title": options.title or options.plan.stem, "weights": _describe_weights(options)}
    rows["note"] = options.note
    with tempfile.TemporaryDirectory() as folder:
        for tool in options.tools:
            command = [options.peer, __file__, *sys.argv[1:], "--tool", tool, "--scratch", folder]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            finished = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
            if finished.returncode:
                sys.exit(finished.stderr)
            rows[tool] = json.loads(finished.stdout.splitlines()[-1])
            print(tool, rows[tool], flush=True)
        expected = np.load(Path(folder) / "nnunet.npz")
        for tool in options.tools[1:]:
            found = np.load(Path(folder) / f"{tool}.npz")
            same = sum(int((found[name] == expected[name]).sum()) for name in expected)
            rows[tool]["same_voxels"] = same / sum(expected[name].size for name in expected)
    options.output.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
    options.output.with_suffix(".md").write_text(_page(rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    parser.add_argument("--peer", default=sys.executable)
    parser.add_argument("-a", "--plan", type=Path, required=True)
    parser.add_argument("-d", "--images", type=Path)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--phantom", help="Z,Y,X")
    parser.add_argument("--classes", type=int, default=3)
    parser.add_argument("--thickness", type=float, default=2.5, help="of the phantom's slices, in mm")
    parser.add_argument("--cases", type=int, default=5)
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    parser.add_argument("--title", default="")
    parser.add_argument("--note", default="", help="a remark below the table")
    parser.add_argument("--tool", choices=TOOLS)
    parser.add_argument("--scratch", type=Path)
    return parser.parse_args()


def _describe_weights(options: argparse.Namespace) -> str:
    changes = f", changed by {' '.join(f'`{text}`' for text in options.set)}" if options.set else ""
    return f"{'those of a trained fold' if options.run else 'drawn at random'} (plan {options.plan.stem}{changes})"


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    import torch

    from autoseg.train.device import place_network
    from autoseg.train.state import build_network, load_network

    plan, volumes = _plan(options), _volumes(options)
    torch.manual_seed(0)
    cpu_device = torch.device("cpu")
    if options.run:
        network = load_network(options.run, plan, which="last", device=cpu_device)
    else:
        network = place_network(build_network(plan).eval(), cpu_device)
    inside = [0.0]
    if options.tool == "nnunet":
        network = _their_network(plan, network)
    _count_time(network, inside)
    segment = _nnunet(plan, network) if options.tool == "nnunet" else _autoseg(plan, network, options.tool)
    warm_up = next(iter(volumes.values()))
    if len(volumes) > 1:
        segment(warm_up)  # what is set up once counts for neither
    inside[0] = 0.0
    wall, cpu = perf_counter(), process_time()
    found = {name: segment(volume) for name, volume in volumes.items()}
    times = perf_counter() - wall, process_time() - cpu
    np.savez(options.scratch / f"{options.tool}.npz", **found)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return {
        "seconds": times[0], "cpu_seconds": times[1], "network_cpu_seconds": inside[0], "peak_gb": peak,
        "cases": len(found), "shapes": [list(volume.array.shape) for volume in volumes.values()],
    }  # fmt: skip


def _count_time(network: Any, total: list[float]) -> None:
    """Add the CPU seconds within ``network`` to ``total``."""
    forward = network.forward

    def counted(x: Any) -> Any:
        start = process_time()
        try:
            return forward(x)
        finally:
            total[0] += process_time() - start

    network.forward = counted


def _plan(options: argparse.Namespace) -> Any:
    from autoseg.plan.assignments import parse_assignments
    from autoseg.plan.plan import Plan

    document = json.loads(options.plan.read_text(encoding="utf-8"))
    for key, value in parse_assignments(options.set).items():
        *sections, last = key.split(".")
        part = document
        for section in sections:
            part = part[section]
        part[last] = value
    if options.phantom:
        labels = {f"class {n}": n for n in range(1, options.classes)}
        document["dataset"]["labels"] = {"background": 0, **labels}
        document["dataset"]["regions"] = {name: {"labels": [n], "value": n} for name, n in labels.items()}
    return Plan.model_validate_json(json.dumps(document))


def _volumes(options: argparse.Namespace) -> dict[str, Any]:
    from autoseg.data.volumes import Volume, read_image, to_canonical

    if options.phantom:
        return {"phantom": _phantom(tuple(map(int, options.phantom.split(","))), options.thickness, Volume)}
    paths = sorted(options.images.glob("*_0000.*"))[: options.cases]
    return {path.name: to_canonical(read_image([path])) for path in paths}


def _phantom(shape: tuple[int, ...], thickness: float, volume: Any) -> Any:
    """Return a drawn abdomen of this shape, 0.8 mm in plane; the noise is drawn at the full resolution."""
    from scipy import ndimage

    from autoseg.data.phantom import draw_phantom
    from autoseg.data.volumes import Geometry

    rng = np.random.default_rng(0)
    small = draw_phantom(96, rng)[0].astype(np.float32)
    image = ndimage.zoom(small, [new / old for new, old in zip(shape, small.shape)], order=1)
    image += rng.normal(0, 12, image.shape).astype(np.float32)
    identity = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    geometry = Geometry(shape=image.shape, spacing=(thickness, 0.8, 0.8), origin=(0.0,) * 3, direction=identity)
    return volume(np.rint(np.maximum(image, -1024))[None], geometry)


def _autoseg(plan: Any, network: Any, tool: str) -> Any:
    import torch

    from autoseg.predict.model import Member, Model
    from autoseg.predict.predictor import predict_volume

    if tool == "autoseg_fp32":
        plan = plan.model_copy(update={"training": plan.training.model_copy(update={"precision": "fp32"})})
    model = Model((Member(plan, (network,)),), torch.device("cpu"))
    return lambda volume: predict_volume(model, volume)


def _their_network(plan: Any, network: Any) -> Any:
    """Return nnU-Net's own network with the weights of ours, or ours where nnU-Net has none of this architecture."""
    from torch import nn

    if plan.network.architecture != "nnunet":
        return _finest(network)
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    config = plan.network.config
    theirs = PlainConvUNet(
        len(plan.dataset.channels), len(config["strides"]), list(config["features_per_stage"]), nn.Conv3d,
        [list(kernel) for kernel in config["kernel_sizes"]], [list(stride) for stride in config["strides"]],
        list(config["blocks_per_stage_encoder"]), plan.dataset.label_scheme.num_outputs,
        list(config["blocks_per_stage_decoder"]), conv_bias=True, norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True}, nonlin=nn.LeakyReLU, nonlin_kwargs={"inplace": True},
        deep_supervision=False,
    ).eval()  # fmt: skip
    ours, weights = network.state_dict(), {}
    for name in theirs.state_dict():
        if "all_modules" not in name and not name.startswith("decoder.encoder."):
            weights[name] = ours[_our_name(name)].contiguous()
    missing, unexpected = theirs.load_state_dict(weights, strict=False)
    assert not unexpected and all("all_modules" in name or name.startswith("decoder.encoder.") for name in missing)
    return theirs


def _our_name(theirs: str) -> str:
    """Return what autoseg calls a weight of nnU-Net's network."""
    renamed = theirs.replace("decoder.stages.", "decoder.").replace("encoder.stages.", "encoder.")
    renamed = renamed.replace("decoder.transpconvs.", "upsampling.").replace("decoder.seg_layers.", "heads.")
    parts = renamed.replace(".convs.", ".").split(".")
    if theirs.startswith("encoder"):
        del parts[2]  # nnU-Net wraps the convolutions of an encoder stage once more
    return ".".join(parts)


def _finest(network: Any) -> Any:
    from torch import nn

    class Finest(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: Any) -> Any:
            return self.network(x)[0]

    return Finest().eval()


def _nnunet(plan: Any, network: Any) -> Any:
    import torch

    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ.setdefault(name, tempfile.gettempdir())
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(_nnunet_plans(plan))
    predictor = nnUNetPredictor(
        tile_step_size=plan.prediction.tile_step, use_gaussian=True, use_mirroring=bool(plan.prediction.mirror_axes),
        perform_everything_on_device=False, device=torch.device("cpu"), verbose=False, allow_tqdm=False,
    )  # fmt: skip
    dataset = {"labels": plan.dataset.labels, "channel_names": {str(i): c for i, c in enumerate(plan.dataset.channels)},
               "file_ending": ".nii.gz"}  # fmt: skip
    axes = tuple(plan.prediction.mirror_axes)
    predictor.manual_initialization(
        network, manager, manager.get_configuration("3d_fullres"), [network.state_dict()], dataset, "x", axes
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
    count = f"{peer['cases']} cases of {peer['shapes'][0]} voxels and the like" if peer["cases"] > 1 else (
        f"one case of {peer['shapes'][0]} voxels")  # fmt: skip
    lines = [
        f"# Prediction beside nnU-Net: {rows['title']}\n",
        f"Made by `tests/benchmarks/prediction_speed.py`: {count}, from array to array, the same weights, tiles and "
        f"mirroring, one thread. Weights: {rows['weights']}.\n",
        "| | seconds | CPU seconds | of these in the network | nnU-Net's CPU seconds over these | peak memory "
        "| same voxels |",
        "|---|---|---|---|---|---|---|",
    ]
    for tool in (name for name in TOOLS if name in rows):
        row = rows[tool]
        same = f"{100 * row['same_voxels']:.4f} %" if "same_voxels" in row else ""
        ratio = peer["cpu_seconds"] / row["cpu_seconds"]
        times = f"{row['seconds']:.1f} | {row['cpu_seconds']:.1f} | {row['network_cpu_seconds']:.1f} | {ratio:.2f}"
        lines.append(f"| {NAMES[tool]} | {times} | {row['peak_gb']:.2f} GB | {same} |")
    return "\n".join([*lines, *([f"\n{rows['note']}"] if rows["note"] else [])]) + "\n"


if __name__ == "__main__":
    main()
