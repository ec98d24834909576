"""The search space: a small document of what is varied, each a field of the plan or one of the ``KNOBS``."""

import json
import math
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from autoseg.documents import Document, format_json, parse_document, read_document
from autoseg.errors import DocumentError, nearest
from autoseg.plan.assignments import NOT_SETTABLE
from autoseg.plan.plan import Plan
from autoseg.tune.knobs import KNOBS


class Parameter(Document):
    """What is varied: either ``choices``, or numbers from ``low`` to ``high``, whole ones if both ends are.

    Attributes:
        choices: JSON values, two at least.
        low: the least number. high: the largest.
        log: whether numbers are drawn evenly in their logarithm.
        step: distance of the numbers from ``low`` on; null: any.
    """

    choices: tuple[Any, ...] | None = None
    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    step: int | float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _check(self) -> "Parameter":
        if (self.choices is None) == (self.low is None and self.high is None):
            raise ValueError("give either choices, or low and high")
        problem = _range_problem(self) if self.choices is None else _choices_problem(self)
        if problem:
            raise ValueError(problem)
        return self

    @property
    def is_whole(self) -> bool:
        """Whether its numbers are whole."""
        return all(isinstance(one, int) for one in (self.low, self.high, 1 if self.step is None else self.step))

    def holds(self, value: Any) -> bool:
        """Whether ``value`` is one of its values."""
        if self.choices is not None:
            return any(same(value, one) for one in self.choices)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not _ends(self)[0] <= value <= _ends(self)[1]
        ):
            return False
        step = self.step or (1 if self.is_whole and not self.log else 0)
        steps = (value - _ends(self)[0]) / step if step else 0.0
        return math.isclose(steps, round(steps), abs_tol=1e-9) and (not self.is_whole or float(value).is_integer())

    def points(self) -> list[Any] | None:
        """Return all its values, or None where it has no end of them."""
        if self.choices is not None:
            return list(self.choices)
        low, high = _ends(self)
        step = self.step or (1 if self.is_whole else None)
        if step is None:
            return None
        values = [low + number * step for number in range(int((high - low) / step + 1e-9) + 1)]
        return [int(value) if self.is_whole else float(f"{value:.12g}") for value in values]


class Space(Document):
    """What is varied, by the dotted key of a plan's field or the name of a knob."""

    schema_: Literal["autoseg.space.1"] = Field(default="autoseg.space.1", alias="schema")
    parameters: dict[str, Parameter] = Field(min_length=1)

    @property
    def changes_patches(self) -> bool:
        """Whether patches of two trials may differ in size or resolution, so that their Dice is not comparable."""
        keys = ("preprocessing.", "training.patch_size", "training.foreground_oversampling", "network.architecture")
        return any(key == "patch_share" or key.startswith(keys) for key in self.parameters)


def space_text(space: Space) -> str:
    """Return a space as JSON for a person to edit, without what is as by default."""
    content = space.model_dump(mode="json", by_alias=True)
    parameters = {key: one.model_dump(mode="json", exclude_defaults=True) for key, one in space.parameters.items()}
    return format_json({**content, "parameters": parameters}) + "\n"


class _Outline(Document):
    """A space whose parameters are not read yet, so that each one's mistakes are told with its key."""

    schema_: Literal["autoseg.space.1"] = Field(alias="schema")
    parameters: dict[str, dict[str, Any]] = Field(min_length=1)


def read_space(path: Path, plan: Plan) -> Space:
    """Read a space and check that it can vary ``plan``.

    Raises:
        DocumentError: it is no such document, or does not suit the plan.
    """
    outline = read_document(path, _Outline)
    parameters = {
        key: parse_document(json.dumps(entry), Parameter, where=f"{path}: parameters: {key}")
        for key, entry in outline.parameters.items()
    }
    space = Space(parameters=parameters)
    check_space(space, plan, where=str(path))
    return space


def check_space(space: Space, plan: Plan, *, where: str) -> None:
    """Refuse a parameter that ``plan`` does not have, or whose own value in it the space leaves out.

    Raises:
        DocumentError: so.
    """
    for key, parameter in space.parameters.items():
        own = own_value(plan, key, where=where)
        if not parameter.holds(own):
            raise DocumentError(
                f"{where}: parameters: {key}: the plan's own value, {json.dumps(own)}, is not among those to search, "
                f"but it is the first to be tried; add it, or start from a variant (autoseg_plan --from {plan.name})"
            )
        if key in KNOBS:
            KNOBS[key].check(parameter.choices or _ends(parameter), f"{where}: parameters: {key}")


def own_value(plan: Plan, key: str, *, where: str = "space") -> Any:
    """Return what the plan itself has for a parameter.

    Raises:
        DocumentError: it has no such field, or one that follows from others, or a knob does not suit it.
    """
    if key in KNOBS:
        if not KNOBS[key].suits(plan):
            raise DocumentError(f"{where}: parameters: {key}: {plan.network.architecture} has nothing of that kind")
        return KNOBS[key].own
    if (top := key.split(".")[0]) in NOT_SETTABLE:
        raise DocumentError(f"{where}: parameters: {key}: {top!r} cannot be searched: {NOT_SETTABLE[top]}")
    found: Any = json.loads(plan.model_dump_json(by_alias=True))
    for part in key.split("."):
        known = (
            list(found)
            if isinstance(found, dict)
            else [str(n) for n in range(len(found))]
            if isinstance(found, list)
            else []
        )
        if part not in known:
            names = [*known, *(KNOBS if "." not in key else ())]
            raise DocumentError(
                f"{where}: parameters: {key}: the plan has no field {part!r}{nearest(part, names)}; "
                f"known here: {', '.join(names) or 'nothing below a single value'}"
            )
        found = found[int(part)] if isinstance(found, list) else found[part]
    return found


def own_values(plan: Plan, space: Space) -> dict[str, Any]:
    """Return what the plan itself has for each parameter of the space."""
    return {key: own_value(plan, key) for key in space.parameters}


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal; 1 and 1.0 are, 1 and true are not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other)


def _ends(parameter: Parameter) -> tuple[float, float]:
    return parameter.low or 0, parameter.high or 0


def _choices_problem(parameter: Parameter) -> str | None:
    choices = parameter.choices or ()
    if parameter.low is not None or parameter.high is not None or parameter.log or parameter.step is not None:
        return "low, high, log and step are for numbers without choices"
    texts = [json.dumps(one, sort_keys=True) for one in choices]
    return None if len(texts) >= 2 and len(set(texts)) == len(texts) else "choices needs two different values at least"


def _range_problem(parameter: Parameter) -> str | None:
    if parameter.low is None or parameter.high is None:
        return "give both low and high"
    if not parameter.low < parameter.high:
        return f"low must be below high, found {parameter.low} and {parameter.high}"
    if parameter.log and parameter.low <= 0:
        return f"log needs a low above 0, found {parameter.low}"
    return "log and step exclude each other" if parameter.log and parameter.step is not None else None
