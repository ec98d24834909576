"""The plan document: all that is needed to preprocess, train and predict with one architecture on one dataset.

It is complete (no defaults are filled in on load, but for ``training.initial_weights``), closed and versioned. All
spatial lists are in array order (z, y, x) after ``preprocessing.transpose``; spacing in millimetres; sizes in voxels.
It holds no paths and no machine settings.
"""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from autoseg.augment import CASCADE_AUGMENTATIONS, load_augmentation
from autoseg.data.labels import Labels, Region
from autoseg.data.workspace import RESERVED_NAMES, check_plan_exists
from autoseg.documents import Document, parse_document, read_document
from autoseg.errors import DocumentError, PlanError, nearest
from autoseg.losses import load_loss
from autoseg.networks import dimensions_of, load_architecture
from autoseg.plan.optimization import Optimizer, Schedule

SCHEMA = "autoseg.plan.1"
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"


class Component(Document):
    """A named one-file component with its own parameters beside the name, all of them written out."""

    model_config = ConfigDict(extra="allow")
    name: str

    @property
    def parameters(self) -> dict[str, Any]:
        """The fields other than the name."""
        return dict(self.model_extra or {})


class PlanDataset(Document):
    """What the plan must know of its dataset."""

    name: str
    channels: tuple[str, ...]
    labels: dict[str, int]
    regions: dict[str, Region]
    fingerprint_sha256: str

    @property
    def label_scheme(self) -> Labels:
        """Labels and regions as one object."""
        return Labels(labels=self.labels, regions=self.regions)


class Budget(Document):
    """What the plan may use: device memory in gigabytes (10^9 bytes) while training."""

    memory_gb: float = Field(gt=0)


class Normalization(Document):
    """How one channel's intensities become the network's input.

    ``ct``: clip to [lower, upper], subtract mean, divide by std (all from the fingerprint). ``zscore``: the image's
    own mean and standard deviation, within the nonzero mask if ``use_mask``. ``rescale``: the image's range to [0, 1].
    ``rgb``: divide by 255. ``none``: as stored. lower, upper, mean and std are null except for ``ct``.
    """

    scheme: Literal["ct", "zscore", "rescale", "rgb", "none"]
    use_mask: bool
    lower: float | None
    upper: float | None
    mean: float | None
    std: float | None


class Preprocessing(Document):
    """How a raw case becomes a preprocessed one; plans with equal sections share one preprocessed folder.

    Attributes:
        orientation: anatomical orientation that every case is brought to, SimpleITK code of the x, y and z axes.
        transpose: which (z, y, x) axis of the canonical image becomes which axis of the preprocessed one.
        spacing: target spacing, after ``transpose``. The first is null for networks in 2-D: each case keeps its own
            there.
        downsample: the factor by which ``spacing`` was coarsened on request; 1 is none.
        normalization: one entry a channel.
        image_order: spline order of image resampling.
        label_order: 1 for class-wise linear interpolation of labels, 0 for nearest neighbour.
        separate_axis_threshold: above this ratio of the largest to the smallest spacing the coarse axis is resampled
            by nearest neighbour.
    """

    orientation: Literal["LPS"]
    transpose: tuple[int, int, int]
    spacing: tuple[float | None, float, float]
    downsample: float = Field(gt=0)
    normalization: tuple[Normalization, ...]
    image_order: Literal[0, 1, 3]
    label_order: Literal[0, 1]
    separate_axis_threshold: float

    def spacing_of(self, case_spacing: tuple[float, float, float]) -> tuple[float, float, float]:
        """Return the target spacing of a case, after ``transpose``, from its own."""
        z, y, x = self.spacing
        return case_spacing[0] if z is None else z, y, x


class Network(Document):
    """The architecture (a file of autoseg/networks, or a module of the user's) and its own configuration."""

    architecture: str
    config: dict[str, Any]

    @property
    def architecture_config(self) -> Document:
        """The configuration as the architecture's own document."""
        config: Document = parse_config(load_architecture(self.architecture).Config, self.config, "network.config")
        return config


class Training(Document):
    """One training of one fold. The patch size has two entries, (y, x), where the network is 2-D and sees slices.

    Attributes:
        gradient_accumulation: batches whose gradients are averaged for one step of the optimiser.
        gradient_clip: largest gradient norm; null: no limit.
        class_weights: weights in the loss of labels by name (of regions, where they overlap); who is not named has 1.
        ema_decay: decay a step of an exponential moving average of the weights, which is then what is validated and
            predicted with; null: none.
        early_stopping: epochs without a better smoothed validation Dice after which training ends; null: never.
        on_nan: whether a loss that is not finite ends the training, or its step is left out.
        initial_weights: name of the plan whose finished run of the same fold gives the weights to start from; null, or
            left out: they are drawn at random.
    """

    patch_size: tuple[int, ...] = Field(min_length=2, max_length=3)
    batch_size: int = Field(ge=1)
    epochs: int = Field(ge=1)
    iterations_per_epoch: int = Field(ge=1)
    validation_iterations: int = Field(ge=0)
    loss: Component
    optimizer: Optimizer = Field(discriminator="name")
    schedule: Schedule = Field(discriminator="name")
    augmentation: tuple[Component, ...]
    foreground_oversampling: float = Field(ge=0, le=1)
    deep_supervision: bool
    gradient_accumulation: int = Field(ge=1)
    gradient_clip: float | None
    class_weights: dict[str, float]
    ema_decay: float | None = Field(gt=0, lt=1)
    early_stopping: int | None = Field(ge=1)
    on_nan: Literal["stop", "skip"]
    precision: Literal["bf16", "fp16", "fp32"]
    seed: int = Field(ge=0)
    initial_weights: str | None = Field(default=None, pattern=NAME)

    @model_serializer(mode="wrap")
    def _leave_out_null(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write plans without initial weights, and hash them, as before there were any."""
        content: dict[str, Any] = write(self)
        if self.initial_weights is None:
            content.pop("initial_weights", None)
        return content

    @property
    def dimensions(self) -> int:
        """Number of spatial axes that the network sees."""
        return len(self.patch_size)

    @property
    def patch_shape(self) -> tuple[int, int, int]:
        """The patch as a box of a volume: one slice where the network is 2-D."""
        *depth, y, x = self.patch_size
        return depth[0] if depth else 1, y, x


class Prediction(Document):
    """How whole volumes are segmented and scored.

    Attributes:
        tile_step: distance between tiles as a part of the patch size.
        mirror_axes: spatial axes (0, 1, 2) whose mirrored predictions are averaged, in every combination.
        surface_tolerance_mm: tolerance of the normalised surface Dice, in mm.
    """

    tile_step: float = Field(gt=0, le=1)
    mirror_axes: tuple[int, ...]
    surface_tolerance_mm: float = Field(gt=0)


class Estimate(Document):
    """What one training iteration is predicted to need. Operations count a multiplication and an addition as two."""

    memory_gb: float
    parameters: int
    flops_per_iteration: int


def _nearest_sizes(size: int, factor: int) -> str:
    below = size - size % factor
    return f"the nearest are {below} and {below + factor}" if below else f"the smallest is {factor}"


class Plan(Document):
    """One complete plan.

    Attributes:
        previous_stage: name of the plan whose segmentation enters the network as further channels, one a foreground
            class (a cascade of two stages); null: the network sees the image alone.
    """

    schema_: Literal["autoseg.plan.1"] = Field(alias="schema")
    name: str = Field(pattern=NAME)
    previous_stage: str | None
    dataset: PlanDataset
    budget: Budget
    preprocessing: Preprocessing
    network: Network
    training: Training
    prediction: Prediction
    estimate: Estimate
    rationale: dict[str, str]

    @property
    def num_previous_classes(self) -> int:
        """Number of channels that tell what the previous stage found: the foreground classes; 0 without one."""
        return self.dataset.label_scheme.num_classes - 1 if self.previous_stage else 0

    @model_validator(mode="after")
    def _check(self) -> "Plan":
        problems = [*self._component_problems(), *self._size_problems(), *self._cascade_problems()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _component_problems(self) -> list[str]:
        """Check every component against its own file."""
        training = self.training
        checks: list[tuple[str, Any]] = [
            ("network", lambda: self.network.architecture_config),
            ("training.loss", lambda: _parse_component(load_loss(training.loss.name), training.loss, "training.loss")),
        ]
        for index, entry in enumerate(training.augmentation):
            where = f"training.augmentation.{index}"
            checks.append((where, partial(_check_augmentation, entry, where)))
        return [problem for where, check in checks if (problem := _problem(where, check))]

    def _size_problems(self) -> list[str]:
        problems = []
        if self.name in RESERVED_NAMES:
            problems.append(f"name: {self.name!r} is reserved; choose another")
        if len(self.preprocessing.normalization) != len(self.dataset.channels):
            problems.append(
                f"preprocessing.normalization: {len(self.preprocessing.normalization)} entries for "
                f"{len(self.dataset.channels)} channels"
            )
        if sorted(self.preprocessing.transpose) != [0, 1, 2]:
            problems.append(
                f"preprocessing.transpose: {list(self.preprocessing.transpose)} is no order of the axes 0, 1, 2"
            )
        if self.training.initial_weights == self.name:
            problems.append(f"training.initial_weights: {self.name!r} is the plan itself; name another plan")
        problems += _weight_problems(self.training.class_weights, self.dataset.label_scheme.output_names)
        return problems + self._dimension_problems() + self._divisibility_problems()

    def _cascade_problems(self) -> list[str]:
        """Check what concerns the previous stage, or the lack of one."""
        if self.previous_stage is None:
            return [
                f"training.augmentation.{index} ({entry.name}): changes what a previous stage found, but "
                f"previous_stage is null; leave it out"
                for index, entry in enumerate(self.training.augmentation)
                if entry.name in CASCADE_AUGMENTATIONS
            ]
        if self.previous_stage == self.name:
            return [f"previous_stage: {self.name!r} is the plan itself; name another plan"]
        values = self.dataset.label_scheme.class_values
        return [
            f"previous_stage: region {name!r} is written as {region.value}, which is no label, so that a cascade "
            f"cannot read it back; the labels are {list(values)}"
            for name, region in self.dataset.regions.items()
            if region.value not in values
        ]

    def _dimension_problems(self) -> list[str]:
        """Check that patch, spacing and network have the same number of axes."""
        spacing, patch_size = self.preprocessing.spacing, self.training.patch_size
        problems = []
        if any(value is not None and value <= 0 for value in spacing):
            problems.append(f"preprocessing.spacing: {list(spacing)}, but spacings are above 0 mm")
        if (spacing[0] is None) != (len(patch_size) == 2):
            problems.append(
                f"preprocessing.spacing[0] is {spacing[0]} for a patch of {len(patch_size)} axes; it is null for 2 "
                f"and a number for 3"
            )
        try:
            wanted = dimensions_of(load_architecture(self.network.architecture))
        except PlanError:
            return problems  # reported with the components
        if len(patch_size) not in wanted:
            problems.append(
                f"training.patch_size: {len(patch_size)} axes, but {self.network.architecture} takes {wanted}"
            )
        return problems

    def _divisibility_problems(self) -> list[str]:
        try:
            architecture = load_architecture(self.network.architecture)
            divisor = architecture.divisor(self.network.architecture_config)
        except (DocumentError, PlanError):
            return []  # reported with the components
        if len(divisor) != len(self.training.patch_size):
            found = len(self.training.patch_size)
            return [f"network.config: for {len(divisor)} axes, but training.patch_size has {found}"]
        return [
            f"training.patch_size[{axis}] is {size}, which the network's factor {factor} does not divide; "
            f"{_nearest_sizes(size, factor)}"
            for axis, (size, factor) in enumerate(zip(self.training.patch_size, divisor))
            if size % factor or size < factor
        ]


def _weight_problems(weights: dict[str, float], names: tuple[str, ...]) -> list[str]:
    where = "training.class_weights"
    if unknown := [name for name in weights if name not in names]:
        return [f"{where}: {unknown[0]!r} is unknown; allowed: {', '.join(names)}{nearest(unknown[0], names)}"]
    if below := [name for name, weight in weights.items() if not 0 <= weight < math.inf]:
        return [f"{where}: {below[0]} has {weights[below[0]]}; allowed are finite numbers from 0 on"]
    if not sum(weights.get(name, 1.0) for name in names) > 0:
        return [f"{where}: all are 0; one at least must count"]
    return []


def read_plan(path: Path) -> Plan:
    """Read a plan document.

    Raises:
        PlanError: there is no such plan; the message names those that there are.
        DocumentError: the plan is not valid.
    """
    check_plan_exists(path)
    return read_document(path, Plan)


def parse_config(document_class: type[Any], parameters: dict[str, Any], where: str) -> Any:
    """Validate a component's parameters strictly and completely: every field must be given.

    Raises:
        DocumentError: an unknown, missing or unfit field.
    """
    missing = [name for name in document_class.model_fields if name not in parameters]
    if missing:
        raise DocumentError(f"{where}: fields {missing} are missing")
    return parse_document(json.dumps(parameters), document_class, where=where)


def _check_augmentation(entry: Component, where: str) -> Any:
    return _parse_component(load_augmentation(entry.name), entry, where)


def _parse_component(module: Any, entry: Component, where: str) -> Any:
    return parse_config(module.Config, entry.parameters, where)


def _problem(where: str, check: Any) -> str | None:
    try:
        check()
    except (DocumentError, PlanError) as error:
        text = str(error)
        return text if text.startswith(where) else f"{where}: {text}"
    return None
