"""A variant: a plan with some fields set by hand, and whatever follows from them derived again."""

import json
from collections.abc import Sequence
from typing import Any

from autoseg.documents import parse_document
from autoseg.errors import AutosegError, DocumentError, PlanError, nearest
from autoseg.networks import load_architecture
from autoseg.plan import rules
from autoseg.plan.assignments import check_settable, parse_assignments
from autoseg.plan.augmentation import adapt, augmentation_entry, make_recipe, setting_of
from autoseg.plan.memory import Cost, Workload, measure_cost
from autoseg.plan.optimization import Adam, AdamW, Cosine, Cyclic, OneCycle, Plateau, Poly, RmsProp, Sgd, Step
from autoseg.plan.plan import Estimate, Plan
from autoseg.plan.planner import loss_entry
from autoseg.plan.rationale import explain_cost, times
from autoseg.plurals import count

Content = dict[str, Any]
"""A plan as plain JSON values."""

_OPTIMIZERS = {"sgd": Sgd, "adam": Adam, "adamw": AdamW, "rmsprop": RmsProp}
_SCHEDULES = {
    "poly": Poly, "cosine": Cosine, "step": Step, "plateau": Plateau, "cyclic": Cyclic, "one_cycle": OneCycle,
}  # fmt: skip
INITIAL_WEIGHTS = "training.initial_weights"
_LENGTH = ("training.epochs", "training.iterations_per_epoch")


def make_variant(plan: Plan, name: str, assignments: Sequence[str]) -> Plan:
    """Return ``plan`` under a new name with ``KEY=VALUE`` assignments applied, e.g. ``training.epochs=20``.

    Keys are dotted, list entries by index; values are JSON, else text. Naming another loss, optimiser, schedule or
    augmentation brings its own defaults; another patch size, spacing or architecture derives the network again unless
    ``network.config`` is set too; a previous stage brings its channels and augmentations; a short training gets the
    recipe for short trainings, but for what is set, unless it starts from trained weights; the estimate follows.

    Raises:
        DocumentError: an unknown key or a value that does not fit.
        PlanError: a component that does not exist, or a plan that cannot be built.
    """
    return with_estimate(vary(plan, name, assignments), plan)


def vary(plan: Plan, name: str, assignments: Sequence[str]) -> Plan:
    """Return what ``make_variant`` does, with the estimate as it was: building the network takes seconds."""
    parsed = parse_assignments(assignments)
    content = json.loads(plan.model_dump_json(by_alias=True))
    content["name"] = name
    ordered = sorted(
        parsed.items(), key=lambda item: not _selects_component(item[0])
    )  # names first: they bring defaults
    for key, value in ordered:
        _assign(content, key, value)
    _follow_downsample(content, plan, parsed)
    _follow_grid(content, plan, parsed)
    _follow_length(content, plan, parsed)
    _follow_initial_weights(content, parsed)
    _follow_mirroring(content, plan, parsed)
    return parse_document(json.dumps(content), Plan, where=f"plan {name}")


def _assign(content: Content, key: str, value: Any) -> None:
    """Set one field, with what its section needs around it, and write down what it was."""
    *parents, last = key.split(".")
    check_settable(key)
    owner = _find(content, parents, key)
    if key == INITIAL_WEIGHTS:
        owner.setdefault(last, None)  # a plan without has no such field
    old = _find(owner, [last], key)
    index = int(last) if isinstance(owner, list) else last
    owner[index] = value
    topic = key
    if _selects_component(key):
        topic = ".".join(parents)
        _swap_component(content, parents, value)
    elif key == "training.augmentation":
        owner[index] = _augmentation(content, value)
    content["rationale"][topic] = f"{last} was set to {json.dumps(value)} by hand; it was {_short(old)}."


def _find(content: Any, path: Sequence[str], key: str) -> Any:
    """Return the value at ``path``; ``key`` is the whole key, for the message."""
    current = content
    for part in path:
        if isinstance(current, list):
            if not part.isdigit() or int(part) >= len(current):
                raise DocumentError(
                    f"--set {key}: {part!r} is no entry of a list of {len(current)}; entries count from 0"
                )
            current = current[int(part)]
        elif isinstance(current, dict) and part in current:
            current = current[part]
        elif isinstance(current, dict):
            known = ", ".join(current)
            raise DocumentError(f"--set {key}: unknown field {part!r}{nearest(part, current)}; known here: {known}")
        else:
            raise DocumentError(
                f"--set {key}: there is nothing below a single value ({json.dumps(current)}); drop .{part}"
            )
    return current


def _selects_component(key: str) -> bool:
    """Whether the key names a component, so that its section must become that component's own."""
    parts = key.split(".")
    if key == "network.architecture":
        return True
    is_section = key in ("training.loss.name", "training.optimizer.name", "training.schedule.name")
    return is_section or (len(parts) == 4 and parts[:2] == ["training", "augmentation"] and parts[3] == "name")


def _swap_component(content: Content, section: Sequence[str], name: Any) -> None:
    """Replace a section by the defaults of the component that ``name`` selects."""
    training = content["training"]
    kind = section[1] if len(section) > 1 else "architecture"
    if kind == "loss":
        batch_dice = bool(training["loss"].get("batch_dice", False))
        training["loss"] = loss_entry(str(name), batch_dice=batch_dice)
    elif kind == "optimizer":
        training["optimizer"] = _optimizer_entry(name)
    elif kind == "schedule":
        found = _choose(_SCHEDULES, name, "schedule")
        training["schedule"] = found().model_dump(mode="json")
    elif kind == "augmentation":
        training["augmentation"][int(section[2])] = augmentation_entry(str(name), setting_of(content))


def _augmentation(content: Content, value: Any) -> Any:
    """Return the list of augmentations that a recipe's name, or a list of names and sections, means."""
    setting = setting_of(content)
    if isinstance(value, str):
        return make_recipe(value, setting)
    if not isinstance(value, list):
        return value  # reported when the whole plan is validated
    return [augmentation_entry(one, setting) if isinstance(one, str) else one for one in value]


def _optimizer_entry(name: Any, learning_rate: float | None = None) -> Content:
    found = _choose(_OPTIMIZERS, name, "optimizer")
    entry: Content = found(learning_rate=learning_rate or rules.LEARNING_RATES[name]).model_dump(mode="json")
    return entry


def _choose(known: dict[str, Any], name: Any, kind: str) -> Any:
    if name not in known:
        raise DocumentError(
            f"training.{kind}.name: unknown {name!r}{nearest(str(name), known)}; known: {', '.join(known)}"
        )
    return known[name]


def _follow_downsample(content: Content, plan: Plan, parsed: Content) -> None:
    """Coarsen the spacing where the factor of downsampling was set without it."""
    factor = parsed.get("preprocessing.downsample")
    if not isinstance(factor, int | float) or factor <= 0 or _sets(parsed, "preprocessing.spacing"):
        return
    section = content["preprocessing"]
    already = plan.preprocessing.downsample
    section["spacing"] = [value and value / already * factor for value in section["spacing"]]
    content["rationale"]["preprocessing.spacing"] = f"The median spacing, coarsened {factor:g} times by hand."


def _follow_grid(content: Content, plan: Plan, parsed: Content) -> None:
    """Derive the network and the augmentation again for another patch size, spacing or architecture."""
    training, network = content["training"], content["network"]
    patch_size = training["patch_size"]
    if not _are_sizes(patch_size):
        return  # reported when the whole plan is validated
    _follow_setting(content, plan, parsed)
    causes = ("training.patch_size", "preprocessing.spacing", "preprocessing.downsample", "network.architecture")
    if _sets(parsed, "network.config") or not any(_sets(parsed, cause) for cause in causes):
        return
    spacing = content["preprocessing"]["spacing"][-len(patch_size) :]
    if len(spacing) != len(patch_size) or not all(isinstance(v, int | float) and v > 0 for v in spacing):
        return  # reported when the whole plan is validated
    architecture = load_architecture(str(network["architecture"]))
    network["config"] = architecture.derive(tuple(spacing), tuple(patch_size)).model_dump(mode="json")
    for stale in [key for key in content["rationale"] if key.startswith("network.config")]:
        del content["rationale"][stale]
    reason = f"Derived again for patches of {times(patch_size)} voxels of {times(spacing)} mm."
    content["rationale"]["network.config"] = reason


def _follow_setting(content: Content, plan: Plan, parsed: Content) -> None:
    """Adapt the augmentations to another patch size or normalisation; sections that were set by hand stay."""
    given = parsed.get("training.augmentation")
    by_hand = any(key.startswith("training.augmentation.") for key in parsed)
    by_hand = by_hand or (isinstance(given, list) and not all(isinstance(one, str) for one in given))
    entries = content["training"]["augmentation"]
    if by_hand or not isinstance(entries, list):
        return
    old = setting_of(json.loads(plan.model_dump_json(by_alias=True)))
    content["training"]["augmentation"] = adapt(entries, old, setting_of(content))


def _follow_length(content: Content, plan: Plan, parsed: Content) -> None:
    """Take the recipe for short trainings when the training was shortened below the limit."""
    training, rationale = content["training"], content["rationale"]
    lengths = (training["epochs"], training["iterations_per_epoch"])
    if not _are_sizes(lengths) or not any(key in parsed for key in _LENGTH):
        return
    total = lengths[0] * lengths[1]
    rationale["training.epochs"] = (
        f"{count(lengths[0], 'epoch')} of {count(lengths[1], 'iteration')}, {total} in all, set by hand."
    )
    if total >= rules.SHORT_ITERATIONS:
        return
    was_long = plan.training.epochs * plan.training.iterations_per_epoch >= rules.SHORT_ITERATIONS
    warmup = min(rules.SHORT_WARMUP_ITERATIONS, int(rules.SHORT_WARMUP_PART * total))
    reason = (
        f"A training of {count(total, 'iteration')}, under {rules.SHORT_ITERATIONS}, is too short for the "
        f"full-length recipe"
    )
    # what is trained already needs no recipe to get far soon
    adapts = was_long and not training.get("initial_weights")
    if adapts and not _sets(parsed, "training.augmentation"):
        _shorten_augmentation(training, total)
        kept = "mirroring alone" if training["augmentation"] else "no augmentation"
        rationale["training.augmentation"] = f"{reason}, and to overfit; {kept} learns fastest."
    if adapts and not _sets(parsed, "training.optimizer"):
        _shorten_optimizer(content, plan)
        rationale["training.optimizer"] = f"{reason}; AdamW with a higher learning rate gets further in the time."
        if not _sets(parsed, "training.schedule"):
            training["schedule"] = Poly(warmup_iterations=warmup).model_dump(mode="json")
            rationale["training.schedule"] = f"{reason}: polynomial decay after {warmup} warm-up iterations."
    elif not _sets(parsed, "training.schedule") and training["schedule"]["warmup_iterations"] > warmup:
        training["schedule"]["warmup_iterations"] = warmup
        rationale["training.schedule"] = f"{reason}: the warm-up was cut to {warmup} iterations."


def _follow_initial_weights(content: Content, parsed: Content) -> None:
    """Tell what a training that starts from another plan's weights takes from there, and what it does not."""
    if INITIAL_WEIGHTS not in parsed:
        return
    source = parsed[INITIAL_WEIGHTS]
    content["rationale"][INITIAL_WEIGHTS] = (
        "Set to null by hand: the weights are drawn at random."
        if source is None
        else f"Set by hand: each fold starts from the last checkpoint of the same fold of {source}, which has seen the "
        f"same training cases; the optimiser and the schedule start afresh."
    )


def _follow_mirroring(content: Content, plan: Plan, parsed: Content) -> None:
    """Predict without mirroring along axes that training, whose augmentation was changed, never mirrors."""
    entries, section = content["training"]["augmentation"], content["prediction"]
    before = [entry.model_dump(mode="json") for entry in plan.training.augmentation]
    if not isinstance(entries, list) or entries == before:
        return
    mirrors = [entry for entry in entries if isinstance(entry, dict) and entry.get("name") == "mirror"]
    trained = {axis for entry in mirrors for axis in entry.get("axes", ())}
    kept = [axis for axis in section["mirror_axes"] if axis in trained]
    if kept != section["mirror_axes"] and not _sets(parsed, "prediction.mirror_axes"):
        section["mirror_axes"] = kept
        reason = "A network that never saw mirrored images segments them badly, so only these axes are mirrored."
        content["rationale"]["prediction.mirror_axes"] = reason


def _shorten_optimizer(content: Content, plan: Plan) -> None:
    """Use AdamW; an architecture that uses it already keeps its settings with a raised learning rate."""
    own = load_architecture(plan.network.architecture).TRAINING.optimizer
    if own["name"] == "adamw":
        raised = own["learning_rate"] * rules.SHORT_LEARNING_RATE_FACTOR
        content["training"]["optimizer"] = {**_optimizer_entry("adamw"), **own, "learning_rate": raised}
    else:
        content["training"]["optimizer"] = {
            **_optimizer_entry("adamw", rules.SHORT_LEARNING_RATE), "weight_decay": rules.SHORT_WEIGHT_DECAY,
        }  # fmt: skip


def _shorten_augmentation(training: Content, total: int) -> None:
    kept = rules.SHORT_AUGMENTATION if total >= rules.BRIEF_ITERATIONS else ()
    training["augmentation"] = [entry for entry in training["augmentation"] if entry["name"] in kept]


def measure_plan(plan: Plan, batch_size: int) -> Cost:
    """Return what an iteration of a plan costs with another batch size, or its own."""
    training = plan.training
    workload = Workload(
        architecture=load_architecture(plan.network.architecture),
        in_channels=len(plan.dataset.channels) + plan.num_previous_classes,
        out_channels=plan.dataset.label_scheme.num_outputs,
        precision=training.precision,
        optimizer=training.optimizer.name,
        deep_supervision=training.deep_supervision,
    )
    return measure_cost(workload, plan.network.architecture_config, training.patch_size, batch_size)


def with_estimate(variant: Plan, plan: Plan) -> Plan:
    """Return the variant with its own estimate, if anything that it depends on differs from the plan.

    Raises:
        PlanError: the network cannot be built, or not run at the patch size.
    """
    if _cost_inputs(variant) == _cost_inputs(plan):
        return variant
    training = variant.training
    try:
        cost = measure_plan(variant, training.batch_size)
    except AutosegError:
        raise
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise PlanError(
            f"plan {variant.name}: the network cannot be run at patch size {list(training.patch_size)} ({reason}); "
            f"set network.config and training.patch_size so that they fit each other"
        ) from error
    sentence = explain_cost(cost, variant.budget.memory_gb)
    rationale = {**variant.rationale, "estimate": sentence}
    estimate: Estimate = cost.estimate
    return variant.model_copy(update={"estimate": estimate, "rationale": rationale})


def _cost_inputs(plan: Plan) -> tuple[Any, ...]:
    training = plan.training
    sizes = (training.patch_size, training.batch_size)
    return (
        plan.network,
        plan.num_previous_classes,
        *sizes,
        training.precision,
        training.optimizer.name,
        training.deep_supervision,
    )


def _sets(parsed: Content, key: str) -> bool:
    """Whether an assignment sets the field or anything below it."""
    return any(name == key or name.startswith(f"{key}.") for name in parsed)


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list | tuple) and all(type(value) is int and value > 0 for value in values)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
