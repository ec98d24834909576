"""Dice, cross-entropy and a boundary loss: what is wrong counts by its distance from the reference's surface."""

import torch
from pydantic import Field
from torch import nn

from autoseg.losses._module import DiceAnd, DiceConfig, Predicted
from autoseg.losses._outputs import Outputs


class Config(DiceConfig):
    """Boundary loss (Kervadec et al., 2019) beside soft Dice and cross-entropy, without which it hardly trains.

    Distances are counted in voxels of the patch up to ``reach``, beyond which all is equally far: exact to there, at a
    cost of ``reach`` comparisons an axis on the device.

    Attributes:
        weight_ce: of the cross-entropy; a binary one of each region where these overlap.
        weight_boundary: of the boundary loss.
        reach: distance in voxels that counts as 1.
    """

    weight_ce: float = Field(1.0, ge=0)
    weight_boundary: float = Field(1.0, ge=0)
    reach: int = Field(8, ge=1, le=64)


def build(config: Config, outputs: Outputs) -> nn.Module:
    """Return weighted 1 - mean soft Dice, plus mean cross-entropy, plus the mean distance of what is wrong.

    The last is higher than the paper's by what depends on the reference alone, so that 0 is perfect.
    """
    return _Boundary(config, outputs)


class _Boundary(DiceAnd[Config]):
    def measure_rest(self, predicted: Predicted) -> torch.Tensor:
        entropy = self.outputs.average_voxels(self.find_entropy(predicted), predicted.classes)
        boundary = self._average_distance(predicted.probabilities, predicted.classes)
        return self.config.weight_ce * entropy + self.config.weight_boundary * boundary

    def _average_distance(self, probabilities: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """Return the mean over known voxels and foreground outputs of |p - reference| times the distance, 0 to 1."""
        first, known = self.outputs.first_foreground, (classes >= 0)[:, None]
        members = self.outputs.find_members(classes, first=first)
        # ignored voxels are neither inside nor outside
        inside, outside = (find_distance(seeds, self.config.reach) for seeds in (members, ~members & known))
        weights = torch.where(members, outside, inside) * known
        wrong = (probabilities[:, first:] - members.to(probabilities.dtype)).abs()
        count = self.outputs.add_up(known).clamp_min(1)
        distances = self.outputs.gather((weights * wrong).sum((2, 3, 4)))
        return self.outputs.average_outputs(distances * len(distances) / count)


@torch.no_grad()
def find_distance(seeds: torch.Tensor, reach: int) -> torch.Tensor:
    """Return each voxel's distance to the surface of bool ``seeds`` (B, R, Z, Y, X) in units of ``reach``, at most 1.

    The surface lies half a voxel before the nearest seed's centre. Squared distances are minimised axis by axis
    (Felzenszwalb and Huttenlocher, 2012); up to ``reach`` no voxel farther along an axis can be nearest.
    """
    limit = float((reach + 1) ** 2)
    squared = torch.where(seeds, 0.0, limit)
    for axis in (2, 3, 4):
        nearest, size = squared, squared.shape[axis]
        for step in range(1, min(reach, size - 1) + 1):
            below, above = squared.narrow(axis, 0, size - step), squared.narrow(axis, step, size - step)
            farther = nearest.clone() if step == 1 else nearest
            part = farther.narrow(axis, step, size - step)
            torch.minimum(part, below + step * step, out=part)
            part = farther.narrow(axis, 0, size - step)
            torch.minimum(part, above + step * step, out=part)
            nearest = farther
        squared = nearest
    return ((squared.sqrt() - 0.5) / reach).clamp(0, 1)
