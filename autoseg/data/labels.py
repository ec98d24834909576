"""Labels and regions: what the values in a label file mean, and what a network is trained to output.

Three numberings meet here. *Values* are what label files hold (any integers). *Classes* are consecutive:
background 0, then the declared labels by ascending value; -1 is ignored. *Regions* are what is scored, and, where they
overlap, what is trained: each is a set of labels.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from autoseg.documents import Document
from autoseg.errors import VolumeError

IGNORED_CLASS = -1
OUTSIDE_CLASS = -3  # background outside the image or its nonzero mask, told apart only until a batch is augmented
IGNORE_NAME = "ignore"
ROUNDING = 1e-3  # files store labels as scaled floats, so that a 1 may read as 0.99999997
UNDECLARED = -2
MAX_TABLE = 65536
MAX_SHOWN = 8
MAX_LABEL = 2**31
MAX_MASKS = 62  # bits of a code


class Region(Document):
    """A scored set of labels.

    Attributes:
        labels: the label values that make up the region.
        value: the value that a predicted segmentation gets where this region is found. Regions are written in
            their order, so a later region overwrites an earlier one.
    """

    labels: tuple[int, ...]
    value: int


class Labels(Document):
    """Names and values of the labels, and the regions made of them.

    Attributes:
        labels: name to value; ``background`` is 0; a label named ``ignore`` is excluded from training and scoring.
        regions: name to region, in the order of writing. Without overlap: one region a foreground label.
    """

    labels: dict[str, int]
    regions: dict[str, Region]

    @model_validator(mode="after")
    def _check(self) -> "Labels":
        if self.labels.get("background") != 0:
            raise ValueError(f"labels: 'background' must be declared with value 0, found {self.labels}")
        if len(set(self.labels.values())) < len(self.labels):
            raise ValueError(f"labels: two names share a value in {self.labels}")
        if not self.regions:
            raise ValueError("labels: no foreground label is declared; at least one is needed")
        known = set(self.class_values)
        for name, region in self.regions.items():
            if not region.labels or not set(region.labels) <= known:
                raise ValueError(f"region {name!r} uses {list(region.labels)}; declared labels are {sorted(known)}")
        return self

    @classmethod
    def from_names(cls, labels: dict[str, int]) -> "Labels":
        """Make labels without overlap: every foreground label is a region of its own."""
        foreground = {n: v for n, v in labels.items() if n not in ("background", IGNORE_NAME)}
        return cls(labels=labels, regions={n: Region(labels=(v,), value=v) for n, v in foreground.items()})

    @property
    def ignore_value(self) -> int | None:
        """The value of voxels that are neither trained on nor scored, or None."""
        return self.labels.get(IGNORE_NAME)

    @property
    def class_values(self) -> tuple[int, ...]:
        """The label value of each class, background first, then ascending; without the ignore label."""
        values = sorted(value for name, value in self.labels.items() if name != IGNORE_NAME and value != 0)
        return (0, *values)

    @property
    def num_classes(self) -> int:
        """Number of classes, background included."""
        return len(self.class_values)

    @property
    def overlapping(self) -> bool:
        """Whether the regions are trained with a sigmoid each instead of one softmax over the classes."""
        single = sorted(region.labels for region in self.regions.values())
        return single != [(value,) for value in self.class_values[1:]]

    @property
    def num_outputs(self) -> int:
        """Number of channels of a network's logits: the classes, or the regions where these overlap."""
        return len(self.regions) if self.overlapping else self.num_classes

    @property
    def output_names(self) -> tuple[str, ...]:
        """What each channel of a network's logits is called: a label, or a region where these overlap."""
        names = {value: name for name, value in self.labels.items()}
        return tuple(self.regions) if self.overlapping else tuple(names[value] for value in self.class_values)

    @property
    def num_declared(self) -> int:
        """Number of entries that nnU-Net's dataset.json declares: labels, or regions with background and ignore."""
        if not self.overlapping:
            return len(self.labels)
        return len(self.regions) + 1 + (self.ignore_value is not None)

    def encode(self, values: NDArray[np.generic], where: str) -> NDArray[np.int16]:
        """Turn an array of label values into classes (int16, same shape); ``where`` names the file in errors.

        Raises:
            VolumeError: a value is not a declared integer (to within 1e-3).
        """
        integers = self._in_range(round_values(values, where), where)
        classes, known = self._classes_of(integers)
        if not known.all():
            self._refuse(np.unique(integers[~known]), where)
        return classes

    def decode(self, classes: NDArray[np.integer]) -> NDArray[np.integer]:
        """Turn an array of classes back into label values (ignored voxels into the ignore label), in the smallest
        common dtype.
        """
        table = np.array([*self.class_values, *([] if self.ignore_value is None else [self.ignore_value])])
        dtypes = (np.uint8, np.int16, np.int32)
        fitting = (d for d in dtypes if np.iinfo(d).min <= table.min() and table.max() <= np.iinfo(d).max)
        values: NDArray[np.integer] = table.astype(next(fitting))[classes]
        return values

    def membership(self) -> NDArray[np.bool_]:
        """Return a (regions, classes) matrix: whether the class belongs to the region."""
        return np.array([[v in r.labels for v in self.class_values] for r in self.regions.values()])

    def merge_masks(self, masks: NDArray[np.generic], where: str | Path) -> NDArray[np.integer]:
        """Turn a stack of masks (N, Z, Y, X) into label values (Z, Y, X).

        The masks are those of all classes in their order, or of all but the background, or of the regions.

        Raises:
            VolumeError: their number is none of these, a mask holds other values than 0 and 1, or they contradict each
                other.
        """
        codes = [code for code in self._mask_codes() if code.shape[1] == len(masks) <= MAX_MASKS]
        if not codes:
            allowed = sorted({code.shape[1] for code in self._mask_codes()})
            needed = " or ".join(map(str, allowed))
            found = f"is a 4-D mask of {len(masks)} volumes; the labels {list(self.labels)} need {needed}"
            raise VolumeError(where, found, "store the labels as one 3-D file", kind="label values")
        weights = 2 ** np.arange(len(masks), dtype=np.int64)
        present = np.zeros(masks.shape[1:], dtype=np.int64)
        for mask, weight in zip(masks, weights):
            present += round_values(mask, where, most=1) * weight
        for code in codes:
            known = (code * weights).sum(axis=1)
            order = np.argsort(known)
            index = np.minimum(np.searchsorted(known[order], present), len(order) - 1)
            if (known[order][index] == present).all():
                return np.array(self.class_values)[order][index]
        several = np.count_nonzero(present & (present - 1))
        found = f"overlap in {several} voxels" if several else "leave voxels to no class"
        remedy = "declare overlapping regions and a label for each combination, or store the labels as one 3-D file"
        raise VolumeError(where, f"is a 4-D mask whose volumes {found}", remedy, kind="label values")

    def _mask_codes(self) -> Iterator[NDArray[np.bool_]]:
        """Yield the ways (classes, masks) in which a voxel's class can show in a stack of masks."""
        yield np.eye(self.num_classes, dtype=bool)
        yield np.eye(self.num_classes, dtype=bool)[:, 1:]
        if self.overlapping:
            yield self.membership().T

    def _in_range(self, integers: NDArray[np.integer], where: str) -> NDArray[np.integer]:
        """Return ``integers``, all of which lie between the least and the greatest declared value."""
        declared = self.labels.values()
        if integers.min() < min(declared) or integers.max() > max(declared):
            allowed = list(declared)
            self._refuse(np.array([v for v in np.unique(integers) if v not in allowed]), where)
        return integers

    def _classes_of(self, integers: NDArray[np.integer]) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
        """Return the class of each value, and which values are declared at all (one flag where all must be)."""
        if self.class_values == tuple(range(self.num_classes)) and self.ignore_value is None:
            return integers.astype(np.int16), np.array([True])
        known_values = sorted(self.labels.values())
        position = {value: index for index, value in enumerate(self.class_values)}
        classes = np.array([position.get(value, IGNORED_CLASS) for value in known_values], dtype=np.int16)
        low, high = known_values[0], known_values[-1]
        if high - low < MAX_TABLE:
            table = np.full(high - low + 1, UNDECLARED, dtype=np.int16)
            table[np.array(known_values) - low] = classes
            found = table[integers.astype(np.int64) - low if low else integers]
            return found, found != UNDECLARED
        index = np.searchsorted(known_values, integers)
        return classes[index], np.array(known_values)[index] == integers

    def _refuse(self, found: NDArray[np.generic], where: str) -> NoReturn:
        shown = ", ".join(f"{value:.6g}" for value in found[:MAX_SHOWN].tolist())
        more = f" and {len(found) - MAX_SHOWN} more" if len(found) > MAX_SHOWN else ""
        declared = ", ".join(f"{name} {value}" for name, value in self.labels.items())
        raise VolumeError(
            where, f"label values {shown}{more} are not declared (declared: {declared})",
            "declare them in dataset.json, or correct the file", kind="label values",
        )  # fmt: skip


def round_values(values: NDArray[Any], where: str | Path, *, most: int | None = None) -> NDArray[np.integer]:
    """Return label values as integers: files store them as scaled floats too, so that a 1 may read as 0.99999997.

    Args:
        values: of any shape.
        where: the file, for the error.
        most: the largest value allowed, beside which 0 is the least; None: any.

    Raises:
        VolumeError: a value is not an integer to within 1e-3 (a soft mask), or too large.
    """
    rounded: NDArray[Any] = np.rint(values) if values.dtype.kind == "f" else values
    if rounded is not values:
        with np.errstate(invalid="ignore"):
            far = ~(np.abs(values - rounded) <= ROUNDING)  # also where NaN or infinite
        if far.any():
            low, high = values[far].min(), values[far].max()
            number = np.count_nonzero(far)
            values_text = f"from {low:.4g} to {high:.4g} (a soft mask, or an image)"
            found = f"holds {number} values that are no whole numbers, {values_text}"
            raise VolumeError(where, found, "threshold it, e.g. at 0.5, and store whole numbers", kind="label values")
    if most is not None and rounded.size and not 0 <= rounded.min() <= rounded.max() <= most:
        found = f"holds values from {rounded.min():.4g} to {rounded.max():.4g} where only 0 to {most} can be"
        raise VolumeError(where, found, "store each mask as 0 and 1", kind="label values")
    if (rounded.dtype.kind == "f" or rounded.dtype.itemsize > 4) and rounded.size:
        extreme = max(int(rounded.min()), int(rounded.max()), key=abs)
        if not abs(extreme) < MAX_LABEL:
            raise VolumeError(where, f"holds the label value {extreme:.4g}", "is it an image?", kind="label values")
    return rounded.astype(np.int64) if rounded.dtype.kind in "fb" else rounded
