"""Where batches are augmented, and preparing them on the device while the network works on the batch before."""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from autoseg.train.laps import synchronize
from autoseg.train.loader import Batch
from autoseg.train.record import read_record

Place = Literal["device", "cpu"]
"""Batches are augmented on the device that trains, or on the CPU by the threads that read them."""

AugmentDevice = Literal["auto", "device", "cpu"]

WARM_UP = 5
"""Iterations that are run before the clock is started: kernels are loaded, memory is taken."""

MEASURED = 15
"""Iterations that are timed for each place."""

Prepare = Callable[[Batch], Batch]
BatchStream = Generator[Batch, None, None]


def stay_ahead(batches: BatchStream, prepare: Prepare, device: torch.device) -> BatchStream:
    """Yield the prepared batches; on a CUDA device the next one is prepared meanwhile, on a stream of its own.

    ``prepare`` must not wait for the device. Closing the generator closes ``batches``.
    """
    if device.type == "cuda":
        return _on_own_stream(batches, prepare, device)
    return _one_by_one(batches, prepare)


def _one_by_one(batches: BatchStream, prepare: Prepare) -> BatchStream:
    with closing(batches):
        for batch in batches:
            yield prepare(batch)


def _on_own_stream(batches: BatchStream, prepare: Prepare, device: torch.device) -> BatchStream:
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def prepare_next() -> tuple[Batch, torch.cuda.Event] | None:
        batch = next(batches, None)
        if batch is None:
            return None
        with torch.cuda.stream(stream):
            return prepare(batch), stream.record_event()

    with closing(batches):
        waiting = prepare_next()
        while waiting is not None:
            (batch, ready), waiting = waiting, prepare_next()
            current = torch.cuda.current_stream(device)
            current.wait_event(ready)
            for tensor in (batch.images, batch.classes):
                tensor.record_stream(current)  # its memory is not given to the other stream before this one is done
            yield batch


def find_place(
    wanted: AugmentDevice, before: Place | None, device: torch.device, measure: Callable[[Place], float]
) -> tuple[Place, str]:
    """Return where batches are augmented, and a sentence that says why.

    ``auto`` is where it was ``before`` if a training goes on, so that its images stay the same; else, on a CUDA device,
    where an iteration takes fewer seconds; else the device.
    """
    if wanted != "auto":
        return wanted, f"augmenting on the {wanted}, as asked for"
    if before is not None:
        return before, f"augmenting on the {before}, as before"
    if device.type != "cuda":
        return "device", "augmenting on the device"
    seconds: dict[Place, float] = {place: measure(place) for place in ("device", "cpu")}
    place: Place = min(seconds, key=lambda one: seconds[one])
    figures = ", ".join(f"{1e3 * value:.1f} ms an iteration on the {name}" for name, value in seconds.items())
    return place, f"augmenting on the {place}: measured {figures}"


def previous_place(run_folder: Path) -> Place | None:
    """Return where the batches of a run were augmented, or None if its record cannot be read."""
    record = read_record(run_folder)
    return None if record is None else record.augmented_on


@contextmanager
def kept_buffers(network: nn.Module) -> Iterator[None]:
    """Put the network's buffers, such as running statistics, back as they were."""
    before = {name: value.clone() for name, value in network.named_buffers()}
    try:
        yield
    finally:
        for name, value in network.named_buffers():
            value.copy_(before[name])


def time_iterations(batches: Iterator[Batch], step: Callable[[Batch], object], device: torch.device) -> float:
    """Return the mean seconds of an iteration, waiting for its batch included; infinity if batches are too few."""
    for batch in islice(batches, WARM_UP):
        step(batch)
    synchronize(device)
    started, count = time.perf_counter(), 0
    for batch in islice(batches, MEASURED):
        step(batch)
        count += 1
    synchronize(device)
    return (time.perf_counter() - started) / count if count else float("inf")
