"""How much memory preprocessing takes, before it starts: of each case, and so how many can be made at a time."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.fingerprint.fingerprint import CaseFingerprint
from autoseg.plan.plan import Plan
from autoseg.preprocess.case import resampled_shape

SHARE = 0.8
"""Of the memory that is free now, the part that workers may take together."""

PRODUCT_BYTES = 10
"""For each voxel, while a channel is resampled: the product of an axis, its source, and the finished classes."""

VOTE_BYTES = 23
"""For each new voxel, while classes are counted (``resample._vote``): scores, winners and the products of an indicator.
Less where the foreground is small.
"""

CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Crew:
    """How many workers there are, and the most bytes that one of them is predicted to hold."""

    num_workers: int
    peak_bytes: int


def choose_crew(cases: Sequence[CaseFingerprint], plan: Plan, *, wanted: int, free_bytes: int | None = None) -> Crew:
    """Return as many workers as are wanted, or as fit the memory if all held a case of the largest size; at least one.

    Args:
        cases: as measured.
        plan: of it, ``preprocessing`` is used.
        wanted: most workers.
        free_bytes: memory that is free; None: what the system says.
    """
    peak = max((predict_peak_bytes(case, plan) for case in cases), default=0)
    free = available_bytes() if free_bytes is None else free_bytes
    fitting = wanted if free is None else int(free * SHARE) // max(peak, 1)
    return Crew(max(1, min(wanted, len(cases), fitting)), peak)


def predict_peak_bytes(case: CaseFingerprint, plan: Plan) -> int:
    """Return the most memory that preprocessing a case takes: while it is read, its label or its channels resampled.

    The channels are float32, and all of them are alive on their own grid and on the plan's.
    """
    settings = plan.preprocessing
    first, second, third = settings.transpose
    spacing = case.spacing[first], case.spacing[second], case.spacing[third]
    z, y, x = (case.shape_after_crop[axis] for axis in settings.transpose)
    new = math.prod([*resampled_shape((z, y, x), spacing, settings.spacing_of(spacing))])
    whole, kept, image = math.prod([*case.shape]), z * y * x, 4 * len(settings.normalization)
    reading = image * (whole + kept) + 4 * whole
    voting = image * kept + 2 * kept + VOTE_BYTES * new
    resampling = image * (kept + new) + PRODUCT_BYTES * max(kept, new)
    return max(reading, voting, resampling)


def available_bytes() -> int | None:
    """Return the memory that is free for this process, as Linux and its control group say; None where none tells."""
    found = [value for value in (_system_bytes(), _group_bytes()) if value is not None]
    return min(found, default=None)


def _system_bytes() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def _group_bytes() -> int | None:
    """Return what the limit of the control group (version 2) leaves, where a container or a scheduler sets one."""
    try:
        limit, used = ((CGROUP / name).read_text(encoding="utf-8").strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return None
    return int(limit) - int(used) if limit.isdigit() else None
