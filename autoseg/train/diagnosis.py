"""What is kept of a batch whose loss was not finite."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from autoseg.documents import write_beside

FILE = "not_finite.pt"
"""In the run's folder ``logs``."""

Remake = Callable[[int, int], dict[str, Any]]
"""Makes the batch of an epoch and an iteration once more, as it entered the network."""


def keep_batch(remake: Remake, epoch: int, iteration: int, folder: Path) -> str:
    """Write the batch beside the logs, for ``torch.load(..., weights_only=True)``, and return a phrase about it.

    The batch is made again from the key of its randomness, so that none is held while training.
    """
    try:
        content = remake(epoch, iteration)
        with write_beside(folder / FILE) as temporary:
            torch.save(content, temporary)
    except Exception as error:  # nothing that helps may hide the message that it helps with
        return f"its batch could not be kept ({type(error).__name__}: {' '.join(str(error).split())[:160]})"
    return f"its batch of {', '.join(dict.fromkeys(content['cases']))} is kept in {folder.name}/{FILE}"
