"""Plans told to people: each number of one plan with its reason, and what differs between two."""

import json
from typing import Any

from autoseg.plan.plan import Plan

Content = dict[str, Any]

ORDER = ("previous_stage", "dataset", "budget", "preprocessing", "network", "training", "prediction", "estimate")
"""The sections of a plan in the order in which a story tells them."""

NOT_COMPARED = ("schema", "rationale")


def tell(plan: Plan) -> list[tuple[str, str, str]]:
    """Return dotted field, its value as text and the sentence that explains it, in the plan's order.

    A field whose section is explained as a whole is told with it.
    """
    content = json.loads(plan.model_dump_json(by_alias=True))
    explained = sorted(plan.rationale, key=_place)
    return [(key, _as_text(_find(content, key)), plan.rationale[key]) for key in explained]


def differences(first: Plan, second: Plan) -> list[tuple[str, str, str]]:
    """Return each dotted field that differs, with its text in either plan; ``-`` where a plan has no such field."""
    one, other = (_flatten(json.loads(plan.model_dump_json(by_alias=True))) for plan in (first, second))
    keys = [key for key in dict.fromkeys([*one, *other]) if key.split(".")[0] not in NOT_COMPARED]
    return [(key, one.get(key, "-"), other.get(key, "-")) for key in keys if one.get(key) != other.get(key)]


def _place(key: str) -> int:
    section = key.split(".")[0]
    return ORDER.index(section) if section in ORDER else len(ORDER)


def _find(content: Any, key: str) -> Any:
    for part in key.split("."):
        if isinstance(content, list):
            content = content[int(part)] if part.isdigit() and int(part) < len(content) else None
        else:
            content = content.get(part) if isinstance(content, dict) else None
    return content


def _as_text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_as_text(item)}" for key, item in value.items())
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return "; ".join(_as_text(item) for item in value)
    return f"{value:.6g}" if isinstance(value, float) else json.dumps(value) if not isinstance(value, str) else value


def _flatten(value: Any, key: str = "") -> dict[str, str]:
    """Return dotted key to text of all single values and lists of such; objects in lists go by their names."""
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        value = {_entry_key(index, item, value): item for index, item in enumerate(value)}
    if not isinstance(value, dict) or not value:
        return {key: _as_text(value)}
    parts: dict[str, str] = {}
    for name, item in value.items():
        parts |= _flatten(item, f"{key}.{name}" if key else name)
    return parts


def _entry_key(index: int, item: Any, entries: list[Any]) -> str:
    """Return an entry's name, with its number among those of the same name, or its position if it has none."""
    name = item.get("name") if isinstance(item, dict) else None
    if name is None:
        return str(index)
    before = sum(1 for entry in entries[:index] if isinstance(entry, dict) and entry.get("name") == name)
    return f"{name}{before + 1}" if before else str(name)
