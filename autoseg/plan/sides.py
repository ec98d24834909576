"""Left and right: labels that differ by their side only, and the axis that must then not be mirrored.

A network that saw mirrored images could not tell such labels apart, and averaging mirrored predictions would mix them.
"""

import re
from collections.abc import Iterable, Sequence

from autoseg.plan.plan import Plan

OPPOSITE = {"left": "right", "lt": "rt", "lh": "rh", "l": "r", "sinister": "dexter", "sin": "dex", "sn": "dx"}
"""Words for the left side and what they become on the right one."""

RIGHT_LEFT_AXIS = 2
"""The canonical (z, y, x) axis that runs from one side of the body to the other."""


def paired_labels(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return the pairs of names that differ by their side only, e.g. ``kidney_left`` and ``kidney_right``."""
    by_words = {_words(name): name for name in names}
    pairs = []
    for words, name in by_words.items():
        other = by_words.get(tuple(OPPOSITE.get(word, word) for word in words))
        if other is not None and other != name:
            pairs.append((name, other))
    return pairs


def side_axis(names: Iterable[str], transpose: Sequence[int]) -> int | None:
    """Return the preprocessed axis whose two ends must be told apart, or None where no labels come in pairs."""
    if RIGHT_LEFT_AXIS not in transpose or not paired_labels(names):
        return None
    return list(transpose).index(RIGHT_LEFT_AXIS)


def mirroring_warnings(plan: Plan) -> list[str]:
    """Return a line for each part of a plan that mixes sides although labels come in left and right pairs."""
    names = (*plan.dataset.labels, *plan.dataset.regions)
    axis = side_axis(names, plan.preprocessing.transpose)
    if axis is None:
        return []
    keys = [
        f"training.augmentation.{index}.axes"
        for index, entry in enumerate(plan.training.augmentation)
        if entry.name in ("mirror", "rot90", "transpose_axes") and axis in entry.parameters["axes"]
    ]
    if axis in plan.prediction.mirror_axes:
        keys.append("prediction.mirror_axes")
    left, right = paired_labels(names)[0]
    return [
        f"{plan.name}: {key} includes axis {axis}, which runs from left to right, but labels come in pairs ({left}, "
        f"{right}): the network cannot tell them apart; leave the axis out with --set"
        for key in keys
    ]


def _words(name: str) -> tuple[str, ...]:
    """Return the lower-case words of a name; ``LeftKidney``, ``left kidney`` and ``leftkidney`` are alike."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    words = re.findall(r"[a-z]+|\d+", spaced.lower())
    parts: list[str] = []
    for word in words:
        match = re.fullmatch(r"(left|right)(.+)", word) or re.fullmatch(r"(.+?)(left|right)", word)
        parts.extend(match.groups() if match else (word,))
    return tuple(parts)
