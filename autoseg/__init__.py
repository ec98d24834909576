"""autoseg: which segmentation network is best on my data, at what cost, and how sure can I be?

The packages are read in the order in which the data flows; see docs/explanation/design.md.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autoseg.launch.segmenter import Segmenter

__version__ = "0.1.0"
__all__ = ["__version__", "load_model"]


def load_model(folder: str | Path, *, folds: Sequence[int] = (), device: str = "auto") -> "Segmenter":
    """Load a trained model from Python; its ``predict`` takes arrays and SimpleITK images.

    Args:
        folder: of a run (results/DATASET/PLAN/fold_0), or of a plan with its folds, whose networks are averaged.
        folds: which of them; default: all.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.

    Raises:
        WorkspaceError: the folder holds no trained fold, or not all that are asked for.
        TrainingError: a checkpoint is unreadable.
        PlanError: there is no such device.
    """
    from autoseg.launch.segmenter import load_segmenter

    return load_segmenter(Path(folder), folds=folds, device=device)
