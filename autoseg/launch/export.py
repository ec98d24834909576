"""A model to deploy: a folder with the networks as ONNX and as torch exports, the plan, a model card, and a script.

The script needs only onnxruntime, numpy and SimpleITK. This is what ``autoseg_export`` does.
"""

import logging
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import nn

import autoseg
from autoseg.data.cases import Case
from autoseg.data.workspace import Workspace
from autoseg.documents import Document, read_document, write_document, write_text
from autoseg.errors import PlanError, WorkspaceError
from autoseg.launch.fold import choose_folds, open_networks
from autoseg.launch.inference import postprocessing_path, results_of
from autoseg.launch.model_card import write_model_card
from autoseg.plan.plan import Plan
from autoseg.predict.postprocess import Postprocessing
from autoseg.preprocess.case import preprocess_case

OPSET = 18
NUM_TILES = 4
LARGEST_DIFFERENCE = 1e-2
"""A difference of logits above this, as a part of their standard deviation, means that an export is wrong."""


class ExportCheck(Document):
    """How near the exported networks are to the trained ones, in fp32, on tiles of a case.

    Attributes:
        case: whose tiles; null: random numbers, since no image of the dataset was found.
        num_tiles: how many.
        onnx_difference, torch_difference: largest difference of a logit, as a part of the logits' standard deviation.
        onnx_agreement: part of the voxels with the same winner.
    """

    case: str | None
    num_tiles: int
    onnx_difference: float
    torch_difference: float
    onnx_agreement: float


class Export(Document):
    """export.json: what the folder was made from."""

    schema_: Literal["autoseg.export.1"] = Field(default="autoseg.export.1", alias="schema")
    autoseg: str
    torch: str
    onnxruntime: str
    dataset: str
    plan: str
    folds: tuple[int, ...]
    check: ExportCheck


@dataclass(frozen=True)
class _Networks:
    plan: Plan
    folds: tuple[int, ...]
    modules: tuple[nn.Module, ...]


class Finest(nn.Module):
    """A network that gives its finest logits alone, float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, R, Z, Y, X) of tiles (B, C, Z, Y, X)."""
        output = self.network(image)
        finest: torch.Tensor = output[0] if isinstance(output, (list, tuple)) else output
        return finest.float()


def export_model(
    workspace: Workspace,
    dataset: str,
    plan_name: str,
    folder: Path,
    *,
    folds: Sequence[int] = (),
    cases: Sequence[Case] = (),
) -> Export:
    """Write a plan's networks and all that is needed to use them into a new folder, and check them.

    Args:
        workspace: where the plan was trained.
        dataset: its name.
        plan_name: the plan's.
        folder: made; must not exist.
        folds: whose networks; empty: all trained ones.
        cases: of the dataset, for the check; the first is taken. Empty: the check uses random numbers.

    Raises:
        WorkspaceError: the folder exists already.
        PlanError: the plan is not trained, onnx is not installed, or an exported network computes something else.
    """
    _require_onnx()
    if folder.exists():
        raise WorkspaceError(f"-o {folder}: exists already; name a new folder")
    used = choose_folds(workspace, dataset, plan_name, folds)
    plan, networks = open_networks(workspace, dataset, plan_name, used, torch.device("cpu"))
    if plan.previous_stage:
        raise PlanError(
            f"-a {plan_name}: is the second stage of a cascade after {plan.previous_stage}, and segment.py runs one "
            f"stage only; pack both plans, each with -o FILE.zip, or export a plan of one stage"
        )
    opened = _Networks(plan, tuple(used), tuple(Finest(network).eval() for network in networks))
    partial = folder.with_name(f".partial-{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        document = _fill(partial, opened, workspace, dataset, cases[:1])
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return document


def _fill(folder: Path, networks: _Networks, workspace: Workspace, dataset: str, cases: Sequence[Case]) -> Export:
    import onnxruntime

    tiles = _tiles(networks.plan, cases)
    checks = [_export_network(folder / f"fold_{f}", m, tiles) for f, m in zip(networks.folds, networks.modules)]
    document = Export(
        autoseg=autoseg.__version__,
        torch=torch.__version__,
        onnxruntime=onnxruntime.__version__,
        dataset=dataset,
        plan=networks.plan.name,
        folds=networks.folds,
        check=ExportCheck(
            case=cases[0].name if cases else None,
            num_tiles=len(tiles),
            onnx_difference=max(check[0] for check in checks),
            torch_difference=max(check[1] for check in checks),
            onnx_agreement=min(check[2] for check in checks),
        ),
    )
    if (worst := max(document.check.onnx_difference, document.check.torch_difference)) > LARGEST_DIFFERENCE:
        raise PlanError(f"plan {networks.plan.name}: the exported network differs by {worst:.2g} standard deviations")
    write_document(folder / "plan.json", networks.plan)
    write_document(folder / "export.json", document)
    learnt = postprocessing_path(workspace, dataset, [networks.plan.name])
    postprocessing = read_document(learnt, Postprocessing) if learnt.is_file() else None
    if postprocessing and postprocessing.steps:
        write_document(folder / "postprocessing.json", postprocessing)
    write_text(folder / "segment.py", files("autoseg.launch").joinpath("standalone.py").read_text(encoding="utf-8"))
    results = results_of(workspace, dataset) / networks.plan.name
    write_model_card(folder / "README.md", networks.plan, document, postprocessing, results)
    return document


def _export_network(path: Path, network: nn.Module, tiles: NDArray[np.float32]) -> tuple[float, float, float]:
    """Write PATH.onnx and PATH.pt2; return how far each is from the network, and where the winners agree."""
    import onnxruntime

    example = torch.from_numpy(tiles[:1])
    with torch.no_grad(), _quiet():
        program = torch.export.export(network, (example,))
        torch.export.save(program, path.with_suffix(".pt2"))
        torch.onnx.export(
            program, (), str(path.with_suffix(".onnx")), opset_version=OPSET, input_names=["image"],
            output_names=["logits"], external_data=False, dynamo=True, verbose=False,
        )  # fmt: skip
        expected = torch.cat([network(torch.from_numpy(tile[None])) for tile in tiles]).numpy()
        again = torch.export.load(path.with_suffix(".pt2")).module()
        restored = torch.cat([again(torch.from_numpy(tile[None])) for tile in tiles]).numpy()
    session = onnxruntime.InferenceSession(str(path.with_suffix(".onnx")))
    found = np.concatenate([session.run(None, {"image": tile[None]})[0] for tile in tiles])
    scale = float(expected.std()) or 1.0
    differences = [float(np.abs(other - expected).max()) / scale for other in (found, restored)]
    return differences[0], differences[1], float((found.argmax(axis=1) == expected.argmax(axis=1)).mean())


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what torch's exporters say about themselves from the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _tiles(plan: Plan, cases: Sequence[Case]) -> NDArray[np.float32]:
    """Return tiles (N, C, Z, Y, X) from the middle of a case outwards, or of random numbers."""
    shape = plan.training.patch_shape
    if not cases:
        rng = np.random.default_rng(0)
        return rng.standard_normal((1, len(plan.dataset.channels), *shape), dtype=np.float32)
    image = preprocess_case(cases[0], plan, with_label=False).image
    padded = np.pad(image, [(0, 0), *((0, max(p - s, 0)) for p, s in zip(shape, image.shape[1:]))])
    tiles = []
    for share in np.linspace(0.5, 0, NUM_TILES):
        corner = [int(share * (size - patch)) for size, patch in zip(padded.shape[1:], shape)]
        tiles.append(padded[(slice(None), *(slice(c, c + p) for c, p in zip(corner, shape)))])
    return np.stack(tiles)


def _require_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise PlanError(f"{error.name} is not installed; install the extra: pip install 'autoseg[export]'") from None
