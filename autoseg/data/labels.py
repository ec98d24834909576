"""Labels and regions: what the values in a label file mean, and what a network is trained to output.

Three numberings meet here. *Values* are what label files hold (any integers). *Classes* are consecutive:
background 0, then the declared labels by ascending value; -1 is ignored. *Regions* are what is scored, and, where they
overlap, what is trained: each is a set of labels.
"""

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from autoseg.documents import Document
from autoseg.errors import VolumeError

IGNORED_CLASS = -1
IGNORE_NAME = "ignore"


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

    def encode(self, values: NDArray[np.generic], where: str) -> NDArray[np.int16]:
        """Turn an array of label values into classes (int16, same shape); ``where`` names the file in errors.

        Raises:
            VolumeError: a value is not a declared integer (to within 1e-3, since files store labels as floats).
        """
        found = np.unique(values)
        rounded = np.rint(found)
        allowed = [*self.class_values, *([] if self.ignore_value is None else [self.ignore_value])]
        wrong = [f for f, r in zip(found.tolist(), rounded.tolist()) if abs(f - r) > 1e-3 or r not in allowed]
        if wrong:
            raise VolumeError(
                f"{where}: label values {wrong[:8]} are not declared; dataset.json declares {self.labels}; "
                f"declare them there or correct the file"
            )
        if allowed == list(range(len(allowed))) and self.ignore_value is None:
            return np.rint(values).astype(np.int16) if values.dtype.kind == "f" else values.astype(np.int16)
        table = {value: index for index, value in enumerate(self.class_values)}
        classes = np.array([table.get(int(r), IGNORED_CLASS) for r in rounded], dtype=np.int16)
        return classes[np.searchsorted(found, values)]

    def decode(self, classes: NDArray[np.integer]) -> NDArray[np.uint8] | NDArray[np.int16]:
        """Turn an array of classes back into label values, in the smallest dtype that files commonly use."""
        table = np.asarray(self.class_values)
        dtype = np.uint8 if table.min() >= 0 and table.max() < 256 else np.int16
        return table.astype(dtype)[classes]

    def membership(self) -> NDArray[np.bool_]:
        """Return a (regions, classes) matrix: whether the class belongs to the region."""
        return np.array([[v in r.labels for v in self.class_values] for r in self.regions.values()])
