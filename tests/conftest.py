"""Shared fixtures: synthetic cases, and the real images where a checkout has them beside it."""

from pathlib import Path

import numpy as np
import pytest

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def real_data() -> Path:
    """The folder of real images; skips the test where it is absent."""
    if not REAL_DATA.is_dir():
        pytest.skip("real images are not beside this checkout (../shared/data)")
    return REAL_DATA


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded source of randomness."""
    return np.random.default_rng(0)
