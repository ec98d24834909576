"""Where the time of an iteration goes: moments that the step tells as it passes them, and that a training ignores."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch

Part = Literal["waiting", "transfer", "augmentation", "forward", "loss", "backward", "optimizer"]
"""Of an iteration, in their order. ``waiting`` is for a batch; ``optimizer`` includes the gradients' release."""

PARTS: tuple[Part, ...] = ("waiting", "transfer", "augmentation", "forward", "loss", "backward", "optimizer")

Lap = Callable[[Part], None]
"""Is told that a part of the iteration has just been done."""


def no_lap(part: Part) -> None:
    """Do nothing: a training does not look at the clock, which on a GPU would mean to wait for it."""


@dataclass
class Laps:
    """A clock: the time since the lap before belongs to the part that a lap names.

    On a CUDA device the moments are events in the stream that is current when a lap is told, so that nothing waits;
    each stream has laps of its own. Elsewhere they are the host's.
    """

    device: torch.device
    _marks: dict[int, list[tuple[Part | None, "torch.cuda.Event | float"]]] = field(default_factory=dict)

    def start(self) -> None:
        """Forget all laps; the first part begins now, in the current stream, which counts as the main one."""
        self._marks = {self._stream(): [(None, self._now())]}

    def __call__(self, part: Part) -> None:
        """Count a lap."""
        self._marks.setdefault(self._stream(), []).append((part, self._now()))

    def seconds(self) -> tuple[dict[Part, float], dict[Part, float]]:
        """Return the seconds since the start by part: of the main stream, and of others that work meanwhile.

        Of the others, the time in which they wait does not count. It waits for the device.
        """
        synchronize(self.device)
        main, *others = (_add_up(marks) for marks in self._marks.values())
        together = {part: sum(one.get(part, 0.0) for one in others) for part in PARTS if part != "waiting"}
        return main, {part: value for part, value in together.items() if value}

    def _stream(self) -> int:
        return torch.cuda.current_stream(self.device).cuda_stream if self.device.type == "cuda" else 0

    def _now(self) -> "torch.cuda.Event | float":
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record()
            return event
        synchronize(self.device)
        return time.perf_counter()


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was told to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _add_up(marks: list[tuple[Part | None, "torch.cuda.Event | float"]]) -> dict[Part, float]:
    total: dict[Part, float] = dict.fromkeys(PARTS, 0.0)
    for (_, before), (part, now) in zip(marks, marks[1:]):
        if part is not None:
            total[part] += now - before if isinstance(now, float) else before.elapsed_time(now) / 1e3  # type: ignore
    return total
