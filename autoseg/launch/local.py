"""Many runs on this machine: one at a time on each device, tried again where they die, stopped together."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from autoseg.launch.attempt import POLL_SECONDS, Attempt, Task, Tries
from autoseg.launch.fold import choose_device
from autoseg.launch.status import ENDED, RunKey, read_status, write_line

HELD_SECONDS = 10.0
"""How long a run that another process trains is left alone before it is looked at again."""

STOP_SECONDS = 120.0
"""How long trainings may take to finish an iteration and save before they are killed."""

Kind = Literal["started", "finished", "retried", "held", "failed", "skipped"]


@dataclass(frozen=True)
class RunEvent:
    """Something happened to a run; ``told`` says how it ended, or where it was started."""

    kind: Kind
    key: RunKey
    told: str


OnEvent = Callable[[RunEvent], None]
OnTick = Callable[[Sequence[Attempt]], None]


@dataclass
class _Queue:
    """What remains to be done.

    Attributes:
        waiting: to be started, in order.
        held: runs of another process, with the time from which they may be tried again.
        running: under way.
        free: devices on which nothing runs.
        tries: deaths of each run so far.
        failed: runs that were given up, or never started.
    """

    waiting: deque[Task]
    free: list[str]
    held: list[tuple[float, Task]] = field(default_factory=list)
    running: list[Attempt] = field(default_factory=list)
    tries: dict[RunKey, Tries] = field(default_factory=dict)
    failed: set[RunKey] = field(default_factory=set)

    @property
    def unfinished(self) -> set[RunKey]:
        """The runs that others may have to wait for."""
        tasks = (*self.waiting, *(task for _, task in self.held), *(attempt.task for attempt in self.running))
        return {task.key for task in tasks}

    def __bool__(self) -> bool:
        return bool(self.waiting or self.held or self.running)


def find_devices(options: Sequence[str]) -> list[str]:
    """Return the devices to run on: the given ones, else every GPU of this machine, else what there is.

    Raises:
        PlanError: a given device is not on this machine.
    """
    if options:
        for option in options:
            choose_device(option)
        return list(options)
    count = torch.cuda.device_count()
    return [f"cuda:{index}" for index in range(count)] or [str(choose_device("auto"))]


def run_locally(
    tasks: Sequence[Task],
    devices: Sequence[str],
    *,
    retries: int,
    on_event: OnEvent = lambda event: None,
    on_tick: OnTick = lambda running: None,
) -> None:
    """Run all tasks that are not finished, one on each device at a time; returns when none is left.

    A run is started after those that it needs, and not at all where one of these failed. One that dies is tried again
    on the next free device, ``retries`` times in a row without a new epoch; one that is refused is not. What became of
    each run its folder tells (``read_status``).

    Raises:
        KeyboardInterrupt: an interruption; the trainings under way have saved and ended by then.
    """
    queue = _Queue(deque(tasks), list(devices))
    try:
        while queue:
            _start_waiting(queue, on_event)
            on_tick(queue.running)
            time.sleep(POLL_SECONDS)
            for attempt in list(queue.running):
                _take_ending(attempt, queue, retries, on_event)
    finally:
        _stop_all(queue.running)


def _start_waiting(queue: _Queue, on_event: OnEvent) -> None:
    now = time.monotonic()
    queue.waiting.extend(task for due, task in queue.held if due <= now)
    queue.held = [(due, task) for due, task in queue.held if due > now]
    _drop_hopeless(queue, on_event)
    while queue.free and (task := _next_ready(queue)) is not None:
        queue.waiting.remove(task)
        if read_status(task.workspace, task.dataset, task.key).finished:  # by whoever held it
            on_event(RunEvent("finished", task.key, "finished by another process"))
            continue
        attempt = Attempt(task, queue.free.pop(0))
        queue.running.append(attempt)
        on_event(RunEvent("started", task.key, attempt.device))


def _next_ready(queue: _Queue) -> Task | None:
    """Return the first waiting run that needs none which is still to be finished."""
    unfinished = queue.unfinished
    return next((task for task in queue.waiting if not unfinished.intersection(task.needs)), None)


def _drop_hopeless(queue: _Queue, on_event: OnEvent) -> None:
    """Give up the waiting runs that need one which failed; each is before those that need it."""
    for task in list(queue.waiting):
        if (failed := next((key for key in task.needs if key in queue.failed), None)) is None:
            continue
        queue.waiting.remove(task)
        queue.failed.add(task.key)
        told = f"it needs {failed}, which failed"
        write_line(task.run_folder, f"{ENDED}not started: {told}")
        on_event(RunEvent("skipped", task.key, told))


def _take_ending(attempt: Attempt, queue: _Queue, retries: int, on_event: OnEvent) -> None:
    ending = attempt.poll()
    if ending is None:
        return
    outcome, told = ending
    task = attempt.task
    queue.running.remove(attempt)
    queue.free.append(attempt.device)
    if outcome == "held":
        queue.held.append((time.monotonic() + HELD_SECONDS, task))
        on_event(RunEvent("held", task.key, told))
    elif outcome == "died" and queue.tries.setdefault(task.key, Tries(retries)).allow(task.run_folder):
        queue.waiting.append(task)
        on_event(RunEvent("retried", task.key, told))
    else:
        if outcome != "finished":
            queue.failed.add(task.key)
        on_event(RunEvent("finished" if outcome == "finished" else "failed", task.key, told))


def _stop_all(running: Sequence[Attempt]) -> None:
    """Stop what runs; a second interruption, or too long a wait, kills it."""
    for attempt in running:
        attempt.stop()
    limit = time.monotonic() + STOP_SECONDS
    for attempt in running:
        try:
            attempt.end(max(0.0, limit - time.monotonic()))
        except KeyboardInterrupt:
            limit = 0.0
        attempt.wait()
