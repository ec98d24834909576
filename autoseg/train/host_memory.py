"""The largest memory that this process has held: Linux tells it, and lets it be measured anew."""

import re
import sys
from contextlib import suppress
from pathlib import Path

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
FORGET_PEAK = "5"
"""What to write to ``CLEAR`` so that the peak becomes what is held now (Linux 4.0, man 5 proc)."""


def reset_peak_host_memory() -> None:
    """Begin to measure the peak anew; where the system cannot, it stays that of the whole process."""
    with suppress(OSError):
        CLEAR.write_text(FORGET_PEAK, encoding="ascii")


def peak_host_memory_gb() -> float | None:
    """Return the largest resident memory of this process since the reset, in 10^9 bytes; None where nobody tells it."""
    with suppress(OSError):
        if found := re.search(r"^VmHWM:\s*(\d+) kB", STATUS.read_text(encoding="utf-8"), re.MULTILINE):
            return int(found.group(1)) * 1024 / 1e9
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9
