"""What a training runs on."""

from dataclasses import dataclass

import torch

from autoseg.train.ahead import AugmentDevice
from autoseg.train.compilation import Compile
from autoseg.train.processes import ALONE, Processes


@dataclass(frozen=True)
class Machine:
    """What a training runs on and how: all that may differ from one machine to the next, and nothing of the plan.

    Attributes:
        device: of the network.
        num_workers: threads that read and augment.
        augment_device: where batches are augmented.
        compiled: whether the network is compiled.
        processes: those that train together.
    """

    device: torch.device
    num_workers: int
    augment_device: AugmentDevice = "auto"
    compiled: Compile = "auto"
    processes: Processes = ALONE
