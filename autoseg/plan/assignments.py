"""What ``--set KEY=VALUE`` says, and what of it can be refused before there is a plan."""

import json
from collections.abc import Sequence
from typing import Any

from autoseg.documents import Document
from autoseg.errors import DocumentError, nearest
from autoseg.plan.plan import Plan

NOT_SETTABLE = {
    "schema": "it says how to read the file",
    "name": "give the variant's name with --name",
    "dataset": "it describes the data",
    "budget": "plan again with --memory",
    "estimate": "it is derived from the other fields",
    "rationale": "it is derived from the other fields",
}


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """Return key to value of ``KEY=VALUE`` texts; a value is JSON, else text.

    Raises:
        DocumentError: a text is not of this form, or a key is given twice.
    """
    parsed: dict[str, Any] = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not key:
            raise DocumentError(f"--set {text}: expected KEY=VALUE, e.g. training.epochs=20")
        if key in parsed:
            raise DocumentError(f"--set {text}: {key} is set twice; give it once")
        try:
            parsed[key] = json.loads(value)
        except json.JSONDecodeError:
            parsed[key] = value.strip()
    return parsed


def check_assignments(assignments: Sequence[str]) -> None:
    """Refuse what is wrong with any plan: the form of a text, a field that no plan has or that cannot be set.

    Raises:
        DocumentError: so.
    """
    for key in parse_assignments(assignments):
        check_settable(key)
        _check_field(key)


def check_settable(key: str) -> None:
    """Refuse a field that follows from others.

    Raises:
        DocumentError: it does.
    """
    top = key.split(".")[0]
    if top in NOT_SETTABLE:
        raise DocumentError(f"--set {key}: {top!r} cannot be set: {NOT_SETTABLE[top]}")


def _check_field(key: str) -> None:
    """Follow a key through the sections of a plan; below what is no section, it depends on the plan."""
    section: Any = Plan
    for part in key.split("."):
        if part not in (fields := {field.alias or name: field for name, field in section.model_fields.items()}):
            known = ", ".join(fields)
            raise DocumentError(f"--set {key}: unknown field {part!r}{nearest(part, fields)}; known here: {known}")
        section = fields[part].annotation
        closed = isinstance(section, type) and issubclass(section, Document)
        if not closed or section.model_config.get("extra") == "allow":
            return
