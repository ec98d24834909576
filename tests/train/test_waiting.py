"""A step never waits for the device: nothing reads a value back from it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from autoseg.losses import available_losses, load_loss
from autoseg.plan.plan import Plan
from autoseg.train.interruption import StopFlag
from autoseg.train.loader import Batch
from autoseg.train.setup import make_setup
from autoseg.train.state import make_state
from autoseg.train.step import train_step

MakePlan = Callable[..., Plan]

WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique_dim", "_unique2"}
"""Operators whose result, or its shape, is needed on the host: ``item``, ``bool(...)``, choosing by a mask."""

OPTIMIZERS = {"sgd": 0.9, "adamw": None}


class _Noticer(TorchDispatchMode):
    """Notes operators that would wait for a GPU, whatever device they run on."""

    def __init__(self) -> None:
        super().__init__()
        self.noticed: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        if name in WAITING or name.startswith("index") and any(map(_is_mask, args[1:2])):
            self.noticed.append(name)
        return function(*args, **(kwargs or {}))


def _is_mask(indices: Any) -> bool:
    return isinstance(indices, (list, tuple)) and any(i is not None and i.dtype == torch.bool for i in indices)


def _make_batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn((2, 1, 16, 16, 16), generator=generator)
    return Batch(images, torch.randint(-1, 3, (2, 16, 16, 16), generator=generator, dtype=torch.int16), None)


def _step(plan: Plan, device: torch.device) -> Callable[[], object]:
    setup = make_setup(plan, device, lambda event: None, StopFlag())
    state = make_state(plan, device, scaled=False)
    batch = _make_batch()
    if device.type == "cuda":
        batch = Batch(batch.images.pin_memory(), batch.classes.pin_memory(), None)
    return lambda: train_step(state, setup, [batch], 1)


def _plan(make_plan: MakePlan, loss: str, optimizer: str, on_nan: str) -> Plan:
    momentum = OPTIMIZERS[optimizer]
    return make_plan(
        loss={"name": loss, **load_loss(loss).Config().model_dump()},
        optimizer={"name": optimizer, "learning_rate": 0.01} | ({"momentum": momentum} if momentum else {}),
        on_nan=on_nan,
        ema_decay=0.9,
        class_weights={"core": 2.0},
    )


@pytest.mark.parametrize("loss", available_losses())
def test_no_loss_waits(make_plan: MakePlan, loss: str) -> None:
    step = _step(_plan(make_plan, loss, "sgd", "stop"), torch.device("cpu"))
    with _Noticer() as noticer:
        step()
    assert noticer.noticed == []


@pytest.mark.parametrize("on_nan", ["stop", "skip"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_no_optimiser_waits(make_plan: MakePlan, optimizer: str, on_nan: str) -> None:
    step = _step(_plan(make_plan, "dice_ce", optimizer, on_nan), torch.device("cpu"))
    with _Noticer() as noticer:
        step()
    assert noticer.noticed == []


def test_the_noticer_notices() -> None:
    values = torch.arange(3.0)
    for read in (lambda: values[0].item(), lambda: bool(values[0]), lambda: values[values > 1]):
        with _Noticer() as noticer:
            read()
        assert noticer.noticed


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("on_nan", ["stop", "skip"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_cuda_finds_no_waiting(make_plan: MakePlan, optimizer: str, on_nan: str) -> None:
    step = _step(_plan(make_plan, "dice_ce", optimizer, on_nan), torch.device("cuda"))
    step()  # memory is taken, and libraries are loaded, which waits
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
