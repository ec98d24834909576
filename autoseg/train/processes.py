"""Several processes that train one network together, started by torchrun: who they are, and how they agree.

Each has a share of every batch. The first one leads: it alone reads and writes the run's folder. Tensors of the device
go through NCCL or Gloo, everything else through Gloo.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from autoseg.errors import AutosegError, TrainingError
from autoseg.losses._share import Share

T = TypeVar("T")

STUCK = timedelta(minutes=10)
"""A step that others do not join for so long will never end. One whose process died ends at once."""

PATIENCE = timedelta(days=7)
"""How long the others wait for what the leader does alone; if it dies meanwhile, torchrun ends them."""


@dataclass(frozen=True)
class Processes:
    """The processes of a training, seen from one of them; by default it is alone.

    Attributes:
        rank: its number; 0 leads.
        local_rank: its number on its machine, which is that of its GPU.
        count: how many there are.
        waiting: the group in which the others wait for the leader; None if alone.
    """

    rank: int = 0
    local_rank: int = 0
    count: int = 1
    waiting: Any = None

    @property
    def leads(self) -> bool:
        """Whether it is the one that writes."""
        return self.rank == 0

    def share_batch(self, batch_size: int) -> Share | None:
        """Return which samples of a batch are this process's, as even a part as can be; None if all are.

        Raises:
            TrainingError: there are fewer samples than processes.
        """
        if self.count == 1:
            return None
        if batch_size < self.count:
            raise TrainingError(
                f"training.batch_size is {batch_size}, so {self.count} processes cannot have a sample each; start at "
                f"most {batch_size} (torchrun --nproc-per-node), or train a variant with a larger batch"
            )
        edges = [batch_size * rank // self.count for rank in (self.rank, self.rank + 1)]
        return Share(range(*edges), batch_size)

    def lead(self, action: Callable[[], T]) -> T:
        """Let the leader act, the others wait for it, and return to all what it got.

        Raises:
            AutosegError: the leader's, in every process.
        """
        if self.count == 1:
            return action()
        answer: list[Any] = [None, None]
        if self.leads:
            try:
                answer[0] = action()
            except AutosegError as error:
                answer[1] = error
        dist.broadcast_object_list(answer, src=0, group=self.waiting)
        if answer[1] is not None:
            raise answer[1]
        result: T = answer[0]
        return result

    def join_gradients(self, network: nn.Module, unreached: list[nn.Parameter]) -> nn.Module:
        """Return the network whose backward pass averages its gradients over the processes.

        ``unreached`` are the weights that get no gradient; it would be waited for without end.
        """
        left_out = {id(weights) for weights in unreached}
        ignored = [name for name, weights in network.named_parameters() if id(weights) in left_out]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(network, ignored)  # type: ignore[no-untyped-call]
        return DistributedDataParallel(network, gradient_as_bucket_view=True)


ALONE = Processes()


class Agreement:
    """Lets all processes stop in the same iteration, without waiting for one another.

    Each call tells the others this process's wish, and returns whether at the call before any process had one.
    """

    def __init__(self, processes: Processes) -> None:
        """Ask ``processes``; one that is alone has its wish at once."""
        self._processes = processes
        self._asked: tuple[Any, torch.Tensor] | None = None

    def __call__(self, wish: bool) -> bool:
        """Tell the wish; return whether all agree to stop."""
        if self._processes.count == 1:
            return wish
        agreed = self._wait()
        wishes = torch.tensor(int(wish))
        self._asked = dist.all_reduce(wishes, dist.ReduceOp.MAX, group=self._processes.waiting, async_op=True), wishes
        return agreed

    def _wait(self) -> bool:
        if self._asked is None:
            return False
        work, wishes = self._asked
        work.wait()
        return bool(wishes)


@contextmanager
def open_processes(device: torch.device) -> Iterator[Processes]:
    """Join the processes that torchrun started with this one, until the end of the block; without torchrun it is alone.

    Raises:
        TrainingError: another process ended, or did not go on; or a machine has fewer GPUs than processes.
    """
    processes = find_processes()
    if processes.count == 1:
        yield processes
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=STUCK)
    try:
        with _explain_loss(processes):
            waiting = dist.new_group(backend="gloo", timeout=PATIENCE)
            yield Processes(processes.rank, processes.local_rank, processes.count, waiting)
    finally:
        dist.destroy_process_group()


def find_processes() -> Processes:
    """Return what torchrun tells in the environment; without it, one process that is alone."""
    if not dist.is_torchelastic_launched():
        return Processes()
    return Processes(*(int(os.environ[name]) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")))


def place_process(device: torch.device, processes: Processes) -> torch.device:
    """Return the device of this process: of several on a machine with GPUs, each has one.

    Raises:
        TrainingError: the machine has fewer GPUs than processes.
    """
    if processes.count == 1 or device.type != "cuda":
        return device
    if processes.local_rank >= (count := torch.cuda.device_count()):
        raise TrainingError(
            f"torchrun started process {processes.local_rank + 1} on a machine with {count} GPUs; each process needs "
            f"one of its own: --nproc-per-node {count}, or --device cpu"
        )
    return torch.device("cuda", processes.local_rank)


def postpone_gradients(network: nn.Module, *, wait: bool) -> AbstractContextManager[Any]:
    """Keep the gradients of a backward pass to this process while more batches are to be accumulated."""
    if wait and isinstance(network, DistributedDataParallel):
        return network.no_sync()
    return nullcontext()


@contextmanager
def _explain_loss(processes: Processes) -> Iterator[None]:
    """Say in one line that another process is gone; its own message says why."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error).lower():
            raise
        reason = " ".join(str(error).split())[:160]
        raise TrainingError(
            f"process {processes.rank} of {processes.count} lost the others ({reason}); the message of the one that "
            f"ended first says why; finished epochs are kept, and the same command goes on from there"
        ) from error
