"""The store: what is written comes back, whole or not at all, in any number of threads."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from autoseg.data.labels import Labels, Region
from autoseg.errors import DatasetError, WorkspaceError
from autoseg.preprocess import store as store_module
from autoseg.preprocess.case import preprocess_case
from autoseg.preprocess.run import preprocess_dataset
from autoseg.preprocess.store import (
    STALE_SECONDS,
    CaseStore,
    block_and_chunk,
    preprocessing_digest,
    sample_foreground,
)

LABELS = Labels.from_names({"background": 0, "a": 1, "b": 2})
REGIONS = Labels(
    labels={"background": 0, "edema": 1, "core": 2},
    regions={"whole": Region(labels=(1, 2), value=1), "core": Region(labels=(2,), value=2)},
)
NAME = "Fall Nr. 1 – Übung"


@pytest.fixture
def case(rng, write_case):
    image = rng.random((1, 12, 20, 33), dtype=np.float32) + 1
    return write_case(NAME, image, rng.integers(0, 3, (12, 20, 33)).astype(np.uint8))


@pytest.fixture
def dataset(case, rng, write_case, build_dataset):
    other = write_case("other", rng.random((1, 9, 9, 9), dtype=np.float32) + 1, np.ones((9, 9, 9), np.uint8))
    return build_dataset([case, other], LABELS)


def test_a_case_comes_back_as_it_was_saved(tmp_path, case, build_plan):
    done = preprocess_case(case, build_plan(LABELS))
    store = CaseStore(tmp_path / "a folder")
    store.save(done)
    assert store.names() == [NAME]
    assert store.properties(NAME) == done.properties
    np.testing.assert_array_equal(store.image(NAME)[...], done.image)
    np.testing.assert_array_equal(store.classes(NAME)[2:5, :7, 30:], done.classes[2:5, :7, 30:])
    assert store.image(NAME).dtype == np.float32 and store.classes(NAME).dtype == np.int16
    assert sorted(p.name for p in store.folder.iterdir()) == sorted(
        f"{NAME}{ending}" for ending in (".b2nd", "_seg.b2nd", "_foreground.npz", ".json")
    )


def test_a_case_without_a_label_has_only_an_image(tmp_path, case, build_plan):
    store = CaseStore(tmp_path / "store")
    store.save(preprocess_case(case, build_plan(LABELS), with_label=False))
    assert store.names() == [NAME] and store.image(NAME).shape == (1, 12, 20, 33)
    with pytest.raises(WorkspaceError, match="no such file"):
        store.classes(NAME)


def test_many_threads_read_the_same_case(tmp_path, case, build_plan):
    done = preprocess_case(case, build_plan(LABELS))
    store = CaseStore(tmp_path / "store")
    store.save(done)

    def matches(seed: int) -> bool:
        low = np.random.default_rng(seed).integers(0, (8, 15, 28))
        box = tuple(slice(n, n + 5) for n in low)
        equal_image = np.array_equal(store.image(NAME)[(slice(None), *box)], done.image[(slice(None), *box)])
        return equal_image and np.array_equal(store.classes(NAME)[box], done.classes[box])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(matches, range(200)))


def test_missing_and_damaged_cases_are_named(tmp_path, case, build_plan):
    store = CaseStore(tmp_path / "store")
    with pytest.raises(WorkspaceError, match="'x' is not preprocessed; run autoseg_plan"):
        store.properties("x")
    with pytest.raises(WorkspaceError, match="x.b2nd: no such file"):
        store.image("x")
    with pytest.raises(WorkspaceError, match="x_foreground.npz: no such file"):
        store.foreground("x")
    store.save(preprocess_case(case, build_plan(LABELS)))
    (store.folder / f"{NAME}.b2nd").write_bytes(b"damaged")
    (store.folder / f"{NAME}_foreground.npz").write_bytes(b"damaged")
    with pytest.raises(WorkspaceError, match="cannot be read"):
        store.image(NAME)
    with pytest.raises(WorkspaceError, match="cannot be read"):
        store.foreground(NAME)


def test_a_folder_that_is_not_there_holds_no_cases(tmp_path):
    assert CaseStore(tmp_path / "none").names() == []


def test_a_case_that_failed_to_be_written_is_not_there(tmp_path, case, build_plan, monkeypatch):
    store = CaseStore(tmp_path / "store")
    done = preprocess_case(case, build_plan(LABELS))
    store.save(done)

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(store_module, "_write_arrays", fail)
    with pytest.raises(OSError, match="no space left"):
        store.save(done)
    assert store.names() == []
    assert not list(store.folder.glob(".partial-*"))


def test_finished_cases_are_skipped_and_changed_ones_made_again(tmp_path, dataset, case, build_plan):
    folder, plan, seen = tmp_path / "store", build_plan(LABELS), []
    run = {"num_workers": 2, "on_case": lambda c: seen.append(c.name)}
    preprocess_dataset(dataset, plan, folder, **run)
    assert sorted(seen) == sorted([NAME, "other"]) and CaseStore(folder).names() == sorted(seen)
    times = _times(folder)
    preprocess_dataset(dataset, plan, folder, **run)
    assert _times(folder) == times and len(seen) == 4
    os.utime(case.label, ns=(1, 1))
    preprocess_dataset(dataset, plan, folder, **run)
    changed = {name for name, value in _times(folder).items() if value != times[name]}
    assert changed == {f"{NAME}{ending}" for ending in (".b2nd", "_seg.b2nd", "_foreground.npz", ".json")}


@pytest.mark.parametrize("ending", [".b2nd", "_seg.b2nd", "_foreground.npz", ".json"])
def test_a_case_of_which_a_file_was_deleted_is_made_again(tmp_path, dataset, build_plan, ending):
    folder, plan = tmp_path / "store", build_plan(LABELS)
    preprocess_dataset(dataset, plan, folder, num_workers=1)
    before = _times(folder)
    (folder / f"{NAME}{ending}").unlink()
    preprocess_dataset(dataset, plan, folder, num_workers=1)
    assert set(_times(folder)) == set(before)
    assert _times(folder)["other.b2nd"] == before["other.b2nd"]


def _times(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_the_content_of_the_folder_is_described(tmp_path, dataset, build_plan):
    preprocess_dataset(dataset, build_plan(LABELS), tmp_path / "store", num_workers=1)
    content = json.loads((tmp_path / "store" / "preprocessing.json").read_text())
    assert content["schema"] == "autoseg.preprocessing.1"
    assert content["preprocessing"]["spacing"] == [1.0, 1.0, 1.0] and content["labels"] == LABELS.labels


def test_only_old_partial_files_are_removed(tmp_path, dataset, build_plan):
    folder = tmp_path / "store"
    folder.mkdir()
    old, new = folder / ".partial-1x.b2nd", folder / ".partial-2y.json"
    for path in (old, new):
        path.touch()
    past = time.time() - STALE_SECONDS - 10
    os.utime(old, (past, past))
    preprocess_dataset(dataset, build_plan(LABELS), folder, num_workers=1)
    assert not old.exists() and new.exists()
    assert CaseStore(folder).names() == sorted([NAME, "other"])


@pytest.mark.parametrize("names", [("preprocessing",), ("a", "a_seg")])
def test_names_that_collide_are_refused(tmp_path, names, write_case, build_dataset, build_plan):
    cases = [write_case(name, np.ones((1, 4, 4, 4), np.float32), np.ones((4, 4, 4), np.uint8)) for name in names]
    with pytest.raises(DatasetError, match="rename"):
        preprocess_dataset(build_dataset(cases, LABELS), build_plan(LABELS), tmp_path / "store", num_workers=1)


def test_the_digest_tells_plans_apart_by_what_the_cases_depend_on(build_plan):
    digest = preprocessing_digest(build_plan(LABELS))
    assert len(digest) == 64
    assert digest == preprocessing_digest(build_plan(LABELS).model_copy(update={"name": "other"}))
    assert digest != preprocessing_digest(build_plan(LABELS, spacing=(1.0, 1.0, 2.0)))
    assert digest != preprocessing_digest(build_plan(REGIONS))
    swapped = REGIONS.model_copy(update={"regions": dict(reversed(REGIONS.regions.items()))})
    assert preprocessing_digest(build_plan(REGIONS)) != preprocessing_digest(build_plan(swapped))


def test_foreground_of_small_classes_is_complete(rng):
    classes = rng.integers(-1, 4, (6, 7, 8)).astype(np.int16)
    classes[classes == 2] = 0
    found = sample_foreground(classes, LABELS, seed=1)
    assert list(found) == [1, 3] and found[1].dtype == np.int32
    for key, voxels in found.items():
        np.testing.assert_array_equal(voxels, np.argwhere(classes == key))


def test_foreground_of_regions_is_keyed_by_their_index(rng):
    classes = rng.integers(-1, 3, (6, 7, 8)).astype(np.int16)
    found = sample_foreground(classes, REGIONS, seed=1)
    np.testing.assert_array_equal(found[0], np.argwhere(classes > 0))
    np.testing.assert_array_equal(found[1], np.argwhere(classes == 2))


def test_foreground_of_a_region_with_background_leaves_out_what_is_ignored(rng):
    labels = Labels(
        labels={"background": 0, "a": 1},
        regions={"all": Region(labels=(0, 1), value=1), "a": Region(labels=(1,), value=1)},
    )
    classes = rng.integers(-1, 2, (5, 5, 5)).astype(np.int16)
    np.testing.assert_array_equal(sample_foreground(classes, labels, seed=1)[0], np.argwhere(classes >= 0))


def test_foreground_of_large_classes_is_a_seeded_sample():
    classes = np.ones((110, 110, 100), dtype=np.int16)
    classes[:20] = 2
    found = sample_foreground(classes, LABELS, seed=1)
    assert len(found[1]) == 10_000 and len(found[2]) == 10_000
    assert len(np.unique(found[1], axis=0)) == 10_000 and (classes[tuple(found[1].T)] == 1).all()
    np.testing.assert_array_equal(found[1], sample_foreground(classes, LABELS, seed=1)[1])
    assert not np.array_equal(found[1], sample_foreground(classes, LABELS, seed=2)[1])
    assert len(sample_foreground(np.ones((110, 110, 110), np.int16), LABELS, seed=1)[1]) == 13_310


def test_no_foreground_is_an_empty_table(tmp_path):
    assert sample_foreground(np.zeros((4, 4, 4), np.int16), LABELS, seed=1) == {}
    assert sample_foreground(np.full((4, 4, 4), -1, np.int16), LABELS, seed=1) == {}


@pytest.mark.parametrize("shape", [(36, 50, 35), (115, 512, 512), (1, 300, 1), (9, 33, 65)])
def test_blocks_are_small_and_fit_the_shape(shape):
    blocks, chunks = block_and_chunk(shape)
    assert np.prod(blocks) * 4 <= 32 * 1024 and np.prod(chunks) * 4 <= 4 * 2**20
    assert all(block <= chunk <= size for block, chunk, size in zip(blocks, chunks, shape))
