"""One step of the optimiser, and what the plan wants done with gradients, averages and steps that went wrong."""

import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

from autoseg.errors import TrainingError
from autoseg.plan.plan import Plan
from autoseg.train import loop
from autoseg.train.interruption import StopFlag
from autoseg.train.loader import Batch
from autoseg.train.state import TrainState, load_network, make_state
from autoseg.train.step import StepOutcome, average_weights, train_step

CPU = torch.device("cpu")
MakePlan = Callable[..., Plan]
Train = Callable[..., Path]
ReadMetrics = Callable[[Path], list[dict[str, Any]]]
AssertSame = Callable[[Path, Path], None]

OPTIMIZERS = {
    "sgd": {"name": "sgd", "learning_rate": 0.02, "momentum": 0.9},
    "adam": {"name": "adam", "learning_rate": 0.005},
    "adamw": {"name": "adamw", "learning_rate": 0.005},
    "rmsprop": {"name": "rmsprop", "learning_rate": 0.001},
}


def make_batch(seed: int, size: int = 2) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn((size, 1, 16, 16, 16), generator=generator)
    classes = torch.randint(0, 3, (size, 16, 16, 16), generator=generator, dtype=torch.int16)
    return Batch(images, classes, None)


def make_parts(plan: Plan, *, scaled: bool = False) -> tuple[TrainState, loop.Setup]:
    return make_state(plan, CPU, scaled=scaled), loop.make_setup(plan, CPU, lambda event: None, StopFlag())


def _step(plan: Plan, *, scaled: bool = False, batches: Sequence[Batch] = ()) -> tuple[torch.Tensor, torch.Tensor]:
    """Take one step, by default on one drawn batch; return the weights before and after it."""
    state, setup = make_parts(plan, scaled=scaled)
    before = _weights(state)
    train_step(state, setup, batches or [make_batch(0)], 0)
    return before, _weights(state)


def _weights(state: TrainState) -> torch.Tensor:
    return torch.cat([weights.detach().reshape(-1) for weights in state.network.parameters()])


@pytest.mark.parametrize("scaled", [False, True], ids=["unscaled", "scaled"])
def test_gradients_are_clipped_to_their_norm(make_plan: MakePlan, scaled: bool) -> None:
    """Plain SGD moves by the gradient times the rate, so the norm of the step tells that of the gradient."""
    plain = {"name": "sgd", "learning_rate": 1.0, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0}

    def moved(clip: float | None) -> torch.Tensor:
        before, after = _step(make_plan(optimizer=plain, gradient_clip=clip), scaled=scaled)
        return after - before

    free = moved(None)
    norm = free.norm().item()
    assert norm > 0.1
    torch.testing.assert_close(moved(norm * 2), free)
    torch.testing.assert_close(moved(norm / 4), free / 4, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("clip", [None, 0.01])
def test_scaling_the_loss_does_not_change_the_step(make_plan: MakePlan, clip: float | None) -> None:
    plan = make_plan(optimizer=OPTIMIZERS["sgd"], gradient_clip=clip)
    torch.testing.assert_close(_step(plan, scaled=True)[1], _step(plan)[1], rtol=1e-4, atol=1e-6)


def test_accumulated_batches_are_one_large_batch(make_plan: MakePlan) -> None:
    """The tiny network normalises each sample by itself and the Dice is that of each sample."""
    first, second = make_batch(1), make_batch(2)
    together = Batch(
        *(torch.cat(pair) for pair in zip((first.images, first.classes), (second.images, second.classes))), None
    )
    plain = {"name": "sgd", "learning_rate": 1.0, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0}
    _, expected = _step(make_plan(optimizer=plain), batches=[together])
    _, found = _step(make_plan(optimizer=plain, gradient_accumulation=2), batches=[first, second])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_an_iteration_reads_as_many_batches_as_are_accumulated(
    make_plan: MakePlan, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def count(state: TrainState, setup: loop.Setup, batches: Any, iteration: int) -> StepOutcome:
        seen.append(len(list(batches)))
        return StepOutcome(torch.zeros(()), torch.tensor(True))

    monkeypatch.setattr(loop, "train_step", count)
    train(make_plan(epochs=2, gradient_accumulation=3))
    assert seen == [3] * 6


def test_the_average_follows_the_weights() -> None:
    network = torch.nn.Linear(2, 2)
    averaged, expected = deepcopy(network), network.weight.detach().clone()
    for iteration in range(30):
        with torch.no_grad():
            network.weight.add_(torch.randn(2, 2, generator=torch.Generator().manual_seed(iteration)))
        average_weights(averaged, network, 0.6, iteration)
        decay = min(0.6, (1 + iteration) / (10 + iteration))
        expected = decay * expected + (1 - decay) * network.weight.detach()
        torch.testing.assert_close(averaged.weight, expected)  # in the end the first steps would be forgotten


def test_the_average_is_what_is_predicted_with(make_plan: MakePlan, train: Train, run_folder: Path) -> None:
    plan = make_plan(ema_decay=0.9, epochs=2)
    train(plan)
    checkpoint = torch.load(run_folder / "checkpoints" / "last.pt", weights_only=True)
    loaded = load_network(run_folder, plan, which="last", device=CPU).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in checkpoint["network"].items())
    assert any(not torch.equal(checkpoint["trained"][name], value) for name, value in checkpoint["network"].items())


def test_accumulation_and_average_are_resumed_bit_for_bit(
    make_plan: MakePlan, train: Train, tmp_path: Path, assert_same_training: AssertSame
) -> None:
    plan = make_plan(ema_decay=0.9, gradient_accumulation=2)
    expected = train(plan, run_folder=tmp_path / "uninterrupted")

    def stop(event: Any) -> None:
        if isinstance(event, loop.EpochReport) and event.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(plan, on_event=stop)
    resumed = train(plan)
    assert_same_training(resumed, expected)
    trained = [torch.load(run / "checkpoints" / "last.pt", weights_only=True)["trained"] for run in (resumed, expected)]
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[1])


class TestSkip:
    """``on_nan=skip``: a step that is not finite is left out, as if it had not been."""

    @pytest.mark.parametrize("name", OPTIMIZERS)
    @pytest.mark.parametrize("clip", [None, 12.0])
    def test_nothing_is_changed_by_it(self, make_plan: MakePlan, name: str, clip: float | None) -> None:
        plan = make_plan(optimizer=OPTIMIZERS[name], gradient_clip=clip, on_nan="skip")
        state, setup = make_parts(plan)
        broken = make_batch(1)
        broken.images[0, 0, 3, 3, 3] = torch.nan
        outcomes = [
            train_step(state, setup, [batch], i) for i, batch in enumerate((make_batch(0), broken, make_batch(2)))
        ]
        assert [bool(outcome.finite) for outcome in outcomes] == [True, False, True]
        other, setup = make_parts(plan)
        for batch in (make_batch(0), make_batch(2)):
            train_step(other, setup, [batch], 0)
        torch.testing.assert_close(_weights(state), _weights(other), rtol=0, atol=0)

    def test_the_log_tells_and_the_batch_is_kept(
        self,
        make_plan: MakePlan,
        train: Train,
        run_folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        read_metrics: ReadMetrics,
    ) -> None:
        seen = self._spoil(monkeypatch, {4})
        records = read_metrics(train(make_plan(on_nan="skip", epochs=3)))
        assert len(records) == 3 and all(json.dumps(record, allow_nan=False) for record in records)
        log = (run_folder / "logs" / "train.log").read_text()
        assert "1 steps left out, the first in iteration 2" in log and "case_" in log
        kept = torch.load(run_folder / "logs" / "not_finite.pt", weights_only=True)
        assert (kept["epoch"], kept["iteration"], len(kept["cases"])) == (2, 2, 2)
        torch.testing.assert_close(kept["images"], seen[4][0], rtol=0, atol=0)
        torch.testing.assert_close(kept["classes"], seen[4][1], rtol=0, atol=0)

    def test_an_epoch_of_them_ends_the_training(
        self, make_plan: MakePlan, train: Train, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self._spoil(monkeypatch, {3, 4, 5})
        with pytest.raises(TrainingError, match="iteration 1 of epoch 2.*not_finite.pt.*checkpoint of epoch 1 is kept"):
            train(make_plan(on_nan="skip"))

    @staticmethod
    def _spoil(monkeypatch: pytest.MonkeyPatch, wrong: set[int]) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
        """Let the steps of these numbers be not finite; return what each saw."""
        seen = {}

        def spoilt(state: TrainState, setup: loop.Setup, batches: Any, iteration: int) -> StepOutcome:
            group = list(batches)
            moved = [loop.move_batch(Batch(b.images.clone(), b.classes.clone(), b.parameters), setup) for b in group]
            seen[iteration] = (torch.cat([m[0] for m in moved]).clone(), torch.cat([m[1] for m in moved]).clone())
            loss, finite = train_step(state, setup, group, iteration)
            bad = iteration in wrong
            return StepOutcome(loss * torch.nan if bad else loss, finite & (not bad))

        monkeypatch.setattr(loop, "train_step", spoilt)
        return seen


def test_a_gradient_that_is_not_finite_is_noticed_in_its_own_step(make_plan: MakePlan) -> None:
    state, setup = make_parts(make_plan())
    weights = next(iter(state.network.parameters()))
    weights.register_hook(lambda gradient: gradient * torch.nan)
    loss, finite = train_step(state, setup, [make_batch(0)], 0)
    assert loss.isfinite() and not finite


def test_training_ends_when_the_dice_rises_no_more(
    make_plan: MakePlan, train: Train, run_folder: Path, read_metrics: ReadMetrics
) -> None:
    """A learning rate so small that nothing changes: the first epoch stays the best."""
    plan = make_plan(epochs=9, early_stopping=3, optimizer={"name": "sgd", "learning_rate": 1e-20})
    assert len(read_metrics(train(plan))) == 4
    assert "finished, since the validation Dice rose no more" in (run_folder / "logs" / "train.log").read_text()
    before = (run_folder / "checkpoints" / "last.pt").read_bytes()
    train(plan)
    assert (run_folder / "checkpoints" / "last.pt").read_bytes() == before
