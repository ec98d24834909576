"""What differs between plans, as a table: dotted name of the setting to one text a plan."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

SECTIONS = ("previous_stage", "budget", "preprocessing", "network", "training", "prediction")
NAMED = "name"
ABSENT = ""


def differing_settings(documents: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Return the settings whose values differ: dotted name to plan to text, empty where a plan has no such setting."""
    flat = {
        plan: {key: value for section in SECTIONS for key, value in _flatten(section, document.get(section, {}))}
        for plan, document in documents.items()
    }
    keys = dict.fromkeys(key for settings in flat.values() for key in settings)
    table = {key: {plan: settings.get(key, ABSENT) for plan, settings in flat.items()} for key in keys}
    return {key: row for key, row in table.items() if len(set(row.values())) > 1}


def _flatten(name: str, value: Any) -> list[tuple[str, str]]:
    """Return the leaves of a section; a list of named components becomes its names and each component's parameters."""
    if isinstance(value, Mapping):
        return [pair for key, item in value.items() for pair in _flatten(f"{name}.{key}", item)]
    if _is_components(value):
        names = [(name, ", ".join(item[NAMED] for item in value))]
        parameters = [
            pair
            for item in value
            for key, v in item.items()
            if key != NAMED
            for pair in _flatten(f"{name}.{item[NAMED]}.{key}", v)
        ]
        return names + parameters
    if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        return [pair for index, item in enumerate(value) for pair in _flatten(f"{name}.{index}", item)]
    return [(name, _text(value))]


def _is_components(value: Any) -> bool:
    return (
        isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) and NAMED in item for item in value)
    )


def _text(value: Any) -> str:
    if isinstance(value, list) and value and all(_is_number(item) for item in value):
        return " × ".join(_text(item) for item in value)
    if isinstance(value, list) and value and all(isinstance(item, list) for item in value):
        return _shorten([_text(item) for item in value])
    if _is_number(value):
        return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _shorten(texts: Sequence[str]) -> str:
    """Return texts in a row; equal neighbours once, with their number."""
    groups: list[tuple[str, int]] = []
    for text in texts:
        if groups and groups[-1][0] == text:
            groups[-1] = (text, groups[-1][1] + 1)
        else:
            groups.append((text, 1))
    return ", ".join(text if number == 1 else f"{number} of ({text})" for text, number in groups)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
