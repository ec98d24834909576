"""The logits of a case from each member of a model, within bounds of memory."""

from collections.abc import Callable, Sequence

import torch

from autoseg.predict.model import Member, Model
from autoseg.predict.sliding_window import BATCH_VOXELS, CPU_BATCH_VOXELS, LogitStream, Tiling
from autoseg.predict.turning import Order, Turned, order_of_axes
from autoseg.preprocess.case import PreprocessedCase
from autoseg.preprocess.restore import SLAB_ROWS, LogitSource, Restorable, WholeLogits, separate_axis_back

LOGITS_BYTES = 3 * 10**9
"""Logits that are held at any time, of all members together. The peak of host memory is this, the images of two cases
(one is prepared while another is segmented) and what the networks take; it does not grow with classes or slices."""

OWN: Order = (0, 1, 2)
Opener = Callable[[slice, int], LogitSource]


def run_networks(model: Model, cases: Sequence[PreprocessedCase]) -> list[Restorable]:
    """Return each member's logits of a case: computed, if all of them fit in half of ``LOGITS_BYTES``, else to compute.

    Half, since those of the case before may still be read.

    Args:
        model: its members.
        cases: the case as each member's networks take it (see cascade.py).
    """
    num_bytes = sum(4 * m.plan.dataset.label_scheme.num_outputs * c.image[0].size for m, c in zip(model.members, cases))
    fits = num_bytes <= LOGITS_BYTES / 2
    orders = [order_of_axes(member.plan, model.plan) for member in model.members]
    return [
        open_logits(member, case, model.device, compute=fits, order=order)
        for member, case, order in zip(model.members, cases, orders)
    ]


def make_tiling(member: Member, device: torch.device, order: Order = OWN) -> Tiling:
    """Return how a member's plan cuts an image into tiles, whose axes are the plan's own ones in ``order``."""
    plan = member.plan
    turned = tuple(Turned(network, order) for network in member.networks)
    return Tiling(
        networks=member.networks if order == OWN else turned,
        patch_size=tuple(plan.training.patch_shape[axis] for axis in order),
        tile_step=plan.prediction.tile_step,
        mirror_axes=tuple(order.index(axis) for axis in plan.prediction.mirror_axes),
        num_outputs=plan.dataset.label_scheme.num_outputs,
        device=device,
        precision=plan.training.precision,
        batch_voxels=CPU_BATCH_VOXELS if device.type == "cpu" else BATCH_VOXELS,
    )


def open_logits(
    member: Member, case: PreprocessedCase, device: torch.device, *, compute: bool, order: Order = OWN
) -> Restorable:
    """Return a member's logits of a case, computed at once or when they are read.

    Args:
        member: whose networks.
        case: as they take it.
        device: where they are.
        compute: whether to compute at once.
        order: of the plan's own axes in the logits.
    """
    tiling, image = make_tiling(member, device, order), torch.from_numpy(case.image).permute(0, *(1 + a for a in order))
    z, y, x = (case.properties.shape[axis] for axis in order)
    opener = _open_whole(tiling, image) if compute else _open_stream(tiling, image)
    row_bytes = 0 if compute else tiling.row_bytes((z, y, x), SLAB_ROWS)
    axis = separate_axis_back(member.plan, case.properties)
    turned = None if axis is None else order.index(axis)
    return Restorable(opener, (z, y, x), turned, member.weight, row_bytes)


def _open_whole(tiling: Tiling, image: torch.Tensor) -> Opener:
    _, depth, rows, _ = image.shape
    logits = LogitStream(tiling, image, slice(0, rows), window=depth).read_whole()
    return lambda strip, window: WholeLogits(logits[:, :, strip])


def _open_stream(tiling: Tiling, image: torch.Tensor) -> Opener:
    return lambda strip, window: LogitStream(tiling, image, strip, window=window)
