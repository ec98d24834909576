"""The training of one fold: one loop of plain functions over an explicit state.

Read it from ``train_fold`` downwards; there are no hooks. What varies between trainings stands in the plan; who needs
more copies this file. Torch's threads, seeds and cuDNN's flags are as before when it returns.
"""

import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from autoseg.data.splits import Fold
from autoseg.documents import write_document
from autoseg.errors import TrainingError
from autoseg.plan.plan import Plan
from autoseg.plurals import count
from autoseg.preprocess.store import CaseStore, remove_stale
from autoseg.train.ahead import (
    Place,
    find_place,
    kept_buffers,
    previous_place,
    time_iterations,
)
from autoseg.train.device import cudnn_settings, peak_memory_gb, reset_peak_memory
from autoseg.train.diagnosis import keep_batch
from autoseg.train.energy import energy_kj, read_counters
from autoseg.train.examples import Examples, is_due, take_examples
from autoseg.train.exclusion import hold_folder
from autoseg.train.host_memory import peak_host_memory_gb, reset_peak_host_memory
from autoseg.train.initial import InitialRun, start_from, take_weights
from autoseg.train.interruption import catch_signals
from autoseg.train.loader import Batch, CaseCache, open_pool
from autoseg.train.log import (
    Beginning,
    EpochReport,
    IterationReport,
    Logger,
    NoLog,
    OnEvent,
    Phase,
    ResumeReport,
    StopReport,
    TrainingLog,
    make_record,
)
from autoseg.train.machine import Machine
from autoseg.train.optimization import count_drops, learning_rate, set_learning_rate
from autoseg.train.processes import Agreement, Processes
from autoseg.train.progress import ProgressPicture
from autoseg.train.record import RunRecord, keep_record, make_run_record
from autoseg.train.scores import count_voxels, pseudo_dice
from autoseg.train.setup import Batches, Setup, make_batches, make_setup, move_batch
from autoseg.train.shortage import explain_shortage
from autoseg.train.state import (
    Checkpoint,
    TrainState,
    is_finished,
    make_state,
    mean_dice,
    read_last,
    restore_state,
    save_best,
    save_last,
    seeded_epoch,
    training_digest,
    update_best,
)
from autoseg.train.step import compute_logits, train_step
from autoseg.train.tensorboard import TensorBoard
from autoseg.train.wrapping import wrap_network


def train_fold(
    plan: Plan,
    store: CaseStore,
    fold: Fold,
    run_folder: Path,
    machine: Machine,
    *,
    on_event: OnEvent = lambda event: None,
    loggers: Sequence[Logger] = (),
    initial: InitialRun | None = None,
) -> None:
    """Train one fold in ``run_folder``, from its last checkpoint if there is one; return at once if it is finished.

    The same seed gives the same batches and weights whatever the number of workers. On the CPU, an interrupted and
    resumed training is bit for bit an uninterrupted one with the same number of torch threads. Each of the machine's
    processes (``open_processes``) calls this alike; they train what one would, but for rounding and dropout.
    ``loggers`` are told of the training besides progress.png and TensorBoard. Without a checkpoint it starts from the
    weights of ``initial``, which is not read again; without that from random ones, whatever the plan says.

    Raises:
        TrainingError: cases are missing, the folder holds a training of another plan or one that runs at this moment,
            or the loss is not finite, or memory ran out.
        TrainingInterrupted: SIGINT or SIGTERM was received; a second one ends the running iteration too.
    """
    _check_cases(fold, store)
    device, processes = machine.device, machine.processes
    with (
        _hold_together(run_folder, processes),
        catch_signals(lambda signal_name: on_event(StopReport(signal_name))) as stop,
        explain_shortage(plan, device, processes),
    ):
        stop.agree = Agreement(processes)
        checkpoint, problems = processes.lead(lambda: open_run(run_folder, plan))
        if checkpoint is not None and is_finished(plan, checkpoint["history"]):
            return
        with cudnn_settings(device), open_pool(machine.num_workers) as pool:
            setup = make_setup(plan, device, on_event, stop, processes)
            state = make_state(plan, device, scaled=setup.precision == "fp16")
            if checkpoint is not None:
                restore_state(state, checkpoint)
            elif initial is not None:
                start_from(state, processes.lead(partial(take_weights, initial, run_folder)), initial)
            record = make_run_record(
                device, setup.precision, state.network, machine.num_workers,
                seed=plan.training.seed, processes=processes,
            )  # fmt: skip
            wrapped = wrap_network(state, setup, machine.compiled)
            cache = CaseCache(store)
            before = processes.lead(lambda: previous_place(run_folder)) if state.epoch else None
            found = find_place(
                machine.augment_device,
                before,
                device,
                lambda place: time_place(place, state, setup, fold, cache, pool),
            )
            place, reason = processes.lead(lambda: found)
            record = record.model_copy(update={"augmented_on": place})
            batches = make_batches(setup, state.epoch, fold, cache, pool, place=place)
            log = _open_log(Beginning(run_folder, plan, record, tuple(state.history)), loggers, processes)
            kept = keep_record(run_folder, record, state.history, processes)
            with kept, closing(log), closing(batches.training), closing(batches.validation):
                _log_start(log, setup, state, record, problems, f"{reason}, {wrapped}")
                if checkpoint is None and initial is not None:
                    log.write(f"the first weights are those of {initial}")
                run_epochs(state, setup, batches, run_folder, log)


@contextmanager
def _hold_together(run_folder: Path, processes: Processes) -> Iterator[None]:
    """Let the leader hold the folder, and end all if it cannot."""
    with ExitStack() as held:
        processes.lead(lambda: held.enter_context(hold_folder(run_folder)))
        yield


def _open_log(beginning: Beginning, loggers: Sequence[Logger], processes: Processes) -> TrainingLog | NoLog:
    return TrainingLog(beginning, (ProgressPicture(), TensorBoard(), *loggers)) if processes.leads else NoLog()


def open_run(run_folder: Path, plan: Plan) -> tuple[Checkpoint | None, list[str]]:
    """Clear away what a killed run left half-written, keep the plan beside its results, and return ``read_last``.

    Raises:
        TrainingError: no checkpoint is readable, or it belongs to another plan.
    """
    for folder in ("", "checkpoints", "logs", "validation"):
        remove_stale(run_folder / folder, older_than=0)  # the folder is held, so nobody is writing there
    checkpoint, problems = read_last(run_folder / "checkpoints", plan)
    write_document(run_folder / "plan.json", plan)
    return checkpoint, problems


def run_epochs(state: TrainState, setup: Setup, batches: Batches, run_folder: Path, log: TrainingLog | NoLog) -> None:
    """Run the epochs that remain; their files are written in an order in which a kill between two loses nothing."""
    checkpoints, digest = run_folder / "checkpoints", training_digest(setup.plan)
    try:
        while not is_finished(setup.plan, state.history):
            report = run_epoch(state, setup, batches, run_folder)
            setup.processes.lead(partial(_keep_epoch, state, report, checkpoints, digest, log))
            setup.on_event(report)
            setup.stop.check(state.epoch)
    except (TrainingError, KeyboardInterrupt) as error:
        with suppress(OSError):  # a full disk ended the training, and the log would only say so once more
            log.write(str(error) or "interrupted")
        raise
    early = state.epoch < setup.plan.training.epochs
    log.write(f"finished{', since the validation Dice rose no more' if early else ''}")


def _keep_epoch(
    state: TrainState, report: EpochReport, checkpoints: Path, digest: str, log: TrainingLog | NoLog
) -> None:
    if report.best:
        save_best(state, checkpoints, digest)
    log.write_epoch(report)
    save_last(state, checkpoints, digest)


def run_epoch(state: TrainState, setup: Setup, batches: Batches, run_folder: Path) -> EpochReport:
    """Train and validate for one epoch, count it in ``state``, and report it.

    Raises:
        TrainingError: a loss is not finite. ``state`` is then spoilt; the checkpoint on disk is not.
    """
    started = time.perf_counter()
    reset_peak_memory(setup.device)
    reset_peak_host_memory()
    counters = read_counters(setup.device)
    with seeded_epoch(setup.plan.training.seed, state.epoch, setup.device, setup.processes.rank):
        train_loss, left_out, waiting_to_train = run_training(state, setup, batches)
        kept = ""
        if left_out:
            logs = run_folder / "logs"
            kept = setup.processes.lead(lambda: keep_batch(batches.remake, state.epoch, left_out[0], logs))
        _check_training(train_loss, left_out, kept, state.epoch, setup)
        validation_loss, dice, waiting_to_validate, examples = run_validation(state, setup, batches)
    _check_validation(validation_loss, state.epoch, setup)
    average = mean_dice(dice)
    seconds = time.perf_counter() - started
    state.epoch += 1
    report = EpochReport(
        epoch=state.epoch,
        epochs=setup.plan.training.epochs,
        train_loss=train_loss,
        validation_loss=validation_loss,
        validation_dice=dice,
        mean_dice=average,
        best=update_best(state, average),
        learning_rate=state.optimizer.param_groups[0]["lr"],
        seconds=seconds,
        seconds_waiting=waiting_to_train + waiting_to_validate,
        seconds_left=_estimate_seconds_left(seconds, state, setup),
        peak_memory_gb=peak_memory_gb(setup.device),
        peak_host_memory_gb=peak_host_memory_gb(),
        energy_kj=energy_kj(counters, read_counters(setup.device), setup.device),
        left_out=f"{len(left_out)} steps left out, the first in iteration {left_out[0] + 1}; {kept}" if kept else "",
        examples=examples,
    )
    state.history.append(make_record(report))
    return report


def run_training(state: TrainState, setup: Setup, batches: Batches) -> tuple[float, list[int], float]:
    """Train for the iterations of one epoch.

    Returns:
        the mean loss of the steps that were finite, NaN if none was; the iterations (from 0) of those that were not;
        the seconds spent waiting for data.
    """
    section = setup.plan.training
    iterations, waiting = section.iterations_per_epoch, Stopwatch()
    losses = torch.zeros(iterations, device=setup.device)
    finite = torch.ones(iterations, dtype=torch.bool, device=setup.device)
    drops = count_drops(section.schedule, [_judged_loss(record) for record in state.history], section.epochs)
    state.network.train()
    for iteration in range(iterations):
        setup.stop.check(state.epoch)
        count = state.epoch * iterations + iteration
        base, total = section.optimizer.learning_rate, section.epochs * iterations
        set_learning_rate(state.optimizer, learning_rate(section.schedule, base, count, total, drops=drops))
        group = (waiting.take(batches.training) for _ in range(section.gradient_accumulation))
        losses[iteration], finite[iteration] = train_step(state, setup, group, count)
        _report_iteration("training", iteration, iterations, state, setup)
    known = finite.cpu()  # waits for the device, so once an epoch
    return losses.cpu()[known].mean().item(), (~known).nonzero().flatten().tolist(), waiting.seconds


@torch.no_grad()
def run_validation(
    state: TrainState, setup: Setup, batches: Batches
) -> tuple[float | None, dict[str, float | None], float, Examples | None]:
    """Return the mean loss, the pseudo Dice of each region, the seconds spent waiting for data, and slices if due."""
    iterations = batches.num_validation
    overlapping = setup.plan.dataset.label_scheme.overlapping
    due, examples = setup.processes.leads and is_due(state.epoch + 1, setup.plan.training.epochs), None
    loss, waiting = torch.zeros((), device=setup.device), Stopwatch()
    network = state.predicting.eval()
    counts = torch.zeros((len(setup.membership), 3), dtype=torch.int64, device=setup.device)
    for iteration in range(iterations):
        setup.stop.check(state.epoch)
        images, classes = move_batch(waiting.take(batches.validation), setup)
        logits = compute_logits(network, images, setup)
        loss += setup.loss(logits, classes)
        counts += count_voxels(logits[0], classes, setup.membership, overlapping=overlapping)
        if due and iteration == 0:
            examples = take_examples(images, classes, logits[0], setup.membership, overlapping=overlapping)
        _report_iteration("validation", iteration, iterations, state, setup)
    if setup.share is not None:
        counts = setup.share.add(counts)
    dice = dict(zip(setup.plan.dataset.regions, pseudo_dice(counts)))
    return loss.item() / iterations if iterations else None, dice, waiting.seconds, examples


def time_place(
    place: Place, state: TrainState, setup: Setup, fold: Fold, cache: CaseCache, pool: ThreadPoolExecutor
) -> float:
    """Return the seconds of an iteration with augmentation at ``place``, in steps that change nothing."""

    def step(batch: Batch) -> None:
        images, classes = move_batch(batch, setup)
        setup.loss(compute_logits(state.training, images, setup), classes).backward()
        state.network.zero_grad(set_to_none=True)

    with (
        closing(make_batches(setup, 0, fold, cache, pool, place=place).training) as batches,
        seeded_epoch(setup.plan.training.seed, 0, setup.device),
        kept_buffers(state.network),
    ):
        return time_iterations(batches, step, setup.device)


@dataclass
class Stopwatch:
    """How long was waited for batches."""

    seconds: float = 0.0

    def take(self, stream: Iterator[Batch]) -> Batch:
        """Return the next batch."""
        started = time.perf_counter()
        batch = next(stream)
        self.seconds += time.perf_counter() - started
        return batch


def _judged_loss(record: dict[str, Any]) -> float:
    """Return the loss of an epoch that a schedule looks at."""
    loss = record["validation_loss"]
    return float(record["train_loss"] if loss is None else loss)


def _report_iteration(phase: Phase, iteration: int, iterations: int, state: TrainState, setup: Setup) -> None:
    epochs = setup.plan.training.epochs
    setup.on_event(IterationReport(phase, state.epoch + 1, epochs, iteration + 1, iterations))


def _estimate_seconds_left(seconds: float, state: TrainState, setup: Setup) -> float:
    """Expect the epochs that remain to take as long as the last ten did on average."""
    recent: list[float] = [*(record["seconds"] for record in state.history[-9:]), seconds]
    return sum(recent) / len(recent) * (setup.plan.training.epochs - state.epoch)


def _check_cases(fold: Fold, store: CaseStore) -> None:
    if not fold.train:
        raise TrainingError("the fold has no training case; at least one is needed; check splits.json")
    wanted = [*fold.train, *fold.validation]
    stored = set(store.names())
    if missing := [case for case in wanted if case not in stored]:
        found = f"{len(missing)} of {count(len(wanted), 'case')}"
        raise TrainingError(f"{store.folder}: {found} are not preprocessed, e.g. {missing[0]}; run autoseg_plan")


def _check_training(train_loss: float, left_out: list[int], kept: str, epoch: int, setup: Setup) -> None:
    """Refuse steps that were not finite, if the plan does not leave them out, or if all of an epoch's were so."""
    iterations = setup.plan.training.iterations_per_epoch
    if not left_out or setup.plan.training.on_nan == "skip" and len(left_out) < iterations:
        return
    what = f"the training loss or its gradient is not finite in iteration {left_out[0] + 1} of epoch {epoch + 1}"
    more = ", training.on_nan=skip" if setup.plan.training.on_nan == "stop" else ""
    raise TrainingError(f"{what}; {kept}; {_advise(epoch, setup, more)}")


def _check_validation(loss: float | None, epoch: int, setup: Setup) -> None:
    if loss is not None and not math.isfinite(loss):
        what = f"the validation loss of epoch {epoch + 1} is {loss}"
        raise TrainingError(f"{what}; {_advise(epoch, setup)}")


def _advise(epoch: int, setup: Setup, more: str = "") -> str:
    rate = setup.plan.training.optimizer.learning_rate
    kept = f"the checkpoint of epoch {epoch} is kept" if epoch else "there is no checkpoint yet"
    return (
        f"learning rate {rate:g}, {setup.precision}; {kept}; make a variant of {setup.plan.name} with a lower "
        f"training.optimizer.learning_rate, a training.gradient_clip{more}, or training.precision=fp32"
    )


def _log_start(
    log: TrainingLog | NoLog, setup: Setup, state: TrainState, record: RunRecord, problems: list[str], place: str
) -> None:
    for problem in problems:
        log.write(f"{problem}; going on from the checkpoint before it")
    if state.epoch:
        setup.on_event(ResumeReport(state.epoch, tuple(problems)))
    section = setup.plan.training
    action = f"going on after epoch {state.epoch}" if state.epoch else "starting"
    log.write(
        f"{action}: plan {setup.plan.name}, {record.parameters:,} parameters, {count(section.epochs, 'epoch')} of "
        f"{count(section.iterations_per_epoch, 'iteration')}, batch {section.batch_size} of {section.patch_size}"
    )
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    log.write(
        f"on {record.device} in {record.precision} (the plan says {section.precision}), "
        f"{count(record.threads, 'CPU thread')}, "
        f"{count(record.workers, 'worker')}, {place}; {versions}"
    )
