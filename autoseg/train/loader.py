"""Batches, read ahead by threads from the preprocessed store.

Threads suffice, since blosc2 decompresses outside Python's global lock. A sample is read as the smallest box that its
augmentation needs; the augmentation itself runs later, for the whole batch, on the device.
"""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from autoseg.augment._pipeline import BatchParameters, Pipeline
from autoseg.data.labels import OUTSIDE_CLASS
from autoseg.errors import AutosegError, TrainingError
from autoseg.preprocess.store import CaseStore
from autoseg.train.patches import (
    Geography,
    Purpose,
    Voxel,
    box_around,
    draw_case,
    draw_patch,
    is_forced,
    make_generator,
    make_seed,
)

CACHE_GB = 2.0
"""Memory, in 10^9 bytes, in which decompressed cases are kept. Small datasets fit; on a CPU, decompression would
compete with the network."""

BATCHES_AHEAD = 2
"""Batches being read while another is worked on; more would only hold memory, since each is read by all threads."""

Box = tuple[slice, ...]


@dataclass(frozen=True)
class BatchRequest:
    """Which batch of a training: the key of all its randomness."""

    epoch: int
    iteration: int


@dataclass(frozen=True)
class Batch:
    """One batch on the host.

    Attributes:
        images: float32 (B, C, *source), the source box being the patch with the margin that the augmentation needs.
        classes: int16 (B, *source). What lies outside is OUTSIDE_CLASS if the batch is augmented, else background. In
            a cascade (B, 2, *source): behind the reference what the previous stage found.
        parameters: what the augmentation drew, or None without augmentation.
    """

    images: torch.Tensor
    classes: torch.Tensor
    parameters: BatchParameters | None


@dataclass(frozen=True)
class Sampling:
    """How the batches of one stream are made; ``pipeline`` is None where nothing is augmented.

    With ``sees_previous`` what a previous stage found is read too. Of processes that train together each reads only its
    ``samples`` of every batch, which are the same as when one reads all of them. With ``augmented`` the reading threads
    augment too, and what is yielded is the finished batch.
    """

    cases: tuple[str, ...]
    purpose: Purpose
    num_channels: int
    patch_size: Voxel
    batch_size: int
    foreground_oversampling: float
    seed: int
    pipeline: Pipeline | None
    samples: range | None = None
    augmented: bool = False
    sees_previous: bool = False

    @property
    def numbers(self) -> range:
        """The numbers of the samples that are read, of those of the whole batch."""
        return range(self.batch_size) if self.samples is None else self.samples


@dataclass
class CaseCache:
    """Reads boxes of preprocessed cases; keeps the first that fit into ``limit_bytes`` decompressed in memory."""

    store: CaseStore
    limit_bytes: float = CACHE_GB * 1e9
    used_bytes: int = 0
    kept: dict[tuple[str, str], Any] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def geography(self, case: str) -> Geography:
        """Return where a patch of the case can lie."""
        shape = self._remember((case, "shape"), 0, lambda: tuple(self.store.properties(case).shape))
        return Geography(shape, lambda: self._foreground(case))

    def read_into(self, case: str, box: Box, image: NDArray[np.float32], classes: NDArray[np.int16]) -> None:
        """Fill ``image`` (C, *source) and ``classes`` (*source) from a box of the case.

        Classes of (2, *source) get what the previous stage found behind the reference.
        What lies outside the image is 0 in the image and OUTSIDE_CLASS in the classes. It will count as background and
        not be ignored: the network meets the same padding when it predicts a small image, and must call it background.
        """
        maps = classes if classes.ndim > len(box) else classes[None]
        _fill(maps[0], self._array(case, "classes", self.store.classes), box, OUTSIDE_CLASS)
        for found in maps[1:]:
            _fill(found, self._array(case, "found", self.store.found), box, OUTSIDE_CLASS)
        _fill(image, self._array(case, "image", self.store.image), box, 0)

    def _foreground(self, case: str) -> Mapping[int, NDArray[np.integer]]:
        kept: Mapping[int, NDArray[np.integer]] | None = self.kept.get((case, "foreground"))
        if kept is None:
            voxels = self.store.foreground(case)
            size = sum(array.nbytes for array in voxels.values())
            kept = self._remember((case, "foreground"), size, lambda: voxels)
        return kept

    def _array(self, case: str, kind: str, open_array: Callable[[str], Any]) -> Any:
        """Return the case's whole array if it fits into the cache, else the compressed one for a partial read."""
        if (case, kind) in self.kept:
            return self.kept[case, kind]
        compressed = open_array(case)
        size = int(np.prod(compressed.shape)) * compressed.dtype.itemsize
        return self._remember((case, kind), size, lambda: compressed[...], otherwise=compressed)

    def _remember(self, key: tuple[str, str], size: int, read: Callable[[], Any], otherwise: Any = None) -> Any:
        """Keep what ``read`` returns if there is room for ``size`` bytes; the room is taken before it is read."""
        with self.lock:
            fits = self.used_bytes + size <= self.limit_bytes
            self.used_bytes += size if fits else 0
        if not fits:
            return read() if otherwise is None else otherwise
        value = read()
        with self.lock:
            if key in self.kept:  # another thread was quicker
                self.used_bytes -= size
            return self.kept.setdefault(key, value)


def open_pool(num_workers: int) -> ThreadPoolExecutor:
    """Return the threads that read samples; at least one."""
    return ThreadPoolExecutor(max(num_workers, 1), thread_name_prefix="autoseg-loader")


def stream_batches(
    requests: Iterable[BatchRequest],
    sampling: Sampling,
    cache: CaseCache,
    pool: ThreadPoolExecutor,
    *,
    pin_memory: bool = False,
) -> Generator[Batch, None, None]:
    """Yield the requested batches in order while the next ones are read.

    Closing the generator, an error, or an interruption cancels what has not begun; what has begun ends by itself.

    Raises:
        TrainingError: a case could not be read; the message names it.
    """
    waiting: deque[_PendingBatch] = deque()
    remaining = iter(requests)
    try:
        while True:
            for request in islice(remaining, BATCHES_AHEAD + 1 - len(waiting)):
                waiting.append(_submit(request, sampling, cache, pool, pin_memory))
            if not waiting:
                return
            for sample in waiting[0].samples:
                sample.result()
            augmented = waiting[0].augmented
            batch = waiting[0].batch if augmented is None else augmented.result()
            waiting.popleft()
            yield batch
    finally:
        for pending in waiting:
            for job in (*pending.samples, pending.augmented):
                if job is not None:
                    job.cancel()


def name_cases(request: BatchRequest, sampling: Sampling) -> list[str]:
    """Return the case that each sample of a batch is read from."""
    return [draw_case(sampling.cases, _make_rng(request, sample, sampling)) for sample in sampling.numbers]


@dataclass(frozen=True)
class _PendingBatch:
    """A batch whose tensors the threads are filling, and the augmented one if they augment it too."""

    batch: Batch
    samples: list["Future[None]"]
    augmented: "Future[Batch] | None"


def _submit(
    request: BatchRequest, sampling: Sampling, cache: CaseCache, pool: ThreadPoolExecutor, pin_memory: bool
) -> _PendingBatch:
    """Draw the augmentation first, since it says how large a box is needed; then let the threads read."""
    shape = (len(sampling.numbers), sampling.num_channels, *sampling.patch_size)
    parameters, boxes = _draw_augmentation(request, sampling)
    source = tuple(max(sizes) for sizes in zip(*boxes))
    images = torch.empty((*shape[:2], *source), dtype=torch.float32, pin_memory=pin_memory)
    maps = (2,) if sampling.sees_previous else ()
    classes = torch.empty((shape[0], *maps, *source), dtype=torch.int16, pin_memory=pin_memory)
    batch = Batch(images, classes, parameters)
    jobs = [pool.submit(_read_sample, request, *job, sampling, cache, batch) for job in enumerate(boxes)]
    # The pool begins its jobs in order, so the one that waits for the others never keeps them from being begun.
    augmented = pool.submit(_augment, batch, jobs, sampling, pin_memory) if sampling.augmented else None
    return _PendingBatch(batch, jobs, augmented)


def _augment(batch: Batch, samples: list["Future[None]"], sampling: Sampling, pin_memory: bool) -> Batch:
    """Augment a batch on the CPU as soon as its samples are read."""
    for sample in samples:
        sample.result()
    if sampling.pipeline is None or batch.parameters is None:
        return batch
    images, classes = sampling.pipeline.apply(batch.images, batch.classes, batch.parameters, sampling.patch_size)
    if pin_memory:
        images, classes = images.pin_memory(), classes.pin_memory()
    return Batch(images, classes, None)


def _draw_augmentation(request: BatchRequest, sampling: Sampling) -> tuple[BatchParameters | None, list[Voxel]]:
    """Return what was drawn for the samples of a batch that are read, and the box that each needs."""
    if sampling.pipeline is None:
        return None, [sampling.patch_size] * len(sampling.numbers)
    shape = (sampling.batch_size, sampling.num_channels, *sampling.patch_size)
    number = make_seed(sampling.seed, "augmentation", request.epoch, request.iteration)
    parameters = sampling.pipeline.sample(shape, torch.Generator().manual_seed(number))
    own = slice(sampling.numbers.start, sampling.numbers.stop)
    parameters = tuple({name: drawn[own] for name, drawn in one.items()} for one in parameters)
    shape = (len(sampling.numbers), *shape[1:])
    return parameters, sampling.pipeline.source_sizes(parameters, shape)


def _make_rng(request: BatchRequest, sample: int, sampling: Sampling) -> np.random.Generator:
    return make_generator(sampling.seed, sampling.purpose, request.epoch, request.iteration, sample)


def _read_sample(
    request: BatchRequest, place: int, size: Voxel, sampling: Sampling, cache: CaseCache, batch: Batch
) -> None:
    """Read a box of ``size`` into the middle of the sample's ``place`` among those read, whose rim stays empty."""
    sample = sampling.numbers[place]
    rng = _make_rng(request, sample, sampling)
    forced = is_forced(sample, sampling.batch_size, sampling.foreground_oversampling)
    case = draw_case(sampling.cases, rng)
    try:
        patch = draw_patch(case, cache.geography(case), sampling.patch_size, rng, forced=forced)
        image, classes = batch.images[place].numpy(), batch.classes[place].numpy()
        middle = _empty_rim(image, classes, size)
        box = box_around(patch, sampling.patch_size, size)
        maps: Box = (slice(None),) * (classes.ndim - len(middle))
        cache.read_into(case, box, image[(slice(None), *middle)], classes[maps + middle])
        if batch.parameters is None:
            classes[classes == OUTSIDE_CLASS] = 0
    except AutosegError as error:
        raise TrainingError(f"case {case}: {error}") from error
    except Exception as error:
        where = f"{cache.store.folder}: case {case}"
        raise TrainingError(
            f"{where} cannot be read ({error}); delete its files there and run autoseg_plan again"
        ) from error


def _empty_rim(image: NDArray[np.float32], classes: NDArray[np.int16], size: Voxel) -> Box:
    """Return the middle of ``size`` of a sample's arrays, and set what lies around it to what is outside an image."""
    shape = image.shape[1:]
    middle = tuple(slice((whole - part) // 2, (whole - part) // 2 + part) for whole, part in zip(shape, size))
    for axis, part in enumerate(middle):
        for rim in (slice(None, part.start), slice(part.stop, None)):
            where: Box = (*middle[:axis], rim)  # what was set already is left out
            image[(slice(None), *where)] = 0
            classes.reshape(-1, *shape)[(slice(None), *where)] = OUTSIDE_CLASS  # a view, whether one map or two
    return middle


def _fill(target: NDArray[Any], source: Any, box: Box, outside: int) -> None:
    """Copy a box of ``source`` into ``target``; both may have leading axes; what lies outside becomes ``outside``."""
    extents = source.shape[-len(box) :]
    inside = [slice(max(part.start, 0), min(part.stop, extent)) for part, extent in zip(box, extents)]
    if any(part.start >= part.stop for part in inside):
        target[...] = outside
        return
    there = tuple(slice(part.start - whole.start, part.stop - whole.start) for part, whole in zip(inside, box))
    if tuple(box) != tuple(inside):
        target[...] = outside
    lead = (slice(None),) * (len(source.shape) - len(box))
    target[lead + there] = source[lead + tuple(inside)]
