"""The augmentations that suit a plan: which ones, in which order, with which parameters.

A recipe is named by one word (``--set training.augmentation=da5``): ``nnunet`` is nnU-Net's default, ``da5`` its
stronger one (nnUNetTrainerDA5), ``none`` leaves images as they are.
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from autoseg.augment import CASCADE_AUGMENTATIONS, load_augmentation
from autoseg.data.labels import IGNORE_NAME
from autoseg.errors import DocumentError, nearest
from autoseg.plan import rules
from autoseg.plan.sides import side_axis

Entry = dict[str, Any]
"""An augmentation's section of a plan."""


@dataclass(frozen=True)
class Setting:
    """What the augmentations must suit.

    Attributes:
        patch_size: (z, y, x), or (y, x) in 2-D.
        masked: channels that are z-scored within the nonzero mask.
        side_axis: the axis whose two ends must be told apart, or None.
        num_found: foreground classes of the previous stage; 0 without one.
    """

    patch_size: tuple[int, ...]
    masked: tuple[int, ...] = ()
    side_axis: int | None = None
    num_found: int = 0

    @property
    def in_plane(self) -> bool:
        """Whether patches are transformed within their slices only: in 2-D, and where they have few slices."""
        return len(self.patch_size) == 2 or self.patch_size[0] * rules.FLAT_PATCH < max(self.patch_size)

    @property
    def axes(self) -> list[int]:
        """The axes that patches have."""
        return [1, 2] if len(self.patch_size) == 2 else [0, 1, 2]

    @property
    def free_axes(self) -> list[int]:
        """The axes that may be mirrored or exchanged."""
        return [axis for axis in self.axes if axis != self.side_axis]


def setting_of(content: dict[str, Any]) -> Setting:
    """Return the setting of a plan, given as plain JSON values, which may still be wrong.

    Raises:
        DocumentError: the patch size is no list of sizes.
    """
    dataset, preprocessing = content["dataset"], content["preprocessing"]
    patch_size = content["training"]["patch_size"]
    if not isinstance(patch_size, list) or not all(type(size) is int and size > 0 for size in patch_size):
        raise DocumentError(f"training.patch_size: expected a list of whole numbers above 0, found {patch_size!r}")
    schemes = preprocessing["normalization"]
    masked = [isinstance(scheme, dict) and scheme.get("use_mask") is True for scheme in schemes]
    return Setting(
        patch_size=tuple(patch_size),
        masked=tuple(index for index, use_mask in enumerate(masked) if use_mask),
        side_axis=side_axis((*dataset["labels"], *dataset["regions"]), preprocessing["transpose"]),
        num_found=len(set(dataset["labels"]) - {"background", IGNORE_NAME}) if content["previous_stage"] else 0,
    )


def augmentation_entry(name: str, setting: Setting, **changes: Any) -> Entry:
    """Return an augmentation's section of a plan: its defaults, adapted to the setting, then ``changes``."""
    config = load_augmentation(name).Config().model_dump(mode="json")
    adapted = {
        "rotation_degrees": list(rotation_degrees(setting)),
        "scaling_axes": [1, 2] if setting.in_plane else [0, 1, 2],
        "axes": ([1, 2] if setting.in_plane else [0, 1, 2]) if name == "low_resolution" else setting.free_axes,
        "channels": list(setting.masked),
        "num_labels": max(setting.num_found, 1),
    }
    config |= {key: value for key, value in adapted.items() if key in config}
    return {"name": name, **config, **changes}


def make_recipe(word: str, setting: Setting) -> list[Entry]:
    """Return the augmentations of a recipe.

    Raises:
        DocumentError: there is no such recipe.
    """
    if word not in RECIPES:
        raise DocumentError(
            f"training.augmentation: unknown recipe {word!r}{nearest(word, RECIPES)}; known: {', '.join(RECIPES)}; "
            f'or give a list, e.g. ["gamma", "mirror"]'
        )
    masking = [augmentation_entry("mask", setting)] if setting.masked and word != "none" else []
    share = {"da5": 1.0, "nnunet": 0.5}.get(word)
    names = ("previous_morphology", "previous_component") if setting.num_found and share else ()
    found = [augmentation_entry(name, setting, probability_label=share) for name in names]
    return [*RECIPES[word](setting), *masking, *found]


def adapt(entries: list[Entry], old: Setting, new: Setting) -> list[Entry]:
    """Return the augmentations of a plan whose setting has changed; what was set by hand stays.

    Those for what a previous stage found go with it.
    """
    for word in RECIPES:
        if entries == make_recipe(word, old):
            return make_recipe(word, new)
    is_gone = old.num_found > 0 and new.num_found == 0
    return [_adapt_entry(entry, old, new) for entry in entries if not (is_gone and _is_for_cascades(entry))]


def rotation_degrees(setting: Setting) -> tuple[float, float, float]:
    """Return the half-ranges of rotation about z, y and x.

    Flat and 2-D patches are turned within their slices, by any angle unless they are long. A half turn and mirroring
    along one axis would together mirror along the other one, so where sides must be told apart turns stay small.
    """
    if not setting.in_plane:
        return rules.ROTATION_DEGREES
    is_long = len(setting.patch_size) == 2 and max(setting.patch_size) > rules.LONG_SLICE * min(setting.patch_size)
    if is_long:
        return rules.LONG_SLICE_ROTATION_DEGREES
    return rules.SIDED_ROTATION_DEGREES if setting.side_axis in (1, 2) else rules.FLAT_ROTATION_DEGREES


def explain_augmentation(setting: Setting) -> str:
    """Return the sentences on the augmentation of a plan that was just derived."""
    angle = f"{max(rotation_degrees(setting)):g} degrees"
    if len(setting.patch_size) == 2:
        form = f"Slices are rotated by up to {angle}."
    elif setting.in_plane:
        form = (
            f"The patch is over {rules.FLAT_PATCH:g} times as long as thick, so it is rotated, by up to {angle}, and "
            f"scaled within its slices only."
        )
    else:
        form = "The patch is not flat, so it is rotated about all axes."
    parts = ["nnU-Net's augmentations.", form]
    if setting.masked:
        parts.append("Outside the nonzero mask, within which intensities are z-scored, images are kept 0.")
    if setting.num_found:
        parts.append("What the previous stage found is grown, shrunk and thinned out at random (nnU-Net's cascade).")
    if setting.side_axis is not None:
        parts.append(f"Labels come in left and right pairs, so axis {setting.side_axis} is not mirrored.")
    return " ".join(parts)


def _nnunet(setting: Setting) -> list[Entry]:
    """Return nnU-Net's default (nnUNetTrainer.get_training_transforms)."""
    names = ("spatial", "gaussian_noise", "gaussian_blur", "brightness", "contrast", "low_resolution")
    return [
        *(augmentation_entry(name, setting) for name in names),
        augmentation_entry("gamma", setting, probability=0.1, invert=True),
        augmentation_entry("gamma", setting),
        augmentation_entry("mirror", setting),
    ]


def _da5(setting: Setting) -> list[Entry]:
    """Return nnU-Net's stronger augmentation (nnUNetTrainerDA5.get_training_transforms)."""

    def entry(name: str, **changes: Any) -> Entry:
        return augmentation_entry(name, setting, **changes)

    contrast = {"probability": 1.0, "probability_channel": 0.5, "factor": [0.5, 2.0]}
    inverted_gamma = entry("gamma", probability=0.1, invert=True)
    smooth = [
        entry("median_filter", probability=1.0),
        entry("gaussian_blur", probability=1.0, sigma=[0.3, 1.5], axes_alike=True),
    ]
    contrasts = [entry("contrast", **contrast, preserve_range=keep) for keep in (True, False)]
    rotation = {"probability_rotation": 0.4, "probability_rotation_axis": 0.5}
    return [
        entry("spatial", **rotation, scaling=[0.7, 1.43], scale_axes_alike=False, largest_box=1 / 0.7),
        *(entry(name) for name in ("rot90", "transpose_axes") if _has_alike_axes(setting)),
        entry("one_of", probability=0.2, choices=smooth),
        entry("gaussian_noise"),
        entry("additive_brightness"),
        entry("one_of", probability=0.2, choices=contrasts),
        entry("low_resolution", probability=0.15, scale=[0.25, 1.0]),
        inverted_gamma,
        dict(inverted_gamma),
        entry("mirror"),
        *(entry(name) for name in ("blank_rectangle", "brightness_gradient", "local_gamma", "sharpening")),
    ]


def _has_alike_axes(setting: Setting) -> bool:
    """Whether two axes that may be exchanged are equally long."""
    lengths = dict(zip(setting.axes, setting.patch_size))
    return any(count > 1 for count in Counter(lengths[axis] for axis in setting.free_axes).values())


def _is_for_cascades(entry: Entry) -> bool:
    return isinstance(entry, dict) and entry.get("name") in CASCADE_AUGMENTATIONS


def _adapt_entry(entry: Entry, old: Setting, new: Setting) -> Entry:
    """Return the entry with those fields derived again that were as the old setting asked."""
    if not isinstance(entry, dict) or "name" not in entry:
        return entry  # reported when the whole plan is validated
    before, after = (augmentation_entry(str(entry["name"]), one) for one in (old, new))
    return {key: after.get(key) if value == before.get(key, math.nan) else value for key, value in entry.items()}


RECIPES: dict[str, Callable[[Setting], list[Entry]]] = {"nnunet": _nnunet, "da5": _da5, "none": lambda setting: []}
"""The recipes that a plan may name in one word."""
