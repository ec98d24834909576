"""The model card of an exported model: what it is for, what it saw, how good it was, and where it ends."""

import json
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from autoseg.documents import write_text
from autoseg.plan.plan import Plan
from autoseg.plurals import count
from autoseg.predict.postprocess import Postprocessing

if TYPE_CHECKING:
    from autoseg.launch.export import Export

SHOWN = ("dice", "surface_dice", "hausdorff_95", "average_surface_distance")


def write_model_card(
    path: Path, plan: Plan, export: "Export", postprocessing: Postprocessing | None, results: Path
) -> None:
    """Write the card as Markdown; ``results`` is the plan's folder of runs, whose validation scores are quoted."""
    sections = [_what(plan, export), _data(plan, results), _scores(results), _use(plan), _limits(plan, export)]
    if postprocessing and postprocessing.steps:
        sections.insert(3, _postprocessing(postprocessing))
    write_text(path, "\n".join(sections))


def _what(plan: Plan, export: "Export") -> str:
    folds = ", ".join(str(fold) for fold in export.folds)
    check = export.check
    networks = (
        f"the networks of folds {folds} are averaged" if len(export.folds) > 1 else f"the network of fold {folds}"
    )
    source = f"tiles of case {check.case}" if check.case else "random numbers"
    return (
        f"# {plan.name} for {plan.dataset.name}\n\n"
        f"Segments {', '.join(plan.dataset.regions)} in 3-D images of {count(len(plan.dataset.channels), 'channel')}: "
        f"{', '.join(plan.dataset.channels)}.\n\n"
        f"A {plan.network.architecture} of {plan.estimate.parameters / 1e6:.1f} million weights, trained by autoseg; "
        f"{networks}. Files: `fold_*.onnx` (ONNX), `fold_*.pt2` (torch.export), "
        f"`plan.json`, `export.json`, `segment.py`.\n\n"
        f"Exported with autoseg {export.autoseg}, torch {export.torch}. Against torch on {source}, in fp32: logits "
        f"differ by at most {check.onnx_difference:.1e} standard deviations in onnxruntime {export.onnxruntime} and "
        f"{check.torch_difference:.1e} in torch; {100 * check.onnx_agreement:.3f} % of the voxels have the same "
        "winner.\n"
    )


def _data(plan: Plan, results: Path) -> str:
    scored = [json.loads(path.read_text(encoding="utf-8"))["cases"] for path in _score_files(results)]
    cases = {case for document in scored for case in document}
    schemes = zip(plan.dataset.channels, plan.preprocessing.normalization)
    normalization = "; ".join(f"{channel}: {scheme.scheme}" for channel, scheme in schemes)
    spacing = " x ".join("its own" if value is None else f"{value:g}" for value in plan.preprocessing.spacing)
    labels = ", ".join(f"{name} {value}" for name, value in plan.dataset.labels.items())
    return (
        "## Data\n\n"
        f"- Dataset: {plan.dataset.name}, fingerprint {plan.dataset.fingerprint_sha256[:12]}; "
        f"{count(len(cases), 'case was', 'cases were')} "
        "held out for the scores below.\n"
        f"- Label values: {labels}.\n"
        f"- Images are brought to LPS orientation and a spacing of {spacing} mm; normalisation {normalization}.\n"
        "- Where the images come from, whom they show and who drew the labels is not known to autoseg: add it here.\n"
    )


def _scores(results: Path) -> str:
    rows: dict[str, dict[str, list[float]]] = {}
    for path in _score_files(results):
        for regions in json.loads(path.read_text(encoding="utf-8"))["cases"].values():
            for region, scores in regions.items():
                for metric in SHOWN:
                    if (value := scores.get(metric)) is not None:
                        rows.setdefault(region, {}).setdefault(metric, []).append(value)
    if not rows:
        return "## Scores\n\nNone: no fold of this plan was validated.\n"
    lines = ["## Scores", "", "Means over held-out cases; distances in mm.", ""]
    lines += [f"| region | cases | {' | '.join(SHOWN)} |", "|---" * (2 + len(SHOWN)) + "|"]
    for region, metrics in rows.items():
        values = [f"{fmean(metrics[m]):.3f}" if m in metrics else "-" for m in SHOWN]
        lines.append(f"| {region} | {len(metrics.get('dice', []))} | {' | '.join(values)} |")
    return "\n".join(lines) + "\n"


def _postprocessing(postprocessing: Postprocessing) -> str:
    steps = [
        f"- {step.action} of {step.region}{f' below {step.volume_ml:g} ml' if step.volume_ml else ''}: Dice "
        f"{step.dice_before:.3f} to {step.dice_after:.3f}"
        for step in postprocessing.steps
    ]
    return f"## Postprocessing\n\nLearnt on {count(postprocessing.num_cases, 'case')}:\n\n" + "\n".join(steps) + "\n"


def _use(plan: Plan) -> str:
    images = " ".join(f"image_{index:04d}.nii.gz" for index in range(len(plan.dataset.channels)))
    return (
        "## Use\n\n```bash\npython -m pip install onnxruntime numpy SimpleITK\n"
        f"python segment.py {images} segmentation.nii.gz\n```\n\n"
        f"The networks take tiles of {' x '.join(map(str, plan.training.patch_shape))} voxels, float32 "
        "(1, channels, z, y, x), after the steps in `segment.py`, and give logits.\n"
    )


def _limits(plan: Plan, export: "Export") -> str:
    return (
        "## Limits\n\n"
        "- Scores hold for images like those of the dataset; other scanners, protocols, ages or diseases were not "
        "tried.\n"
        "- If the scores above were used to choose this plan or its postprocessing, they flatter it a little; an "
        "independent test set says more.\n"
        "- Research software, no medical device: a segmentation needs a person's eyes before it is used for anyone.\n"
        "- `segment.py` computes in fp32 and holds the logits of the whole image: about "
        f"{4 * plan.dataset.label_scheme.num_outputs} bytes a voxel at the plan's spacing.\n"
    )


def _score_files(results: Path) -> list[Path]:
    return sorted(results.glob("fold_*/validation/metrics.json"))
