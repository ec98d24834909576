"""Optimisers and schedules against PyTorch's own, built by hand."""

from typing import Any

import numpy as np
import pytest
import torch

from autoseg.plan.optimization import (
    Adam,
    AdamW,
    Cosine,
    Cyclic,
    OneCycle,
    Optimizer,
    Plateau,
    Poly,
    RmsProp,
    Schedule,
    Sgd,
    Step,
)
from autoseg.train.optimization import build_optimizer, count_drops, learning_rate, set_learning_rate

PAIRS = [
    (Sgd(learning_rate=0.1), torch.optim.SGD, {"momentum": 0.99, "nesterov": True, "weight_decay": 3e-5}),
    (Sgd(learning_rate=0.1, momentum=0.0), torch.optim.SGD, {"weight_decay": 3e-5}),
    (Adam(learning_rate=0.1, weight_decay=0.1), torch.optim.Adam, {"weight_decay": 0.1}),
    (AdamW(learning_rate=0.1, betas=(0.8, 0.9)), torch.optim.AdamW, {"betas": (0.8, 0.9), "weight_decay": 1e-2}),
    (RmsProp(learning_rate=0.1), torch.optim.RMSprop, {"momentum": 0.9}),
]


@pytest.mark.parametrize(("section", "reference", "arguments"), PAIRS, ids=lambda v: getattr(v, "name", None))
def test_steps_are_those_of_the_named_optimizer(section: Optimizer, reference: Any, arguments: dict[str, Any]) -> None:
    torch.manual_seed(0)
    start = torch.randn(4, 3, 3, 3, 3)
    ours, theirs = (torch.nn.Parameter(start.clone().to(memory_format=torch.channels_last_3d)) for _ in range(2))
    optimizers = (
        build_optimizer(section, [ours]),
        reference([theirs], lr=0.1, fused=False, **arguments)
        if (reference is not torch.optim.RMSprop)
        else reference([theirs], lr=0.1, **arguments),
    )
    for _ in range(3):
        for weights, optimizer in zip((ours, theirs), optimizers):
            optimizer.zero_grad()
            (weights**3).sum().backward()
            optimizer.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_poly_is_nnunets() -> None:
    schedule = Poly(exponent=0.9, warmup_iterations=0)
    rates = [learning_rate(schedule, 0.01, i, 1000) for i in (0, 500, 999)]
    assert rates == pytest.approx([0.01, 0.01 * 0.5**0.9, 0.01 * 0.001**0.9])


def test_cosine_is_pytorchs() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)
    for iteration in range(20):
        assert learning_rate(Cosine(warmup_iterations=0), 0.3, iteration, 20) == pytest.approx(
            scheduler.get_last_lr()[0]
        )
        optimizer.step()
        scheduler.step()


def follow(scheduler_class: Any, count: int, base: float = 0.3, **arguments: Any) -> list[float]:
    """Return the rates that one of PyTorch's schedulers gives."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=base)
    scheduler = scheduler_class(optimizer, **arguments)
    rates = []
    for _ in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def rates_of(schedule: Schedule, count: int, base: float = 0.3) -> list[float]:
    return [learning_rate(schedule, base, iteration, count) for iteration in range(count)]


def test_step_is_pytorchs() -> None:
    expected = follow(torch.optim.lr_scheduler.MultiStepLR, 40, milestones=[10, 30], gamma=0.2)
    assert rates_of(Step(milestones=(0.25, 0.75), factor=0.2), 40) == pytest.approx(expected)


@pytest.mark.parametrize(("decay", "mode"), [(1.0, "triangular"), (0.5, "triangular2")])
def test_cyclic_is_pytorchs(decay: float, mode: str) -> None:
    limits = {"base_lr": 0.03, "max_lr": 0.3, "step_size_up": 5, "mode": mode, "cycle_momentum": False}
    expected = follow(torch.optim.lr_scheduler.CyclicLR, 40, **limits)
    assert rates_of(Cyclic(cycles=4, lowest=0.1, decay=decay), 40) == pytest.approx(expected)


@pytest.mark.parametrize("count", [10, 37])
def test_one_cycle_is_pytorchs(count: int) -> None:
    limits = {"max_lr": 0.3, "total_steps": count, "pct_start": 0.3, "cycle_momentum": False}
    expected = follow(torch.optim.lr_scheduler.OneCycleLR, count, **limits)
    assert rates_of(OneCycle(), count) == pytest.approx(expected)


def test_plateau_is_pytorchs() -> None:
    """On losses that fall, rest and fall again; smoothed beforehand, since PyTorch's looks at them as they are."""
    rng = np.random.default_rng(0)
    losses = [*np.linspace(1, 0.5, 15), *(0.5 + 0.02 * rng.standard_normal(40)), *np.linspace(0.5, -0.3, 15)]
    losses += list(-0.3 + 0.01 * rng.standard_normal(30))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=5, threshold=1e-3)
    schedule = Plateau(factor=0.5, patience=0.05, smoothing=0.8, threshold=1e-3, least=1e-9)
    smoothed, found, expected = losses[0], [], []
    for epoch, loss in enumerate(losses):
        smoothed = 0.8 * smoothed + 0.2 * loss
        theirs.step(smoothed)
        expected.append(optimizer.param_groups[0]["lr"])
        found.append(learning_rate(schedule, 0.3, 0, 1, drops=count_drops(schedule, losses[: epoch + 1], 100)))
    assert found == pytest.approx(expected)
    assert len(set(found)) > 3


def test_a_plateau_has_a_least_rate() -> None:
    assert learning_rate(Plateau(factor=0.1, least=0.05), 2.0, 0, 1, drops=5) == pytest.approx(0.1)


def test_other_schedules_never_drop() -> None:
    assert count_drops(Poly(), [1.0] * 100, 100) == 0


SCHEDULES = [Poly(), Cosine(), Step(), Plateau(), Cyclic(), OneCycle()]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda one: one.name)
def test_every_schedule_warms_up_and_stays_between_0_and_the_rate(schedule: Schedule) -> None:
    warm = schedule.model_copy(update={"warmup_iterations": 5})
    rates = rates_of(warm, 45, base=1.0)
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[5:] == pytest.approx(rates_of(schedule, 40, base=1.0))
    assert all(0 <= rate <= 1 for rate in rates)


@pytest.mark.parametrize("schedule", [Poly(warmup_iterations=4), Cosine(warmup_iterations=4)], ids=["poly", "cosine"])
def test_warmup_rises_linearly_and_meets_the_decay(schedule: Poly | Cosine) -> None:
    rates = [learning_rate(schedule, 1.0, i, 14) for i in range(14)]
    assert rates[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert 0 < rates[-1] < 0.2


def test_a_training_shorter_than_its_warmup() -> None:
    assert [learning_rate(Poly(warmup_iterations=5), 1.0, i, 3) for i in range(3)] == pytest.approx([0.2, 0.4, 0.6])


def test_every_group_gets_the_rate() -> None:
    optimizer = build_optimizer(Sgd(learning_rate=0.1), [torch.nn.Parameter(torch.zeros(1))])
    set_learning_rate(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5]
    assert optimizer.param_groups[0]["weight_decay"] == 3e-5
