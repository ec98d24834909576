"""A workspace planned and preprocessed through the command, with a plan small enough to be trained in a test."""

import io
import shutil
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from autoseg.cli import plan

TINY = (
    "training.patch_size=[16,16,16]",
    'network.config={"strides":[[1,1,1],[2,2,2]],"kernel_sizes":[[3,3,3],[3,3,3]],"features_per_stage":[4,8],'
    '"blocks_per_stage_encoder":[1,1],"blocks_per_stage_decoder":[1]}',
    "training.batch_size=2",
    "training.epochs=12",
    "training.iterations_per_epoch=6",
    "training.validation_iterations=2",
    "prediction.mirror_axes=[]",
)


@pytest.fixture(scope="session")
def planned_once(tmp_path_factory: pytest.TempPathFactory, phantom_folder: Path) -> Path:
    """Root of a workspace with the plan ``tiny`` of the phantom, and the command's answer.json; read only."""
    root = tmp_path_factory.mktemp("planned")
    (root / "raw").symlink_to(phantom_folder.parent)
    settings = [word for text in TINY for word in ("--set", text)]
    with redirect_stdout(io.StringIO()) as out:
        assert plan.main(["-d", "Phantom", "-w", str(root), "-a", "unet", "--name", "tiny", *settings, "--json"]) == 0
    (root / "answer.json").write_text(out.getvalue())
    return root


@pytest.fixture
def planned(planned_once: Path, tmp_path: Path) -> Path:
    """An own copy of the planned workspace; its raw images are shared."""
    root = tmp_path / "planned"
    shutil.copytree(planned_once, root, symlinks=True)
    return root


@pytest.fixture
def own_raw(workspace: Path, phantom_folder: Path) -> Path:
    """The phantom's raw folder as a copy of ``workspace``'s own, that a test may change."""
    (workspace / "raw").unlink()
    shutil.copytree(phantom_folder, workspace / "raw" / phantom_folder.name)
    return workspace / "raw" / phantom_folder.name
