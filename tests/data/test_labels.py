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


def test_a_soft_mask_is_refused_with_the_reason() -> None:
    with pytest.raises(VolumeError, match=r"^f\.nii: holds 2 values that are no whole numbers, .*soft mask.*threshold"):
        PLAIN.encode(np.array([[[0.0, 1.0, 0.3, 1.059]]]), "f.nii")


def test_values_no_label_can_have_are_refused() -> None:
    for value in (3e9, np.inf, -1e30):
        with pytest.raises(VolumeError):
            PLAIN.encode(np.array([[[0.0, value]]]), "f.nii")


@pytest.mark.parametrize("with_background", [True, False])
def test_stacked_masks_of_classes_become_values(with_background: bool, rng: np.random.Generator) -> None:
    classes = rng.integers(0, 4, (5, 6, 7))
    masks = np.stack([classes == n for n in range(0 if with_background else 1, 4)])
    expected = np.array(ODD.class_values)[classes]
    np.testing.assert_array_equal(ODD.merge_masks(masks.astype(np.float32), "here"), expected)


def test_stacked_masks_of_regions_become_values(rng: np.random.Generator) -> None:
    regions = {
        "whole": Region(labels=(1, 2, 4), value=1),
        "core": Region(labels=(2, 4), value=2),
        "hot": Region(labels=(4,), value=4),
    }
    labels = Labels(labels={"background": 0, "a": 1, "b": 2, "c": 4}, regions=regions)
    values = rng.choice([0, 1, 2, 4], (5, 6, 7))
    masks = np.stack([np.isin(values, region.labels) for region in regions.values()])
    np.testing.assert_array_equal(labels.merge_masks(masks, "here"), values)


@pytest.mark.parametrize(
    "masks, found",
    [
        (np.zeros((5, 1, 1, 2)), "4-D mask of 5 volumes; the labels .* need 2 or 3"),
        (np.ones((2, 1, 1, 2)), "volumes overlap in 2 voxels.*declare overlapping regions"),
        (np.zeros((3, 1, 1, 2)), "leave voxels to no class"),
        (np.full((2, 1, 1, 2), 2), "from 2 to 2 where only 0 to 1"),
        (np.full((2, 1, 1, 2), 0.4), "soft mask"),
    ],
)
def test_masks_that_do_not_fit_are_refused(masks: np.ndarray, found: str) -> None:
    with pytest.raises(VolumeError, match=found):
        PLAIN.merge_masks(masks, "here")
