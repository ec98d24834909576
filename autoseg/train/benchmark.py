"""How fast a plan trains on a device, and where the time of an iteration goes: what ``autoseg_train --benchmark`` does.

The loop's own code runs, on batches from the loader. Blocks of its iterations alternate with blocks of the bare step on
a batch that lies on the device already, so that what else the machine does meanwhile slows both.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from statistics import median
from typing import Literal

import torch
from pydantic import Field

from autoseg.data.splits import Fold
from autoseg.documents import Document
from autoseg.plan.plan import Plan
from autoseg.plan.variant import measure_plan
from autoseg.preprocess.store import CaseStore
from autoseg.train.ahead import find_place
from autoseg.train.device import DTYPES, Precision, cudnn_settings, name_device, peak_memory_gb, reset_peak_memory
from autoseg.train.interruption import StopFlag
from autoseg.train.laps import PARTS, Laps, Part, no_lap, synchronize
from autoseg.train.loader import Batch, CaseCache, open_pool
from autoseg.train.loop import run_training, time_place
from autoseg.train.machine import Machine
from autoseg.train.processes import ALONE
from autoseg.train.setup import Batches, Setup, make_batches, make_setup, move_batch
from autoseg.train.shortage import explain_shortage
from autoseg.train.state import TrainState, make_state, seeded_epoch
from autoseg.train.step import train_step
from autoseg.train.wrapping import wrap_network

BLOCK = {"cuda": 5, "cpu": 2}
"""Iterations of a block; one block of each kind is run before the clock is started."""

ROUNDS = (2, 20)
"""How many blocks of each kind are measured: at least, and at most."""

SECONDS = 30.0
"""For how long blocks are begun."""

MATRIX = {"cuda": 8192, "cpu": 2048}
"""Edge of the matrices that the attainable rate is measured with."""

OnRound = Callable[[int], None]


class Speed(Document):
    """What was measured; seconds are the median of blocks, for each iteration.

    Attributes:
        precision: what the network was computed in.
        threads: threads that torch may use on the CPU. workers: threads that read data.
        network: whether it was compiled.
        iterations: how many were measured.
        iteration_seconds: of the whole loop. bare_seconds: of the network's step on a batch that lies on the device.
        parts: seconds an iteration by part; on a GPU, parts of the stream in which the network works.
        meanwhile: seconds of what the GPU did in another stream while the network worked.
        operations: of an iteration's forward and backward pass, multiplications and additions counted as two.
        attainable_rate: operations a second that a matrix product reaches in this precision.
    """

    schema_: Literal["autoseg.speed.1"] = Field(default="autoseg.speed.1", alias="schema")
    plan: str
    device: str
    precision: Precision
    threads: int
    workers: int
    augmented_on: Literal["device", "cpu"]
    network: str
    patch_size: tuple[int, ...]
    patches: int
    iterations: int
    iteration_seconds: float
    bare_seconds: float
    parts: dict[Part, float]
    meanwhile: dict[Part, float]
    operations: int
    attainable_rate: float
    peak_memory_gb: float | None

    @property
    def overhead(self) -> float:
        """What the loop costs beyond the bare step, as a part of this."""
        return self.iteration_seconds / self.bare_seconds - 1

    @property
    def share_of_peak(self) -> float:
        """What part of the attainable rate an iteration reaches."""
        return self.operations / self.iteration_seconds / self.attainable_rate


@dataclass(frozen=True)
class Blocks:
    """Runs blocks of iterations of a training that is thrown away.

    Attributes:
        place: where batches are augmented.
        network: a sentence about it.
    """

    state: TrainState
    setup: Setup
    batches: Batches
    fixed: list[Batch]
    laps: Laps
    place: Literal["device", "cpu"]
    network: str

    @property
    def length(self) -> int:
        """Iterations of a block."""
        return self.setup.plan.training.iterations_per_epoch

    def run_loop(self) -> float:
        """Run a block of the loop, tell the laps, and return the seconds of an iteration."""
        with self._timed() as seconds:
            self.laps.start()
            run_training(self.state, self.setup, self.batches)
        return seconds[0]

    def run_bare(self) -> float:
        """Run a block of the bare step, and return the seconds of an iteration."""
        setup = replace(self.setup, lap=no_lap)
        self.state.network.train()
        with self._timed() as seconds:
            for _ in range(self.length):
                train_step(self.state, setup, self.fixed, 0)
        return seconds[0]

    @contextmanager
    def _timed(self) -> Iterator[list[float]]:
        seconds: list[float] = []
        with seeded_epoch(self.setup.plan.training.seed, self.state.epoch, self.setup.device):
            synchronize(self.setup.device)
            started = time.perf_counter()
            yield seconds
            synchronize(self.setup.device)
            seconds.append((time.perf_counter() - started) / self.length)


def measure_speed(
    plan: Plan, store: CaseStore, fold: Fold, machine: Machine, *, on_round: OnRound = lambda number: None
) -> Speed:
    """Train a few blocks of iterations, and return how long they took; nothing is written.

    Args:
        on_round: told how many rounds are done.

    Raises:
        TrainingError: memory ran out, or a case could not be read.
    """
    device = machine.device
    length, count = BLOCK.get(device.type, BLOCK["cpu"]), ROUNDS[-1] + 1
    with open_blocks(plan, store, fold, machine, length=length, count=count) as blocks:
        blocks.run_loop()
        blocks.run_bare()
        reset_peak_memory(device)
        rounds = _run_rounds(blocks, on_round)
        training = plan.training
        return Speed(
            plan=plan.name,
            device=name_device(device),
            precision=blocks.setup.precision,
            threads=torch.get_num_threads(),
            workers=machine.num_workers,
            augmented_on=blocks.place,
            network=blocks.network,
            patch_size=training.patch_size,
            patches=training.batch_size * training.gradient_accumulation,
            iterations=blocks.length * len(rounds.loop),
            iteration_seconds=median(rounds.loop),
            bare_seconds=median(rounds.bare),
            parts=_medians(rounds.parts),
            meanwhile=_medians(rounds.meanwhile),
            operations=measure_plan(plan, training.batch_size).flops * training.gradient_accumulation,
            attainable_rate=measure_attainable_rate(device, blocks.setup.precision),
            peak_memory_gb=peak_memory_gb(device),
        )


@contextmanager
def open_blocks(
    plan: Plan, store: CaseStore, fold: Fold, machine: Machine, *, length: int, count: int
) -> Iterator[Blocks]:
    """Set up what a training of the plan would set up, with epochs of a block.

    Args:
        length: iterations of a block.
        count: how many blocks of the loop can be run.

    Raises:
        TrainingError: memory ran out, also in what the caller does with it.
    """
    section = plan.training.model_copy(update={"epochs": count, "iterations_per_epoch": length})
    short = plan.model_copy(update={"training": section})
    device = machine.device
    laps = Laps(device)
    with explain_shortage(plan, device, ALONE), cudnn_settings(device), open_pool(machine.num_workers) as pool:
        setup = make_setup(short, device, lambda event: None, StopFlag())
        state = make_state(short, device, scaled=setup.precision == "fp16")
        network = wrap_network(state, setup, machine.compiled)
        cache = CaseCache(store)
        place, _ = find_place(
            machine.augment_device, None, device, lambda one: time_place(one, state, setup, fold, cache, pool)
        )
        fixed = _take_fixed(setup, fold, cache, pool)
        batches = make_batches(replace(setup, lap=laps), 0, fold, cache, pool, place=place)
        with closing(batches.training), closing(batches.validation):
            yield Blocks(state, replace(setup, lap=laps), batches, fixed, laps, place, network)


def measure_attainable_rate(device: torch.device, precision: Precision) -> float:
    """Return the operations a second that a large matrix product reaches: the best of several tries.

    In fp32 a GPU may round its factors to TF32 here if its convolutions may.
    """
    edge = MATRIX.get(device.type, MATRIX["cpu"])
    one, other = torch.ones((2, edge, edge), dtype=DTYPES[precision], device=device)
    seconds = []
    with _tf32_as_in_convolutions(device):
        for _ in range(6):
            synchronize(device)
            started = time.perf_counter()
            one @ other
            synchronize(device)
            seconds.append(time.perf_counter() - started)
    return float(2 * edge**3 / min(seconds[1:]))


@contextmanager
def _tf32_as_in_convolutions(device: torch.device) -> Iterator[None]:
    if device.type != "cuda":
        yield
        return
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def _take_fixed(setup: Setup, fold: Fold, cache: CaseCache, pool: ThreadPoolExecutor) -> list[Batch]:
    """Return the batches of one iteration, augmented and on the device."""
    with closing(make_batches(setup, 0, fold, cache, pool).training) as stream:
        taken = islice(stream, setup.plan.training.gradient_accumulation)
        return [Batch(*move_batch(batch, setup), None) for batch in taken]


@dataclass
class _Rounds:
    """Seconds of an iteration in each block of the loop and of the bare step, and the former's parts."""

    loop: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    parts: list[dict[Part, float]] = field(default_factory=list)
    meanwhile: list[dict[Part, float]] = field(default_factory=list)


def _run_rounds(blocks: Blocks, on_round: OnRound) -> _Rounds:
    rounds, started = _Rounds(), time.perf_counter()
    while (done := len(rounds.loop)) < ROUNDS[0] or done < ROUNDS[-1] and time.perf_counter() - started < SECONDS:
        blocks.state.epoch += 1
        rounds.loop.append(blocks.run_loop())
        for kept, found in zip((rounds.parts, rounds.meanwhile), blocks.laps.seconds()):
            kept.append({part: value / blocks.length for part, value in found.items()})
        rounds.bare.append(blocks.run_bare())
        on_round(done + 1)
    return rounds


def _medians(rounds: list[dict[Part, float]]) -> dict[Part, float]:
    present = {part for one in rounds for part in one}
    return {part: median(one.get(part, 0.0) for one in rounds) for part in PARTS if part in present}
