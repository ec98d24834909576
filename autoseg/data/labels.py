"""Labels and regions: what the values in a label file mean, and what a network is trained to output.

Three numberings meet here. *Values* are what label files hold (any integers). *Classes* are consecutive:
background 0, then the declared labels by ascending value; -1 is ignored. *Regions* are what is scored, and, where they
overlap, what is trained: each is a set of labels.
"""

from typing import NoReturn

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from autoseg.documents import Document
from autoseg.errors import VolumeError

IGNORED_CLASS = -1
IGNORE_NAME = "ignore"
ROUNDING = 1e-3  # files store labels as scaled floats, so that a 1 may read as 0.99999997
UNDECLARED = -2
MAX_TABLE = 65536
MAX_SHOWN = 8


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
        integers = self._round(values, where)
        classes, known = self._classes_of(integers)
        if not known.all():
            self._refuse(np.unique(integers[~known]), where)
        return classes

    def decode(self, classes: NDArray[np.integer]) -> NDArray[np.integer]:
        """Turn an array of classes back into label values (ignored voxels into the ignore label), in the smallest common dtype."""
        table = np.array([*self.class_values, *([] if self.ignore_value is None else [self.ignore_value])])
        dtypes = (np.uint8, np.int16, np.int32)
        fitting = (d for d in dtypes if np.iinfo(d).min <= table.min() and table.max() <= np.iinfo(d).max)
        return table.astype(next(fitting))[classes]

    def membership(self) -> NDArray[np.bool_]:
        """Return a (regions, classes) matrix: whether the class belongs to the region."""
        return np.array([[v in r.labels for v in self.class_values] for r in self.regions.values()])

    def _round(self, values: NDArray[np.generic], where: str) -> NDArray[np.integer]:
        """Return ``values`` as integers that lie between the least and the greatest declared value."""
        rounded = np.rint(values) if values.dtype.kind == "f" else values
        if rounded is not values:
            far = ~(np.abs(values - rounded) <= ROUNDING)  # also where NaN
            if far.any():
                self._refuse(np.unique(values[far]), where)
        low, high = rounded.min(), rounded.max()
        declared = self.labels.values()
        if low < min(declared) or high > max(declared):
            allowed = list(declared)
            self._refuse(np.array([v for v in np.unique(rounded) if v not in allowed]), where)
        return rounded.astype(np.int32) if rounded.dtype.kind in "fb" else rounded

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
        raise VolumeError(
            f"{where}: label values {shown}{more} are not declared; dataset.json declares {self.labels}; "
            f"declare them there or correct the file"
        )
