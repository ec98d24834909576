"""What a training is made of: what the plan and the device fix, and its two streams of batches."""

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
from torch import nn

from autoseg.augment._pipeline import Pipeline, join_previous
from autoseg.data.splits import Fold
from autoseg.losses._deep_supervision import build_loss
from autoseg.losses._share import Share
from autoseg.plan.plan import Plan
from autoseg.train.ahead import Place, stay_ahead
from autoseg.train.device import Precision, choose_memory_format, choose_precision
from autoseg.train.diagnosis import Remake
from autoseg.train.interruption import StopFlag
from autoseg.train.laps import Lap, no_lap
from autoseg.train.loader import Batch, BatchRequest, CaseCache, Sampling, name_cases, stream_batches
from autoseg.train.log import OnEvent
from autoseg.train.processes import ALONE, Processes


@dataclass(frozen=True)
class Setup:
    """What stays the same through a training.

    Attributes:
        augmentation: the plan's pipeline.
        loss: takes float32 logits, finest first, and classes.
        membership: which class belongs to which region; bool (regions, classes), on the device.
        on_event: is told of every iteration and epoch.
        stop: the flag that a signal sets.
        processes: that train together.
        share: which samples of a batch this one has; None: all.
        lap: is told of the parts of an iteration as they are done; a training does not listen.
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
    processes: Processes
    share: Share | None
    lap: Lap = no_lap


@dataclass(frozen=True)
class Batches:
    """The two streams of batches.

    Attributes:
        num_validation: how many validation batches an epoch has: none without validation cases.
        remake: makes the batch of an epoch and an iteration of training again.
    """

    training: Generator[Batch, None, None]
    validation: Generator[Batch, None, None]
    num_validation: int
    remake: Remake


def make_setup(
    plan: Plan, device: torch.device, on_event: OnEvent, stop: StopFlag, processes: Processes = ALONE
) -> Setup:
    """Build what the plan and the device fix for the whole training.

    Raises:
        TrainingError: a batch has fewer samples than there are processes.
    """
    training, labels = plan.training, plan.dataset.label_scheme
    share = processes.share_batch(training.batch_size)
    loss = build_loss(
        training.loss.name, training.loss.parameters, labels,
        deep_supervision=training.deep_supervision, class_weights=training.class_weights,
        share=share,
    )  # fmt: skip
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
        processes=processes,
        share=share,
    )


def make_batches(
    setup: Setup,
    first_epoch: int,
    fold: Fold,
    cache: CaseCache,
    pool: ThreadPoolExecutor,
    *,
    place: Place = "device",
) -> Batches:
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
        samples=None if setup.share is None else setup.share.own,
        augmented=place == "cpu",
        sees_previous=setup.plan.previous_stage is not None,
    )
    validation = replace(training, cases=fold.validation, purpose="validation", pipeline=None)
    pinned = setup.device.type == "cuda"
    batches = section.iterations_per_epoch * section.gradient_accumulation
    to_train = (BatchRequest(*key) for key in product(epochs, range(batches)))
    to_validate = (BatchRequest(0, iteration) for _, iteration in product(epochs, range(num_validation)))
    streams = (
        stream_batches(*stream, cache, pool, pin_memory=pinned)
        for stream in ((to_train, training), (to_validate, validation))
    )
    train, validate = (stay_ahead(one, lambda it: Batch(*move_batch(it, setup), None), setup.device) for one in streams)

    def remake(epoch: int, iteration: int) -> dict[str, Any]:
        return _remake(setup, epoch, iteration, replace(training, augmented=False, samples=None), cache, pool)

    return Batches(train, validate, num_validation, remake)


def _remake(
    setup: Setup, epoch: int, iteration: int, sampling: Sampling, cache: CaseCache, pool: ThreadPoolExecutor
) -> dict[str, Any]:
    """Return what a step saw, on the CPU: images (B, C, Z, Y, X), classes (B, Z, Y, X), and whose they are."""
    count = setup.plan.training.gradient_accumulation
    requests = [BatchRequest(epoch, iteration * count + part) for part in range(count)]
    parts = [move_batch(batch, setup) for batch in stream_batches(requests, sampling, cache, pool)]
    images, classes = (torch.cat(tensors).cpu() for tensors in zip(*parts))
    cases = [case for request in requests for case in name_cases(request, sampling)]
    return {"epoch": epoch + 1, "iteration": iteration + 1, "cases": cases, "images": images, "classes": classes}


def move_batch(batch: Batch, setup: Setup) -> tuple[torch.Tensor, torch.Tensor]:
    """Bring a batch to the device, augment it there, and lay it out as the network wants it."""
    setup.lap("waiting")
    images = batch.images.to(setup.device, non_blocking=True)
    classes = batch.classes.to(setup.device, non_blocking=True)
    setup.lap("transfer")
    if batch.parameters is not None:
        patch_size = setup.plan.training.patch_shape
        images, classes = setup.augmentation.apply(images, classes, batch.parameters, patch_size)
    images, classes = join_previous(images, classes)
    images = images.contiguous(memory_format=setup.memory_format)
    setup.lap("augmentation")
    return images, classes
