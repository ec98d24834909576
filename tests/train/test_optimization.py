"""Optimisers and schedules against PyTorch's own, built by hand."""

from typing import Any

import pytest
import torch

from autoseg.plan.optimization import Adam, AdamW, Cosine, Optimizer, Poly, RmsProp, Sgd
from autoseg.train.optimization import build_optimizer, learning_rate, set_learning_rate

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
