"""The plan's words for optimisers and schedules; train/optimization.py builds them."""

from typing import Literal

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


Schedule = Poly | Cosine
