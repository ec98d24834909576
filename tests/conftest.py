"""Shared fixtures: synthetic cases, and the real images where a checkout has them beside it."""

import os
from pathlib import Path

# One thread a process, before torch is imported: the networks here are tiny, and threads that wait for each other on a
# busy machine make them up to forty times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import pytest  # noqa: E402

REAL_DATA = Path(os.environ.get("AUTOSEG_REAL_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


@pytest.fixture
def real_data() -> Path:
    """The folder of real images, $AUTOSEG_REAL_DATA or beside the checkout; skips the test where it is absent."""
    if not REAL_DATA.is_dir():
        pytest.skip("real images are not beside this checkout (../shared/data)")
    return REAL_DATA


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded source of randomness."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def phantom_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw dataset of six small phantom cases, in nnU-Net's form; read only."""
    from autoseg.data.phantom import make_phantom_dataset

    folder = tmp_path_factory.mktemp("raw") / "Dataset900_Phantom"
    make_phantom_dataset(folder, num_cases=6, size=32, seed=1)
    return folder


@pytest.fixture
def workspace(tmp_path: Path, phantom_folder: Path) -> Path:
    """An own workspace whose raw/ holds the phantom."""
    root = tmp_path / "workspace"
    root.mkdir()
    (root / "raw").symlink_to(phantom_folder.parent)
    return root
