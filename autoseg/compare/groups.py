"""Plans that differ in one thing: loss, optimiser, schedule, architecture, downsampling, or nothing but the seed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autoseg.compare.settings import differing_settings
from autoseg.errors import PlanError, nearest

SECTIONS = ("previous_stage", "dataset", "budget", "preprocessing", "network", "training", "prediction")
SEED = "training.seed"
SIZES = ("training.patch_size", "training.batch_size")
THINGS: dict[str, tuple[str, ...]] = {
    "loss": ("training.loss",),
    "optimizer": ("training.optimizer",),
    "schedule": ("training.schedule",),
    "architecture": (
        "network", *SIZES, "training.optimizer", "training.schedule", "training.deep_supervision",
        "training.gradient_clip", "training.precision", "training.augmentation.spatial",
    ),
    "downsample": (
        "preprocessing.downsample", "preprocessing.spacing", "network.config", *SIZES, "training.augmentation.spatial",
    ),
}  # fmt: skip
"""What may differ: the thing itself first, then what the planner derives from it."""
VALUES = {"architecture": "network.architecture"}
Content = Mapping[str, Any]


@dataclass(frozen=True)
class Keys:
    """Plans that differ in ``by`` alone, and the value of each; the first is the one to compare with."""

    by: str
    plans: tuple[str, ...]
    values: tuple[str, ...]


def group_plans(documents: Mapping[str, Content], by: str, first: str | None = None) -> list[Keys]:
    """Return the groups of plans that are equal but for one thing and what follows from it, each with two values or
    more.

    Args:
        documents: plan to its document.
        by: one of ``THINGS``.
        first: plan that leads its group.

    Raises:
        PlanError: there is no such thing to group by.
    """
    if by not in THINGS:
        raise PlanError(f"--by {by}: unknown; allowed: {', '.join(THINGS)}{nearest(by, THINGS)}")
    groups = _equal_but_for(documents, THINGS[by])
    ordered = [sorted(plans, key=lambda plan: plan != first) for plans in groups]
    named = [Keys(by, tuple(plans), _values({plan: documents[plan] for plan in plans}, by)) for plans in ordered]
    return [keys for keys in named if len(set(keys.values)) > 1]


def find_seeds(documents: Mapping[str, Content]) -> list[tuple[str, ...]]:
    """Return the groups of plans that differ in the seed alone, or build on plans that do."""
    spelt_out = {plan: _with_sources(document, documents, (plan,)) for plan, document in documents.items()}
    return [tuple(plans) for plans in _equal_but_for(spelt_out, (SEED,))]


def _with_sources(document: Content, documents: Mapping[str, Content], above: tuple[str, ...]) -> Content:
    """Return a plan in which the plans that it builds on stand in the place of their names, without their seeds."""

    def stand_in(name: str | None) -> Any:
        if name is None or name in above or not documents.get(name, {}).get("training"):
            return name
        source = _with_sources(documents[name], documents, (*above, name))
        return {section: _without(source.get(section), section, (SEED,)) for section in SECTIONS}

    training = document.get("training")
    if not training:
        return document
    weights = stand_in(training.get("initial_weights"))
    return {
        **document,
        "previous_stage": stand_in(document.get("previous_stage")),
        "training": {**training, "initial_weights": weights},
    }


def _equal_but_for(documents: Mapping[str, Content], paths: Sequence[str]) -> list[list[str]]:
    """Return the groups of two or more plans whose documents are equal without ``paths``; those without any are left
    out.
    """
    groups: dict[str, list[str]] = {}
    for plan, document in documents.items():
        if document.get("training"):
            kept = {section: _without(document.get(section), section, paths) for section in SECTIONS}
            groups.setdefault(json.dumps(kept, sort_keys=True), []).append(plan)
    return [plans for plans in groups.values() if len(plans) > 1]


def _without(value: Any, name: str, paths: Sequence[str]) -> Any:
    """Return a section without the fields of ``paths``; in a list of components an entry goes by its name."""
    if name in paths:
        return None
    if isinstance(value, Mapping):
        return {key: _without(item, f"{name}.{key}", paths) for key, item in value.items()}
    if isinstance(value, list):
        return [
            _without(i, f"{name}.{i['name']}", paths) if isinstance(i, Mapping) and "name" in i else i for i in value
        ]
    return value


def _values(documents: Mapping[str, Content], by: str) -> tuple[str, ...]:
    """Return the value of ``by`` in each plan; where one name serves several plans, with the parameters that differ."""
    path = VALUES.get(by, THINGS[by][0]).split(".")
    found = {plan: _at(document, path) for plan, document in documents.items()}
    names = {plan: str(value.get("name") if isinstance(value, Mapping) else value) for plan, value in found.items()}
    sections = {plan: {"network": value} for plan, value in found.items() if isinstance(value, Mapping)}
    table = differing_settings(sections) if len(set(names.values())) < len(names) else {}
    labels = []
    for plan, name in names.items():
        details = [f"{key.split('.', 1)[1]} {row[plan]}" for key, row in table.items() if row[plan]]
        details = [text for text in details if not text.startswith("name ")]
        labels.append(f"{name} ({', '.join(details)})" if details else name)
    return tuple(labels)


def _at(document: Content, path: Sequence[str]) -> Any:
    value: Any = document
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
