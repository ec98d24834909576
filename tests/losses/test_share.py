"""The loss of a batch that two processes have between them is that of one process, and so is the sum of gradients."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from autoseg.data.labels import Labels, Region
from autoseg.losses import available_losses
from autoseg.losses._deep_supervision import build_loss
from autoseg.losses._share import Share

SCHEMES = {
    "classes": Labels.from_names({"background": 0, "a": 1, "b": 2}),
    "regions": Labels(
        labels={"background": 0, "a": 1, "b": 2},
        regions={"a": Region(labels=(1, 2), value=1), "b": Region(labels=(2,), value=2)},
    ),
}
SHARES = (range(0, 2), range(2, 3))
"""Three samples: an uneven split."""

CASES = [
    (name, scheme, batch_dice, weighted)
    for name in available_losses()
    for scheme in SCHEMES
    for batch_dice in ((False,) if name == "focal" else (False, True))
    for weighted in (False, True)
]
Result = tuple[torch.Tensor, torch.Tensor]


def _draw(labels: Labels) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    logits = 2 * torch.randn((3, labels.num_outputs, 8, 6, 8), generator=generator, dtype=torch.float64)
    classes = torch.randint(-1, 3, (3, 8, 6, 8), generator=generator, dtype=torch.int16)
    classes[2, :5] = -1  # the shares know different numbers of voxels
    return logits, classes


def _evaluate(case: tuple[str, str, bool, bool], own: range, share: Share | None) -> Result:
    name, scheme, batch_dice, weighted = case
    labels = SCHEMES[scheme]
    logits, classes = (part[own.start : own.stop] for part in _draw(labels))
    logits.requires_grad_()
    parameters = {"batch_dice": True} if batch_dice else {}
    weights = {"a": 3.0} if weighted else None
    stages = [logits, torch.nn.functional.avg_pool3d(logits, 2), torch.nn.functional.avg_pool3d(logits, 2)]
    loss = build_loss(name, parameters, labels, deep_supervision=True, class_weights=weights, share=share)
    value = loss(stages, classes)
    value.backward()
    assert logits.grad is not None
    return value.detach(), logits.grad


def _work(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    share = Share(SHARES[rank], 3)
    torch.save([_evaluate(case, share.own, share) for case in CASES], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def shared_results(tmp_path_factory: pytest.TempPathFactory) -> list[list[Result]]:
    """What each of two processes finds for each case."""
    folder = tmp_path_factory.mktemp("share")
    mp.spawn(_work, (str(folder),), nprocs=2)  # type: ignore[no-untyped-call]
    return [_load(folder / f"{rank}.pt") for rank in range(2)]


def _load(path: Path) -> list[Result]:
    results: list[Result] = torch.load(path, weights_only=True)
    return results


@pytest.mark.parametrize("index", range(len(CASES)), ids=["-".join(map(str, case)) for case in CASES])
def test_two_processes_find_the_loss_of_one(shared_results: Sequence[Sequence[Result]], index: int) -> None:
    value, gradient = _evaluate(CASES[index], range(3), None)
    (first, second) = (results[index] for results in shared_results)
    torch.testing.assert_close(first[0], value)
    assert torch.equal(first[0], second[0])
    torch.testing.assert_close(torch.cat([first[1], second[1]]), gradient)
