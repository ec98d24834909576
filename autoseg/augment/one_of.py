"""One of several augmentations for each sample, all equally likely."""

import json
from typing import Any

import torch
from pydantic import field_validator

from autoseg.augment import Parameters, load_augmentation
from autoseg.augment._draw import Probability, draw_flags, draw_integers
from autoseg.augment._rows import put_rows, take_rows
from autoseg.documents import Document, parse_document
from autoseg.errors import AutosegError

SEPARATOR = "/"


class Config(Document):
    """DA5's choice, by default the one between its median filter and its blur.

    Attributes:
        probability: of offering a sample its augmentation, which has probabilities of its own.
        choices: the augmentations: their names and fields, those left out being their defaults.
    """

    probability: Probability = 0.2
    choices: tuple[dict[str, Any], ...] = (
        {"name": "median_filter", "probability": 1.0},
        {"name": "gaussian_blur", "probability": 1.0, "sigma": [0.3, 1.5], "axes_alike": True},
    )

    @field_validator("choices")
    @classmethod
    def _check_choices(cls, choices: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        if not choices:
            raise ValueError("at least one augmentation is needed")
        for choice in choices:
            try:
                _load(choice)
            except AutosegError as error:
                raise ValueError(str(error)) from None
        return choices


def sample(config: Config, shape: tuple[int, ...], generator: torch.Generator) -> Parameters:
    """Draw the ``choice``, (B,), -1 for none, and for each of them ``place/name/parameter``."""
    offered = draw_flags(config.probability, shape[:1], generator)
    choice = draw_integers((0, len(config.choices) - 1), shape[:1], generator)
    parameters = {"choice": torch.where(offered, choice, -1)}
    for place, (name, augmentation, own) in enumerate(map(_load, config.choices)):
        for key, values in augmentation.sample(own, shape, generator).items():
            parameters[SEPARATOR.join((str(place), name, key))] = values
    return parameters


def apply(images: torch.Tensor, classes: torch.Tensor, parameters: Parameters) -> tuple[torch.Tensor, torch.Tensor]:
    """Apply each augmentation to the samples that it was chosen for."""
    for place, name in sorted({tuple(key.split(SEPARATOR)[:2]) for key in parameters if SEPARATOR in key}):
        rows = (parameters["choice"] == int(place)).nonzero().flatten()
        if not len(rows):
            continue
        prefix = SEPARATOR.join((place, name, ""))
        own = {key.removeprefix(prefix): v[rows] for key, v in parameters.items() if key.startswith(prefix)}
        changed = load_augmentation(name).apply(take_rows(images, rows), take_rows(classes, rows), own)
        for volumes, new in zip((images, classes), changed):
            put_rows(volumes, rows, new)
    return images, classes


def _load(choice: dict[str, Any]) -> tuple[str, Any, Document]:
    name = str(choice.get("name"))
    augmentation = load_augmentation(name)
    fields = {key: value for key, value in choice.items() if key != "name"}
    return name, augmentation, parse_document(json.dumps(fields), augmentation.Config, where=name)
