"""The state of a training, and its checkpoints.

A checkpoint stands for a number of finished epochs. It holds no state of any random generator, because every epoch
seeds what it uses from the plan's seed and its own number (see patches.py).
"""

import math
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from torch import nn

from autoseg.documents import Document, content_hash, write_beside
from autoseg.errors import TrainingError
from autoseg.networks import load_architecture
from autoseg.networks._slices import build_for_volumes
from autoseg.plan.plan import Network, Plan, PlanDataset, Preprocessing, Training
from autoseg.train.device import place_network
from autoseg.train.optimization import build_optimizer
from autoseg.train.patches import make_seed

SCHEMA = "autoseg.checkpoint.1"
EMA_WEIGHT = 0.9
"""Weight of the past in the moving average that the best epoch is chosen by; nnU-Net's."""

Checkpoint = dict[str, Any]

RESTORE = "; copy it again from where it was, or let autoseg_train go on from the checkpoint before it"
"""What to do about a checkpoint that cannot be read."""

_NETWORK = frozenset({"plan_sha256", "epoch", "network"})
_RESUMABLE = _NETWORK | {"optimizer", "scaler", "average_dice", "best_dice", "history"}
"""What a checkpoint must hold to predict, and to go on from."""


@dataclass
class TrainState:
    """What changes while training.

    Attributes:
        network: what is trained.
        wrapped: the network as it is trained, compiled or with gradients of several processes; None: as it is.
        averaged: the exponential moving average of its weights, if the plan wants one, else None.
        scaler: scales the loss in fp16, else None.
        epoch: number of finished epochs.
        average_dice: exponential moving average of the epochs' mean pseudo Dice, None before the first defined one.
        best_dice: the highest ``average_dice`` so far.
        history: one metrics.jsonl record a finished epoch.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler | None
    averaged: nn.Module | None = None
    wrapped: nn.Module | None = None
    epoch: int = 0
    average_dice: float | None = None
    best_dice: float | None = None
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def training(self) -> nn.Module:
        """The network as a step calls it."""
        return self.network if self.wrapped is None else self.wrapped

    @property
    def predicting(self) -> nn.Module:
        """The network that is validated, kept as the result, and predicted with."""
        return self.network if self.averaged is None else self.averaged


class _TrainedBy(Document):
    """The sections of a plan that a training depends on; scoring otherwise or another sentence does not spoil it."""

    previous_stage: str | None
    dataset: PlanDataset
    preprocessing: Preprocessing
    network: Network
    training: Training


def training_digest(plan: Plan) -> str:
    """Return the hash of all that the weights depend on."""
    sections = _TrainedBy(
        previous_stage=plan.previous_stage,
        dataset=plan.dataset,
        preprocessing=plan.preprocessing,
        network=plan.network,
        training=plan.training,
    )
    return content_hash(sections)


def build_network(plan: Plan) -> nn.Module:
    """Return the plan's network on the CPU, its weights drawn from the plan's seed and the caller's randomness kept.

    It takes batches (B, C, Z, Y, X), whether it is 2-D or 3-D; in a cascade the last channel is a class map.
    """
    architecture = load_architecture(plan.network.architecture)
    channels = len(plan.dataset.channels), plan.dataset.label_scheme.num_outputs
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(make_seed(plan.training.seed, "weights", 0, 0))
        config, dimensions = plan.network.architecture_config, plan.training.dimensions
        num_previous = plan.num_previous_classes
        return build_for_volumes(architecture, config, *channels, dimensions=dimensions, num_previous=num_previous)


def make_state(plan: Plan, device: torch.device, *, scaled: bool) -> TrainState:
    """Return the state before the first epoch; ``scaled`` says whether the loss is scaled, as fp16 needs."""
    network = place_network(build_network(plan), device)
    optimizer = build_optimizer(plan.training.optimizer, network.parameters())
    averaged = None if plan.training.ema_decay is None else deepcopy(network).requires_grad_(False)
    return TrainState(network, optimizer, torch.amp.GradScaler(device.type) if scaled else None, averaged)


def update_best(state: TrainState, dice: float | None) -> bool:
    """Take an epoch's mean pseudo Dice into the moving average; return whether this epoch is the best so far.

    Without any defined Dice yet (no validation case shows foreground) the latest epoch counts as the best.
    """
    before = state.best_dice
    state.average_dice = average_dice(state.average_dice, dice)
    if state.average_dice is None:
        return True
    if before is not None and (dice is None or state.average_dice <= before):
        return False
    state.best_dice = state.average_dice
    return True


def average_dice(average: float | None, dice: float | None) -> float | None:
    """Return the moving average after an epoch's mean pseudo Dice; one that is undefined changes nothing."""
    if dice is None:
        return average
    return EMA_WEIGHT * (dice if average is None else average) + (1 - EMA_WEIGHT) * dice


def is_finished(plan: Plan, history: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a training has run all its epochs, or the plan's ``early_stopping`` ends it before."""
    patience = plan.training.early_stopping
    if len(history) >= plan.training.epochs:
        return True
    return patience is not None and count_epochs_since_best(history) >= patience


def count_epochs_since_best(history: Sequence[Mapping[str, Any]]) -> int:
    """Return the number of epochs since the moving average of the mean pseudo Dice was highest."""
    average, best, since = None, -math.inf, 0
    for record in history:
        average = average_dice(average, mean_dice(record["validation_dice"]))
        better = average is not None and average > best
        best, since = (average, 0) if better and average is not None else (best, since + 1)
    return since


def mean_dice(dice: Mapping[str, float | None]) -> float | None:
    """Return the mean of the regions' defined Dice, or None."""
    defined = [value for value in dice.values() if value is not None]
    return sum(defined) / len(defined) if defined else None


def save_last(state: TrainState, folder: Path, digest: str) -> None:
    """Write checkpoints/last.pt, keeping the one before it as last.previous.pt.

    Raises:
        TrainingError: it cannot be written; those before are untouched.
    """
    last, new = folder / "last.pt", folder / "last.new.pt"
    content = _describe(state, digest) | {
        "trained": None if state.averaged is None else state.network.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "scaler": None if state.scaler is None else state.scaler.state_dict(),
        "average_dice": state.average_dice,
        "best_dice": state.best_dice,
        "history": state.history,
    }
    _save(content, new)
    if last.exists():
        last.replace(folder / "last.previous.pt")
    new.replace(last)


def save_best(state: TrainState, folder: Path, digest: str) -> None:
    """Write checkpoints/best.pt: the network alone.

    Raises:
        TrainingError: it cannot be written; the one before is untouched.
    """
    _save(_describe(state, digest), folder / "best.pt")


def read_last(folder: Path, plan: Plan) -> tuple[Checkpoint | None, list[str]]:
    """Return the latest readable checkpoint of a run, or None if there is none yet, and what was unreadable.

    Raises:
        TrainingError: no checkpoint is readable, or it belongs to another plan.
    """
    paths = [path for path in (folder / "last.pt", folder / "last.previous.pt") if path.exists()]
    problems: list[str] = []
    for path in paths:
        try:
            checkpoint = _load(path, _RESUMABLE)
        except TrainingError as error:
            problems.append(str(error))
        else:
            _check_plan(checkpoint, plan, path)
            return checkpoint, problems
    if problems:
        raise TrainingError(f"{'; '.join(problems)}; delete {folder.parent} to train from the beginning")
    return None, problems


def read_checkpoint(path: Path, plan: Plan) -> Checkpoint:
    """Read a checkpoint of this plan onto the CPU. Only tensors and plain values are loaded, never code.

    Raises:
        TrainingError: it is unreadable or belongs to another plan.
    """
    checkpoint = _load(path, _NETWORK, RESTORE)
    _check_plan(checkpoint, plan, path)
    return checkpoint


def read_progress(run_folder: Path, plan: Plan) -> tuple[int, bool]:
    """Return the number of epochs of a run that has a last.pt, and whether it is finished.

    One that was exported holds the network alone, and is what was meant to be exported.

    Raises:
        TrainingError: it is unreadable.
    """
    checkpoint = _load(run_folder / "checkpoints" / "last.pt", _NETWORK, RESTORE)
    return checkpoint["epoch"], "history" not in checkpoint or is_finished(plan, checkpoint["history"])


def restore_state(state: TrainState, checkpoint: Checkpoint) -> None:
    """Put a checkpoint of ``read_last`` into a fresh state.

    Raises:
        TrainingError: the network's code has changed since.
    """
    with _fitting(f"the checkpoint of epoch {checkpoint['epoch']}"):
        state.network.load_state_dict(checkpoint.get("trained") or checkpoint["network"])
        if state.averaged is not None:
            state.averaged.load_state_dict(checkpoint["network"])
        state.optimizer.load_state_dict(checkpoint["optimizer"])
    if state.scaler is not None and checkpoint["scaler"] is not None:
        state.scaler.load_state_dict(checkpoint["scaler"])
    state.epoch = checkpoint["epoch"]
    state.average_dice, state.best_dice = checkpoint["average_dice"], checkpoint["best_dice"]
    state.history = list(checkpoint["history"])


def load_network(run_folder: Path, plan: Plan, *, which: Literal["best", "last"], device: torch.device) -> nn.Module:
    """Return the trained network of a run on ``device``, in evaluation mode.

    Raises:
        TrainingError: there is no such checkpoint, or it is unreadable or belongs to another plan.
    """
    path = run_folder / "checkpoints" / f"{which}.pt"
    if not path.exists():
        raise TrainingError(f"{path}: no such checkpoint; train this fold first with autoseg_train")
    network, checkpoint = build_network(plan), read_checkpoint(path, plan)
    with _fitting(str(path)):
        network.load_state_dict(checkpoint["network"])
    return place_network(network, device).eval()


@contextmanager
def seeded_epoch(seed: int, epoch: int, device: torch.device, rank: int = 0) -> Iterator[None]:
    """Seed torch's own generators for one epoch, since dropout draws from them; then put the caller's state back.

    Processes that train together differ in ``rank``, so that their samples are not dropped out alike.
    """
    number = make_seed(seed, "dropout", epoch, 0, rank)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(number)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(number)
        yield


def _describe(state: TrainState, digest: str) -> Checkpoint:
    return {"schema": SCHEMA, "plan_sha256": digest, "epoch": state.epoch, "network": state.predicting.state_dict()}


def _save(content: Checkpoint, path: Path) -> None:
    try:
        with write_beside(path) as temporary:
            torch.save(content, temporary)
    except (OSError, RuntimeError) as error:  # torch's own writer tells of a full disk by the latter
        raise TrainingError(
            f"{path}: the checkpoint of epoch {content['epoch']} cannot be written ({_reason(error)}); those before it "
            f"are kept; make room on the disk, then run the same command again"
        ) from error


def _load(path: Path, keys: frozenset[str], remedy: str = "") -> Checkpoint:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of foreign pickles before it refuses them
            content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:  # torch's own text advises to load it all the same
        found = "it holds more than tensors and plain values, which might be code and is not run"
        raise TrainingError(f"{path}: the checkpoint cannot be read: {found}{remedy}") from error
    except Exception as error:  # zip and storage errors share no class below this one
        found = "it is cut short or damaged" if _is_damaged(path) else _reason(error)
        raise TrainingError(f"{path}: the checkpoint cannot be read: {found}{remedy}") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise TrainingError(f"{path}: this is no checkpoint of the form {SCHEMA}")
    if missing := sorted(keys - content.keys()):
        raise TrainingError(f"{path}: the checkpoint holds no {', '.join(missing)}")  # best.pt copied to last.pt
    return content


def _is_damaged(path: Path) -> bool:
    """Return whether a file is there that is no whole zip archive, which every checkpoint is.

    torch tells of it by the line of its own source that failed, or by an error of seeking.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is not None
    except zipfile.BadZipFile:
        return True
    except OSError:
        return False


@contextmanager
def _fitting(what: str) -> Iterator[None]:
    try:
        yield
    except (KeyError, RuntimeError, ValueError) as error:
        raise TrainingError(
            f"{what} does not fit the network, whose code must have changed since ({_reason(error)}); "
            f"bring the old code back, or delete the run's folder to train from the beginning"
        ) from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__


def _check_plan(checkpoint: Checkpoint, plan: Plan, path: Path) -> None:
    if checkpoint["plan_sha256"] != training_digest(plan):
        raise TrainingError(
            f"{path}: this was trained with another plan than the present {plan.name!r}: the dataset, preprocessing, "
            f"network or training section differs; give the changed plan another --name, or delete {path.parents[1]}"
        )
