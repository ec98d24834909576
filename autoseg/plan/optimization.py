"""The plan's words for optimisers and schedules; train/optimization.py builds them."""

from typing import Annotated, Literal

from pydantic import Field

from autoseg.documents import Document


class Sgd(Document):
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"] = "sgd"
    learning_rate: float = Field(gt=0)
    momentum: float = 0.99
    nesterov: bool = True
    weight_decay: float = 3e-5


class Adam(Document):
    """Adam (Kingma and Ba, 2015), weight decay added to the gradient."""

    name: Literal["adam"] = "adam"
    learning_rate: float = Field(gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0


class AdamW(Document):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    name: Literal["adamw"] = "adamw"
    learning_rate: float = Field(gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-2


class RmsProp(Document):
    """RMSProp (Tieleman and Hinton, 2012)."""

    name: Literal["rmsprop"] = "rmsprop"
    learning_rate: float = Field(gt=0)
    momentum: float = 0.9
    weight_decay: float = 0.0


Optimizer = Sgd | Adam | AdamW | RmsProp


class Poly(Document):
    """Learning rate x (1 - i/N)^exponent after a linear rise over the warm-up iterations; i counts iterations."""

    name: Literal["poly"] = "poly"
    exponent: float = 0.9
    warmup_iterations: int = Field(0, ge=0)


class Cosine(Document):
    """Half a cosine from the learning rate to 0 after a linear rise over the warm-up iterations."""

    name: Literal["cosine"] = "cosine"
    warmup_iterations: int = Field(0, ge=0)


class Step(Document):
    """The learning rate times ``factor`` from each milestone on; these are parts of the training after warm-up."""

    name: Literal["step"] = "step"
    milestones: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field((0.5, 0.75), min_length=1)
    factor: float = Field(0.1, gt=0, lt=1)
    warmup_iterations: int = Field(0, ge=0)


class Plateau(Document):
    """The learning rate times ``factor`` whenever the loss has not fallen for ``patience``.

    The loss is that of validation, without validation cases that of training, as an exponential moving average over
    epochs in which the past weighs ``smoothing``. It has fallen if it is below the least so far by ``threshold`` of it.
    ``patience`` is a part of the training's epochs; ``least`` the smallest factor in all.
    """

    name: Literal["plateau"] = "plateau"
    factor: float = Field(0.2, gt=0, lt=1)
    patience: float = Field(0.05, gt=0, le=1)
    smoothing: float = Field(0.8, ge=0, lt=1)
    threshold: float = Field(1e-3, ge=0)
    least: float = Field(1e-3, gt=0, le=1)
    warmup_iterations: int = Field(0, ge=0)


class Cyclic(Document):
    """Straight up from ``lowest`` times the learning rate to it and down again, ``cycles`` times (Smith, 2017).

    Each cycle's rise is ``decay`` times that of the one before: 1 is the paper's triangular, 0.5 its triangular2.
    """

    name: Literal["cyclic"] = "cyclic"
    cycles: int = Field(4, ge=1)
    lowest: float = Field(0.05, ge=0, lt=1)
    decay: float = Field(1.0, gt=0, le=1)
    warmup_iterations: int = Field(0, ge=0)


class OneCycle(Document):
    """Half cosines up to the learning rate for ``rise`` of the training, then down to nearly 0 (Smith and Topin, 2018).

    It begins at the learning rate / ``start_divisor`` and ends at the beginning's / ``end_divisor``, as in PyTorch;
    momentum stays as it is.
    """

    name: Literal["one_cycle"] = "one_cycle"
    rise: float = Field(0.3, gt=0, lt=1)
    start_divisor: float = Field(25.0, ge=1)
    end_divisor: float = Field(1e4, ge=1)
    warmup_iterations: int = Field(0, ge=0)


Schedule = Poly | Cosine | Step | Plateau | Cyclic | OneCycle
