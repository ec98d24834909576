"""What every loss holds, and what those that add something to a soft Dice share."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from pydantic import Field
from torch import nn

from autoseg.documents import Document
from autoseg.losses._outputs import Outputs
from autoseg.losses._overlap import dice_loss

ConfigT = TypeVar("ConfigT", bound=Document)
DiceT = TypeVar("DiceT", bound="DiceConfig")


class LossModule(nn.Module, Generic[ConfigT]):
    """A loss with its parameters, and what the outputs mean that it is computed from."""

    def __init__(self, config: ConfigT, outputs: Outputs) -> None:
        super().__init__()
        self.config = config
        self.outputs = outputs


class DiceConfig(Document):
    """The Dice's part of a loss.

    Attributes:
        batch_dice: whether the batch counts as one large image, which steadies the Dice of small structures.
        smooth: added to numerator and denominator of the Dice, in voxels.
        weight_dice: of the Dice.
    """

    batch_dice: bool = False
    smooth: float = Field(1e-5, ge=0)
    weight_dice: float = Field(1.0, ge=0)


@dataclass(frozen=True)
class Predicted:
    """What a network gave, computed once for all parts of a loss.

    Attributes:
        logits: (B, R, Z, Y, X).
        log_probabilities: of the same shape, in float32 at least; as are ``probabilities``.
        classes: (B, Z, Y, X), the reference; -1 ignored.
    """

    logits: torch.Tensor
    log_probabilities: torch.Tensor
    probabilities: torch.Tensor
    classes: torch.Tensor


class DiceAnd(LossModule[DiceT]):
    """Weighted 1 - mean soft Dice of the foreground classes, or of all regions, plus what ``measure_rest`` gives."""

    def forward(self, logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        config, outputs = self.config, self.outputs
        log_probabilities = outputs.log_probabilities(logits)
        predicted = Predicted(logits, log_probabilities, log_probabilities.exp(), classes)
        dice = dice_loss(outputs, predicted.probabilities, classes, batch=config.batch_dice, smooth=config.smooth)
        return config.weight_dice * dice + self.measure_rest(predicted)

    @abstractmethod
    def measure_rest(self, predicted: Predicted) -> torch.Tensor:
        """Return what is added to the Dice, weighted, as a scalar."""

    def find_entropy(self, predicted: Predicted) -> torch.Tensor:
        """Return each voxel's cross-entropy; see ``Outputs.cross_entropy``."""
        return self.outputs.cross_entropy(predicted.logits, predicted.log_probabilities, predicted.classes)
