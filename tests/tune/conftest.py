"""The plan that is varied."""

from pathlib import Path

import pytest

from autoseg.plan.plan import Plan, read_plan


@pytest.fixture
def unet() -> Plan:
    """The reference plan of Hippocampus for the U-Net."""
    return read_plan(Path(__file__).resolve().parents[2] / "plans" / "Hippocampus" / "unet.json")
