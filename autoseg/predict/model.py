"""What segments: one trained plan with the networks of its folds, or several plans together."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from autoseg.errors import PlanError
from autoseg.plan.plan import Plan
from autoseg.predict.postprocess import Postprocessing
from autoseg.preprocess.store import CaseStore


@dataclass(frozen=True)
class Member:
    """A plan and its trained networks, whose logits are averaged.

    Attributes:
        plan: what they were trained with.
        networks: in evaluation mode on the model's device, one a fold.
        weight: of the plan's probabilities among those of other plans.
        previous: for the second stage of a cascade what it sees: the first stage, or a store with what that has found.
    """

    plan: Plan
    networks: tuple[nn.Module, ...]
    weight: float = 1.0
    previous: "Member | CaseStore | None" = None


@dataclass(frozen=True)
class Model:
    """Members whose probabilities are averaged on the grid of the image, and what is done to the segmentation.

    Attributes:
        members: one at least; of the same dataset.
        device: where the networks compute.
        postprocessing: applied to every segmentation, or None.
    """

    members: tuple[Member, ...]
    device: torch.device
    postprocessing: Postprocessing | None = None

    @property
    def stages(self) -> tuple[Member, ...]:
        """All that needs a preprocessed image of its own: the members, then those first stages that have to run."""
        return *self.members, *(m.previous for m in self.members if isinstance(m.previous, Member))

    @property
    def plan(self) -> Plan:
        """A plan that stands for all in what they share: channels, labels and orientation."""
        return self.members[0].plan

    @property
    def name(self) -> str:
        """The plans' names."""
        return " + ".join(member.plan.name for member in self.members)


def check_together(plans: Sequence[Plan]) -> None:
    """Refuse plans that cannot segment together.

    Raises:
        PlanError: they differ in channels or labels.
    """
    first = plans[0]
    for other in plans[1:]:
        for what, values in (
            ("channels", (first.dataset.channels, other.dataset.channels)),
            ("labels", (first.dataset.label_scheme, other.dataset.label_scheme)),
        ):
            if values[0] != values[1]:
                names = f"plans {first.name} and {other.name}"
                raise PlanError(f"{names} differ in {what}; plans that segment together must agree in it")
