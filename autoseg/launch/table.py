"""Tables of runs: plans x folds (x seeds), as a document or from the command line, and the plans that they come to."""

import json
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from autoseg.documents import Document, parse_document, read_document
from autoseg.errors import DocumentError, PlanError, nearest
from autoseg.launch.prepare import DEFAULT_ARCHITECTURES, PlanRequest, check_request
from autoseg.plan.recipe import find_recipe
from autoseg.plan.variant import INITIAL_WEIGHTS

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
SHIPPED = files("autoseg.launch").joinpath("experiments")
"""The tables that come with the package; the repository shows them as plans/experiments/ too."""


class Row(Document):
    """One plan of a table.

    Attributes:
        name: of the plan. Alone it is a plan that there is already, or a recipe's own.
        architecture: recipe that a missing plan is derived from; null: see ``name``.
        base: plan that a missing plan is a variant of, ``from`` in the document.
        set: dotted field of the plan to its value, as ``autoseg_plan --set`` takes them.
    """

    name: str = Field(pattern=NAME)
    architecture: str | None = None
    base: str | None = Field(default=None, alias="from")
    set: dict[str, Any] = {}

    @model_validator(mode="after")
    def _check(self) -> "Row":
        if self.architecture and self.base:
            raise ValueError(f"{self.name}: 'architecture' and 'from' exclude each other; leave one out")
        if self.set and not (self.architecture or self.base):
            raise ValueError(f"{self.name}: 'set' needs an 'architecture' or a plan ('from') to change")
        return self


class Table(Document):
    """Plans x folds x seeds.

    Attributes:
        about: what the table is meant to show.
        plans: its rows.
        folds: numbers from 0; null: all folds of the dataset.
        seeds: trainings of each plan and fold, each with a seed of its own.
        baseline: row that the others are compared with; null: ``unet``.
        by: what ``autoseg_compare --by`` groups the plans by.
    """

    schema_: Literal["autoseg.table.1"] = Field(alias="schema")
    about: str = ""
    plans: tuple[Row, ...] = Field(min_length=1)
    folds: tuple[int, ...] | None = Field(default=None, min_length=1)
    seeds: int = Field(default=1, ge=1)
    baseline: str | None = None
    by: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> "Table":
        names = [row.name for row in self.plans]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"plans: {twice[0]!r} stands there twice; every row needs a name of its own")
        if self.baseline is not None and self.baseline not in names:
            raise ValueError(f"baseline: no row is named {self.baseline!r}{nearest(self.baseline, names)}")
        if self.folds and (min(self.folds) < 0 or len(set(self.folds)) < len(self.folds)):
            raise ValueError("folds: each stands once and counts from 0")
        return self


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One plan to run and how it comes about if there is none of its name.

    Attributes:
        name: of the plan.
        request: how it is made; None: it must be there.
        seed: 0, or how much the seed is above that of the plan ``request.base``.
    """

    name: str
    request: PlanRequest | None
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What the command line adds to every row.

    Attributes:
        assignments: ``KEY=VALUE`` texts.
        suffix: ending of the new plans' names, which these need.
        memory_gb: budget of plans that are derived; None: each recipe's own.
    """

    assignments: tuple[str, ...] = ()
    suffix: str | None = None
    memory_gb: float | None = None


def find_table(name: str) -> Table:
    """Return the table in the file ``name``, or the shipped one that is called so.

    Raises:
        DocumentError: there is neither, or the document has mistakes.
    """
    if Path(name).is_file():
        return read_document(Path(name), Table)
    shipped = {Path(path.name).stem: path for path in SHIPPED.iterdir() if path.name.endswith(".json")}
    if name not in shipped:
        known = ", ".join(sorted(shipped))
        raise DocumentError(
            f"--table {name}: no such file, and no shipped table; shipped: {known}{nearest(name, shipped)}"
        )
    return parse_document(shipped[name].read_text(encoding="utf-8"), Table, where=f"table {name}")


def make_table(plans: Sequence[str]) -> Table:
    """Return the table of plans named on the command line; without any, of the default architectures."""
    rows = [{"name": name.rsplit(".", 1)[-1], **({"architecture": name} if "." in name else {})} for name in plans]
    content = {"schema": "autoseg.table.1", "plans": rows or [{"name": name} for name in DEFAULT_ARCHITECTURES]}
    return parse_document(json.dumps(content), Table, where="-a")


def choose_rows(table: Table, names: Sequence[str]) -> Table:
    """Return the table with the rows ``names`` alone, all of them if none is given; its baseline goes with its row.

    Raises:
        PlanError: the table has no such row.
    """
    if not names:
        return table
    known = [row.name for row in table.plans]
    if wrong := [name for name in names if name not in known]:
        raise PlanError(f"-a {wrong[0]}: no row of the table; rows: {', '.join(known)}{nearest(wrong[0], known)}")
    rows = tuple(row for row in table.plans if row.name in names)
    baseline = table.baseline if table.baseline in names else None
    return table.model_copy(update={"plans": rows, "baseline": baseline})


def expand(table: Table, changes: Changes) -> list[Entry]:
    """Return every plan of the table, those with other seeds last.

    Raises:
        PlanError: ``changes`` has assignments and no suffix, or a row contradicts itself.
    """
    if changes.assignments and not changes.suffix:
        raise PlanError("--set: the changed plans need names of their own; add --name, e.g. --name short")
    if changes.suffix and not changes.assignments:
        raise PlanError(f"--name {changes.suffix}: nothing is changed; add --set KEY=VALUE")
    names = {row.name for row in table.plans}
    entries = [_make_entry(row, changes, names) for row in table.plans]
    return [seeded for seed in range(table.seeds) for seeded in (_with_seed(entry, seed) for entry in entries)]


def baseline_of(table: Table, changes: Changes) -> str:
    """Return the plan that the others are compared with."""
    return _full_name(table.baseline or "unet", changes)


def _full_name(name: str, changes: Changes) -> str:
    return f"{name}_{changes.suffix}" if changes.suffix else name


def _make_entry(row: Row, changes: Changes, names: Container[str]) -> Entry:
    given = tuple(f"{key}={json.dumps(value)}" for key, value in _with_full_names(row, changes, names).items())
    later = {text.partition("=")[0].strip() for text in changes.assignments}
    kept = tuple(text for text in given if text.partition("=")[0].strip() not in later)
    name, assignments = _full_name(row.name, changes), (*kept, *changes.assignments)
    architecture = row.architecture or (row.name if not row.base and _is_recipe(row.name) else None)
    if architecture:
        request = PlanRequest(
            architectures=(architecture,), name=name, assignments=assignments, memory_gb=changes.memory_gb
        )
    elif not assignments and not row.base:
        return Entry(name=name, request=None)
    else:
        request = PlanRequest(base=row.base or row.name, assignments=assignments, name=name)
    check_request(request)
    return Entry(name=name, request=request)


def _with_full_names(row: Row, changes: Changes, names: Container[str]) -> dict[str, Any]:
    """Return what a row sets; a row that it builds on goes by the name of its plan, which a suffix changes."""
    fields = dict(row.set)
    architecture = row.architecture or (row.name if not row.base and _is_recipe(row.name) else None)
    first = find_recipe(architecture).previous_stage if architecture and changes.suffix else None
    if first in names:
        fields.setdefault("previous_stage", first)
    for key in ("previous_stage", INITIAL_WEIGHTS):
        if isinstance(fields.get(key), str) and fields[key] in names:
            fields[key] = _full_name(fields[key], changes)
    return fields


def _is_recipe(name: str) -> bool:
    try:
        find_recipe(name)
    except PlanError:
        return False
    return True


def _with_seed(entry: Entry, seed: int) -> Entry:
    if not seed:
        return entry
    name = f"{entry.name}_seed{seed}"
    return replace(entry, name=name, seed=seed, request=PlanRequest(base=entry.name, name=name))
