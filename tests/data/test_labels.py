"""Labels: values to classes and back, against plain loops; what is refused, and how."""

import numpy as np
import pytest
from pydantic import ValidationError

from autoseg.data.labels import IGNORED_CLASS, Labels, Region
from autoseg.errors import VolumeError

ODD = Labels.from_names({"background": 0, "liver": 300, "spleen": 7, "ignore": 255, "below": -3})
WIDE = Labels.from_names({"background": 0, "near": 1, "far": 1_000_000})
PLAIN = Labels.from_names({"background": 0, "a": 1, "b": 2})


def encode_by_hand(labels: Labels, values: np.ndarray) -> np.ndarray:
    order = sorted(v for n, v in labels.labels.items() if n not in ("ignore",) and v != 0)
    table = {0: 0, **{value: index for index, value in enumerate(order, start=1)}}
    if labels.ignore_value is not None:
        table[labels.ignore_value] = IGNORED_CLASS
    return np.array([table[round(float(v))] for v in values.ravel()]).reshape(values.shape)


@pytest.mark.parametrize("labels", [ODD, WIDE, PLAIN])
@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64, np.float32, np.float64])
def test_encoding_equals_a_table_looked_up_by_hand(labels: Labels, dtype: type, rng: np.random.Generator) -> None:
    declared = [v for v in labels.labels.values() if np.issubdtype(dtype, np.floating) or v <= np.iinfo(dtype).max]
    values = rng.choice(declared, size=(5, 6, 7)).astype(dtype)
    classes = labels.encode(values, "here")
    assert classes.dtype == np.int16
    np.testing.assert_array_equal(classes, encode_by_hand(labels, values))
    np.testing.assert_array_equal(labels.decode(classes), values)


def test_a_one_that_reads_as_a_little_less_is_one() -> None:
    values = np.array([[[0.0, 0.9999999702, 2.0000002]]])
    np.testing.assert_array_equal(PLAIN.encode(values, "here"), [[[0, 1, 2]]])
    assert values.astype(int).ravel().tolist() == [0, 0, 2]  # what must never decide


def test_booleans_and_unsigned_values() -> None:
    np.testing.assert_array_equal(PLAIN.encode(np.array([[[True, False]]]), "here"), [[[1, 0]]])
    np.testing.assert_array_equal(PLAIN.encode(np.array([[[0, 2]]], np.uint64), "here"), [[[0, 2]]])


@pytest.mark.parametrize("value", [3, -1, 100_000])
@pytest.mark.parametrize("labels", [PLAIN, ODD, WIDE])
def test_an_undeclared_value_is_refused(labels: Labels, value: int) -> None:
    with pytest.raises(VolumeError, match=rf"^file\.nii: .*{value}.*declare"):
        labels.encode(np.array([[[0, value]]], dtype=np.int32), "file.nii")


def test_nan_in_a_label_is_refused() -> None:
    with pytest.raises(VolumeError, match="nan"):
        PLAIN.encode(np.array([[[0.0, np.nan]]]), "file.nii")


def test_decoding_takes_the_smallest_dtype_and_gives_ignored_voxels_their_value() -> None:
    assert PLAIN.decode(np.array([0, 2], np.int16)).dtype == np.uint8
    assert ODD.decode(np.array([0, 3], np.int16)).dtype == np.int16
    assert WIDE.decode(np.array([0, 2], np.int16)).dtype == np.int32
    assert ODD.decode(np.array([IGNORED_CLASS, 1, 2, 3], np.int16)).tolist() == [255, -3, 7, 300]


def test_regions_that_share_labels_overlap() -> None:
    regions = {"whole": Region(labels=(1, 2), value=1), "core": Region(labels=(2,), value=2)}
    labels = Labels(labels={"background": 0, "edema": 1, "core": 2, "ignore": 3}, regions=regions)
    assert labels.overlapping and labels.num_outputs == 2 and labels.num_classes == 3
    np.testing.assert_array_equal(labels.membership(), [[False, True, True], [False, False, True]])
    assert not PLAIN.overlapping and PLAIN.num_outputs == 3


@pytest.mark.parametrize(
    "labels, regions",
    [
        ({"liver": 1}, {"liver": ((1,), 1)}),
        ({"background": 1, "liver": 2}, {"liver": ((2,), 2)}),
        ({"background": 0, "a": 1, "b": 1}, {"a": ((1,), 1)}),
        ({"background": 0, "a": 1}, {}),
        ({"background": 0, "a": 1}, {"a": ((2,), 1)}),
        ({"background": 0, "a": 1}, {"a": ((), 1)}),
        ({"background": 0, "a": 1, "ignore": 2}, {"a": ((1, 2), 1)}),
    ],
)
def test_labels_that_contradict_themselves_are_refused(labels: dict, regions: dict) -> None:
    with pytest.raises(ValidationError):
        Labels(labels=labels, regions={n: Region(labels=v, value=value) for n, (v, value) in regions.items()})
