"""Values of a space as Optuna keeps them: numbers as they are, lists and objects among choices as their JSON text."""

import json
from typing import TYPE_CHECKING, Any

from autoseg.tune.space import Parameter, Space

if TYPE_CHECKING:
    from optuna.trial import Trial


def suggest(trial: "Trial", space: Space) -> dict[str, Any]:
    """Return the trial's value of each parameter, chosen now unless it was before."""
    return {key: _suggest(trial, key, parameter) for key, parameter in space.parameters.items()}


def encode(space: Space, values: dict[str, Any]) -> dict[str, Any]:
    """Return values as Optuna keeps them."""
    return {key: _encode(space.parameters[key], value) for key, value in values.items()}


def decode(space: Space, kept: dict[str, Any]) -> dict[str, Any]:
    """Return what ``encode`` was given."""
    return {key: _decode(space.parameters[key], value) for key, value in kept.items()}


def _suggest(trial: "Trial", key: str, parameter: Parameter) -> Any:
    if parameter.choices is not None:
        chosen = trial.suggest_categorical(key, [_label(choice) for choice in parameter.choices])
        return _decode(parameter, chosen)
    low, high = parameter.low or 0, parameter.high or 0
    if parameter.is_whole:
        return trial.suggest_int(key, int(low), int(high), log=parameter.log, step=int(parameter.step or 1))
    return trial.suggest_float(key, float(low), float(high), log=parameter.log, step=parameter.step)


def _encode(parameter: Parameter, value: Any) -> Any:
    if parameter.choices is not None:
        return _label(value)
    return int(value) if parameter.is_whole else float(value)


def _decode(parameter: Parameter, value: Any) -> Any:
    if parameter.choices is None:
        return value
    return next(choice for choice in parameter.choices if _label(choice) == value)


def _label(choice: Any) -> Any:
    return json.dumps(choice) if isinstance(choice, list | tuple | dict) else choice
