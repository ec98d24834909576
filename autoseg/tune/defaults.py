"""The space that is searched unless another is given: what usually matters, as far as the plan's network has it."""

from typing import Any

from autoseg.plan.plan import Plan
from autoseg.tune.knobs import KNOBS
from autoseg.tune.space import Parameter, Space

LOSSES = ("dice_ce", "dice_focal", "dice_topk")
SCHEDULES = ("poly", "cosine", "one_cycle")
TRANSFORMERS = ("unetr", "swin_unetr")
"""They are trained by Adam's kin alone, and diverge at learning rates far above their authors'."""


def default_space(plan: Plan) -> Space:
    """Return what is searched around ``plan`` by default; its own values are in it."""
    training, transformer = plan.training, plan.network.architecture in TRANSFORMERS
    optimizers = ("adamw", "adam") if transformer else ("sgd", "adamw")
    far = 3.0 if transformer else 10.0
    wanted = {
        "training.optimizer.name": _choose(training.optimizer.name, optimizers),
        "learning_rate_factor": Parameter(low=1 / far, high=far, log=True),
        "training.loss.name": _choose(training.loss.name, LOSSES),
        "training.schedule.name": _choose(training.schedule.name, SCHEDULES),
        "augmentation_strength": Parameter(low=0.0, high=2.0),
        "patch_share": Parameter(choices=(1.0, 0.5)),
        "features_factor": Parameter(choices=(1.0, 0.5, 1.5)),
        "extra_blocks": Parameter(low=0, high=2),
    }
    if not _can_halve(plan):
        del wanted["patch_share"]
    return Space(parameters={key: one for key, one in wanted.items() if key not in KNOBS or KNOBS[key].suits(plan)})


def _can_halve(plan: Plan) -> bool:
    """Whether half of the patch is another patch: in a small one, the network's steps can be too coarse for that."""
    half = KNOBS["patch_share"].assign(plan, 0.5)["training.patch_size"]
    return bool(half != list(plan.training.patch_size))


def _choose(own: str, others: tuple[str, ...]) -> Parameter:
    names: tuple[Any, ...] = tuple(dict.fromkeys([own, *others]))
    return Parameter(choices=names)
