"""The training of one fold: one loop of plain functions over an explicit state.

Read it from ``train_fold`` downwards; there are no hooks. What varies between trainings stands in the plan; who needs
more copies this file. Torch's threads, seeds and cuDNN's flags are as before when it returns.
"""

import math
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import torch
from torch import nn

from autoseg.augment._pipeline import Pipeline
from autoseg.data.splits import Fold
from autoseg.documents import write_document
from autoseg.errors import TrainingError
from autoseg.losses._deep_supervision import build_loss
from autoseg.plan.plan import Plan
from autoseg.preprocess.store import CaseStore, remove_stale
from autoseg.train.device import (
    DTYPES,
    Precision,
    RunRecord,
    choose_memory_format,
    choose_precision,
    cudnn_settings,
    make_run_record,
    peak_memory_gb,
    reset_peak_memory,
)
from autoseg.train.exclusion import hold_folder
from autoseg.train.interruption import StopFlag, catch_signals
from autoseg.train.loader import Batch, BatchRequest, CaseCache, Sampling, open_pool, stream_batches
from autoseg.train.log import EpochReport, IterationReport, OnEvent, Phase, TrainingLog, make_record
from autoseg.train.optimization import learning_rate, set_learning_rate
from autoseg.train.state import (
    Checkpoint,
    TrainState,
    make_state,
    read_last,
    restore_state,
    save_best,
    save_last,
    seeded_epoch,
    training_digest,
    update_best,
)


@dataclass(frozen=True)
class Setup:
    """What stays the same through a training.

    Attributes:
        augmentation: the plan's pipeline.
        loss: takes float32 logits, finest first, and classes.
        membership: which class belongs to which region; bool (regions, classes), on the device.
        on_event: is told of every iteration and epoch.
        stop: the flag that a signal sets.
    """

    plan: Plan
    device: torch.device
    precision: Precision
    memory_format: torch.memory_format
    augmentation: Pipeline
    loss: nn.Module
    membership: torch.Tensor
    on_event: OnEvent
    stop: StopFlag


@dataclass(frozen=True)
class Batches:
    """The two streams of batches, and how many validation batches an epoch has: none without validation cases."""

    training: Generator[Batch, None, None]
    validation: Generator[Batch, None, None]
    num_validation: int


def train_fold(
    plan: Plan,
    store: CaseStore,
    fold: Fold,
    run_folder: Path,
    *,
    device: torch.device,
    num_workers: int,
    on_event: OnEvent = lambda event: None,
) -> None:
    """Train one fold in ``run_folder``, from its last checkpoint if there is one; return at once if it is finished.

    The same seed gives the same batches and weights whatever ``num_workers`` is. On the CPU, an interrupted and
    resumed training is bit for bit an uninterrupted one with the same number of torch threads.

    Raises:
        TrainingError: cases are missing, the folder holds a training of another plan or one that runs at this moment,
            or the loss is not finite.
        TrainingInterrupted: SIGINT or SIGTERM was received; a second one ends the running iteration too.
    """
    _check_cases(fold, store)
    with hold_folder(run_folder), catch_signals() as stop:
        checkpoint, problems = open_run(run_folder, plan)
        if checkpoint is not None and checkpoint["epoch"] >= plan.training.epochs:
            return
        with cudnn_settings(device), open_pool(num_workers) as pool:
            setup = make_setup(plan, device, on_event, stop)
            state = make_state(plan, device, scaled=setup.precision == "fp16")
            if checkpoint is not None:
                restore_state(state, checkpoint)
            record = make_run_record(device, setup.precision, state.network, num_workers)
            write_document(run_folder / "run.json", record)
            batches = make_batches(setup, state.epoch, fold, CaseCache(store), pool)
            log = TrainingLog(run_folder, state.history)
            with closing(log), closing(batches.training), closing(batches.validation):
                _log_start(log, setup, state, record, problems)
                run_epochs(state, setup, batches, run_folder, log)


def open_run(run_folder: Path, plan: Plan) -> tuple[Checkpoint | None, list[str]]:
    """Clear away what a killed run left half-written, keep the plan beside its results, and return ``read_last``.

    Raises:
        TrainingError: no checkpoint is readable, or it belongs to another plan.
    """
    for folder in ("", "checkpoints", "logs", "validation"):
        remove_stale(run_folder / folder)
    checkpoint, problems = read_last(run_folder / "checkpoints", plan)
    write_document(run_folder / "plan.json", plan)
    return checkpoint, problems


def make_setup(plan: Plan, device: torch.device, on_event: OnEvent, stop: StopFlag) -> Setup:
    """Build what the plan and the device fix for the whole training."""
    training, labels = plan.training, plan.dataset.label_scheme
    loss = build_loss(training.loss.name, training.loss.parameters, labels, deep_supervision=training.deep_supervision)
    return Setup(
        plan=plan,
        device=device,
        precision=choose_precision(training.precision, device),
        memory_format=choose_memory_format(device),
        augmentation=Pipeline([(entry.name, entry.parameters) for entry in training.augmentation]),
        loss=loss.to(device),
        membership=torch.from_numpy(labels.membership()).to(device),
        on_event=on_event,
        stop=stop,
    )


def make_batches(setup: Setup, first_epoch: int, fold: Fold, cache: CaseCache, pool: ThreadPoolExecutor) -> Batches:
    """Return the streams of all batches from ``first_epoch`` on, so that reading ahead does not stop at an epoch's end.

    The validation batches of every epoch are those of epoch 0: its loss is comparable from epoch to epoch.
    """
    section = setup.plan.training
    epochs = range(first_epoch, section.epochs)
    num_validation = section.validation_iterations if fold.validation else 0
    training = Sampling(
        cases=fold.train,
        purpose="training",
        num_channels=len(setup.plan.dataset.channels),
        patch_size=section.patch_shape,
        batch_size=section.batch_size,
        foreground_oversampling=section.foreground_oversampling,
        seed=section.seed,
        pipeline=setup.augmentation,
    )
    validation = replace(training, cases=fold.validation, purpose="validation", pipeline=None)
    pinned = setup.device.type == "cuda"
    to_train = (BatchRequest(*key) for key in product(epochs, range(section.iterations_per_epoch)))
    to_validate = (BatchRequest(0, iteration) for _, iteration in product(epochs, range(num_validation)))
    return Batches(
        stream_batches(to_train, training, cache, pool, pin_memory=pinned),
        stream_batches(to_validate, validation, cache, pool, pin_memory=pinned),
        num_validation,
    )


def run_epochs(state: TrainState, setup: Setup, batches: Batches, run_folder: Path, log: TrainingLog) -> None:
    """Run the epochs that remain; their files are written in an order in which a kill between two loses nothing."""
    checkpoints, digest = run_folder / "checkpoints", training_digest(setup.plan)
    try:
        while state.epoch < setup.plan.training.epochs:
            report = run_epoch(state, setup, batches)
            if report.best:
                save_best(state, checkpoints, digest)
            log.write_epoch(report)
            save_last(state, checkpoints, digest)
            setup.on_event(report)
            setup.stop.check(state.epoch)
    except (TrainingError, KeyboardInterrupt) as error:
        with suppress(OSError):  # a full disk ended the training, and the log would only say so once more
            log.write(str(error) or "interrupted")
        raise
    log.write("finished")


def run_epoch(state: TrainState, setup: Setup, batches: Batches) -> EpochReport:
    """Train and validate for one epoch, count it in ``state``, and report it.

    Raises:
        TrainingError: a loss is not finite. ``state`` is then spoilt; the checkpoint on disk is not.
    """
    started = time.perf_counter()
    reset_peak_memory(setup.device)
    with seeded_epoch(setup.plan.training.seed, state.epoch, setup.device):
        train_loss, waiting_to_train = run_training(state, setup, batches)
        validation_loss, dice, waiting_to_validate = run_validation(state, setup, batches)
    _check_finite(train_loss, validation_loss, state.epoch, setup)
    defined = [value for value in dice.values() if value is not None]
    mean_dice = sum(defined) / len(defined) if defined else None
    seconds = time.perf_counter() - started
    state.epoch += 1
    report = EpochReport(
        epoch=state.epoch,
        epochs=setup.plan.training.epochs,
        train_loss=train_loss,
        validation_loss=validation_loss,
        validation_dice=dice,
        mean_dice=mean_dice,
        best=update_best(state, mean_dice),
        learning_rate=state.optimizer.param_groups[0]["lr"],
        seconds=seconds,
        seconds_waiting=waiting_to_train + waiting_to_validate,
        seconds_left=_estimate_seconds_left(seconds, state, setup),
        peak_memory_gb=peak_memory_gb(setup.device),
    )
    state.history.append(make_record(report))
    return report


def run_training(state: TrainState, setup: Setup, batches: Batches) -> tuple[float, float]:
    """Train for the iterations of one epoch; return the mean loss and the seconds spent waiting for data."""
    section = setup.plan.training
    iterations = section.iterations_per_epoch
    loss, waiting = torch.zeros((), device=setup.device), 0.0
    state.network.train()
    for iteration in range(iterations):
        setup.stop.check(state.epoch)
        batch, seconds = _next_batch(batches.training)
        waiting += seconds
        count = state.epoch * iterations + iteration
        rate = learning_rate(section.schedule, section.optimizer.learning_rate, count, section.epochs * iterations)
        set_learning_rate(state.optimizer, rate)
        loss += train_step(state, setup, batch)
        _report_iteration("training", iteration, iterations, state, setup)
    return loss.item() / iterations, waiting  # reading the loss waits for the device, so once an epoch


def train_step(state: TrainState, setup: Setup, batch: Batch) -> torch.Tensor:
    """Take one step of the optimiser; return the loss on the device, without waiting for it."""
    images, classes = _move(batch, setup)
    state.optimizer.zero_grad(set_to_none=True)  # before the forward pass, whose activations need the memory
    logits = _compute_logits(state.network, images, setup)
    loss: torch.Tensor = setup.loss(logits, classes)
    _scale(loss, state).backward()  # type: ignore[no-untyped-call]
    if setup.plan.training.gradient_clip is not None:
        if state.scaler is not None:
            state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.network.parameters(), setup.plan.training.gradient_clip)
    if state.scaler is None:
        state.optimizer.step()
    else:
        state.scaler.step(state.optimizer)
        state.scaler.update()
    return loss.detach()


@torch.no_grad()
def run_validation(
    state: TrainState, setup: Setup, batches: Batches
) -> tuple[float | None, dict[str, float | None], float]:
    """Return the mean loss, the pseudo Dice of each region, and the seconds spent waiting for data."""
    iterations = batches.num_validation
    overlapping = setup.plan.dataset.label_scheme.overlapping
    loss, waiting = torch.zeros((), device=setup.device), 0.0
    counts = torch.zeros((len(setup.membership), 3), dtype=torch.int64, device=setup.device)
    state.network.eval()
    for iteration in range(iterations):
        setup.stop.check(state.epoch)
        batch, seconds = _next_batch(batches.validation)
        waiting += seconds
        images, classes = _move(batch, setup)
        logits = _compute_logits(state.network, images, setup)
        loss += setup.loss(logits, classes)
        counts += count_voxels(logits[0], classes, setup.membership, overlapping=overlapping)
        _report_iteration("validation", iteration, iterations, state, setup)
    dice = dict(zip(setup.plan.dataset.regions, pseudo_dice(counts)))
    return loss.item() / iterations if iterations else None, dice, waiting


def count_voxels(
    logits: torch.Tensor, classes: torch.Tensor, membership: torch.Tensor, *, overlapping: bool
) -> torch.Tensor:
    """Return int64 (regions, 3): voxels that are truly, falsely, and falsely not predicted; ignored ones do not count.

    ``logits`` is (B, outputs, Z, Y, X), with an output a region if these overlap, else a class; ``classes`` is
    (B, Z, Y, X); ``membership`` is bool (regions, classes).
    """
    known = classes >= 0
    reference_classes = classes.clamp(min=0).long()
    predicted_classes = None if overlapping else logits.argmax(1)
    rows = []
    for region, members in enumerate(membership):
        predicted = logits[:, region] > 0 if predicted_classes is None else members[predicted_classes]
        reference = members[reference_classes]
        found, missed = predicted & known, ~predicted & known
        rows.append(torch.stack([(found & reference).sum(), (found & ~reference).sum(), (missed & reference).sum()]))
    return torch.stack(rows)


def pseudo_dice(counts: torch.Tensor) -> list[float | None]:
    """Return 2TP / (2TP + FP + FN) of each region, or None where the region is neither predicted nor there."""
    triples: list[list[int]] = counts.tolist()
    return [2 * tp / (2 * tp + fp + fn) if tp + fp + fn else None for tp, fp, fn in triples]


def _move(batch: Batch, setup: Setup) -> tuple[torch.Tensor, torch.Tensor]:
    """Bring a batch to the device, augment it there, and lay it out as the network wants it."""
    images = batch.images.to(setup.device, non_blocking=True)
    classes = batch.classes.to(setup.device, non_blocking=True)
    if batch.parameters is not None:
        patch_size = setup.plan.training.patch_shape
        images, classes = setup.augmentation.apply(images, classes, batch.parameters, patch_size)
    return images.contiguous(memory_format=setup.memory_format), classes


def _compute_logits(network: nn.Module, images: torch.Tensor, setup: Setup) -> list[torch.Tensor]:
    """Return the network's logits, finest first, in float32 for the loss."""
    with torch.autocast(setup.device.type, dtype=DTYPES[setup.precision], enabled=setup.precision != "fp32"):
        logits: list[torch.Tensor] = network(images)
    return [stage.float() for stage in logits]


def _scale(loss: torch.Tensor, state: TrainState) -> torch.Tensor:
    return loss if state.scaler is None else state.scaler.scale(loss)


def _next_batch(stream: Iterator[Batch]) -> tuple[Batch, float]:
    started = time.perf_counter()
    batch = next(stream)
    return batch, time.perf_counter() - started


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
        count = f"{len(missing)} of {len(wanted)} cases"
        raise TrainingError(f"{store.folder}: {count} are not preprocessed, e.g. {missing[0]}; run autoseg_plan")


def _check_finite(train_loss: float, validation_loss: float | None, epoch: int, setup: Setup) -> None:
    for kind, loss in (("training", train_loss), ("validation", validation_loss)):
        if loss is not None and not math.isfinite(loss):
            rate = setup.plan.training.optimizer.learning_rate
            kept = f"the checkpoint of epoch {epoch} is kept" if epoch else "there is no checkpoint yet"
            raise TrainingError(
                f"{setup.plan.name}: the {kind} loss of epoch {epoch + 1} is {loss} (learning rate {rate:g}, "
                f"{setup.precision}); {kept}; make a variant with a lower "
                f"training.optimizer.learning_rate, a training.gradient_clip, or training.precision=fp32"
            )


def _log_start(log: TrainingLog, setup: Setup, state: TrainState, record: RunRecord, problems: list[str]) -> None:
    for problem in problems:
        log.write(f"{problem}; going on from the checkpoint before it")
    section = setup.plan.training
    action = f"going on after epoch {state.epoch}" if state.epoch else "starting"
    log.write(
        f"{action}: plan {setup.plan.name}, {record.parameters:,} parameters, {section.epochs} epochs of "
        f"{section.iterations_per_epoch} iterations, batch {section.batch_size} of {section.patch_size}"
    )
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    log.write(
        f"on {record.device} in {record.precision} (the plan says {section.precision}), {record.threads} CPU threads, "
        f"{record.workers} workers; {versions}"
    )
