"""In which order the plans of a table are made and trained: what a plan builds on comes before it.

A plan is made after the one that it is a variant of. It is trained after its first stage, all of whose folds it needs,
and after the same fold of the plan whose weights it starts from.
"""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from autoseg.data.workspace import Workspace
from autoseg.launch.prepare import PlanRequest
from autoseg.launch.status import RunKey
from autoseg.launch.table import Entry
from autoseg.plan.assignments import parse_assignments
from autoseg.plan.plan import read_plan
from autoseg.plan.recipe import find_recipe
from autoseg.plan.variant import INITIAL_WEIGHTS

T = TypeVar("T")


@dataclass(frozen=True)
class Needs:
    """The plans that a plan needs trained; None: no such.

    Attributes:
        first_stage: in all folds.
        initial_weights: in the same fold.
    """

    first_stage: str | None = None
    initial_weights: str | None = None


def sort_by_needs(items: Sequence[T], needs: Callable[[T], Iterable[T]]) -> list[T]:
    """Return the items in their order, but each after those that it needs, as far as these are among them.

    Where they need each other in a circle, which only documents edited by hand do, the one that comes first is last.
    """
    ordered: list[T] = []
    left = set(items)

    def place(item: T) -> None:
        if item in left:
            left.remove(item)
            for one in needs(item):
                place(one)
            ordered.append(item)

    for item in items:
        place(item)
    return ordered


def find_needs(entries: Sequence[Entry], workspace: Workspace, dataset: str) -> dict[str, Needs]:
    """Return what each plan of a table needs: what the plan says, or where it is still to be made, its row."""
    by_name = {entry.name: entry for entry in entries}
    found: dict[str, Needs] = {}

    def find(name: str) -> Needs:
        entry, path = by_name.get(name), workspace.plan(dataset, name)
        if name not in found:
            found[name] = Needs()  # of a plan that is made from itself
            if path.is_file():
                plan = read_plan(path)
                found[name] = Needs(plan.previous_stage, plan.training.initial_weights)
            elif entry is not None and entry.request is not None:
                base = find(entry.request.base) if entry.request.base else Needs()
                found[name] = _foresee(entry, entry.request, base, by_name)
        return found[name]

    return {name: find(name) for name in by_name}


def sort_entries(entries: Sequence[Entry], needs: Mapping[str, Needs]) -> list[Entry]:
    """Return the plans of a table in an order in which each can be made."""
    by_name = {entry.name: entry for entry in entries}

    def needed(name: str) -> list[str]:
        request, own = by_name[name].request, needs[name]
        names = (request.base if request else None, own.first_stage, own.initial_weights)
        return [one for one in names if one is not None]

    return [by_name[name] for name in sort_by_needs(list(by_name), needed)]


def sort_runs(keys: Sequence[RunKey], needs: Mapping[str, Needs]) -> dict[RunKey, tuple[RunKey, ...]]:
    """Return the runs in an order in which they can be trained, each with those of them that must be finished before.

    Args:
        keys: the runs that are to do.
        needs: plan to what it needs.
    """

    def needed(key: RunKey) -> list[RunKey]:
        own = needs.get(key.plan, Needs())
        source = RunKey(own.initial_weights or "", key.fold)
        return [one for one in keys if one.plan == own.first_stage or one == source]

    ordered = sort_by_needs(keys, needed)
    places = {key: place for place, key in enumerate(ordered)}
    return {key: tuple(one for one in needed(key) if places[one] < places[key]) for key in ordered}


def seeded_source(source: str | None, seed: int, names: Container[str]) -> str | None:
    """Return the plan that a repetition with another seed builds on: that plan's own repetition, if there is one in the
    table.
    """
    twin = f"{source}_seed{seed}"
    return twin if source is not None and seed and twin in names else source


def _foresee(entry: Entry, request: PlanRequest, base: Needs, names: Container[str]) -> Needs:
    """Return what a plan will need: what its row sets, else what the plan or the recipe needs that it is made from."""
    given = parse_assignments(request.assignments)
    if request.architectures:
        base = replace(base, first_stage=find_recipe(request.architectures[0]).previous_stage)
    first, weights = (seeded_source(one, entry.seed, names) for one in (base.first_stage, base.initial_weights))
    found = (given.get("previous_stage", first), given.get(INITIAL_WEIGHTS, weights))
    return Needs(*(name if isinstance(name, str) else None for name in found))
