"""Write the generated pages of docs/reference: ``python docs/generate.py``.

A test compares them with the code.
"""

import importlib
import inspect
import io
import types
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from unittest import mock

from pydantic import BaseModel

from autoseg.cli._completion import COMMANDS

FOLDER = Path(__file__).parent / "reference"
PLAIN = {str: "string", int: "integer", float: "number", bool: "true or false", type(None): "null", Any: "any"}

PLAN_INTRODUCTION = """\
# The plan document

Generated from `autoseg/plan/plan.py`. Complete, closed, versioned JSON: every field but `training.initial_weights` must
be there, an unknown one is refused. Spatial lists are in array order (z, y, x) after `preprocessing.transpose`; spacing
in mm, sizes in voxels.
[plan.schema.json](plan.schema.json) is its JSON schema: point your editor's JSON settings at it for
`plans/**/*.json`, and it completes and checks what you type.
"""

DOCUMENTS_INTRODUCTION = """\
# JSON documents

Generated from the classes that read and write them. Closed: an unknown field is refused. [Datasets and files](files.md)
says where each stands; the plan has [a page of its own](plan.md).
"""

ANSWERS_INTRODUCTION = """\
# Answers for programs

Generated from `autoseg/cli/_answers.py`. With `--json` standard output holds one of these documents and nothing else;
what is for people goes to standard error. Where a command ends with status 2 (a mistake of the user's, told in one line
on standard error) standard output is empty. New fields may come; a field that changes its meaning changes the number in
`schema`.
"""

METRICS_INTRODUCTION = """\
# Metrics

Generated from `autoseg/evaluate/`. A is the reference mask and B the predicted one, \\|A\\| its volume, ∂A its surface,
d(a, ∂B) the distance of a point from the nearest point of B's surface. Sums and percentiles over a surface are weighted
by area, so that they do not depend on how finely a surface is cut into elements.
"""

METRICS_END = """
Where both masks are empty a score is undefined (`null`), left out of means, and counted under `undefined`. The
tolerance τ is `prediction.surface_tolerance_mm` of the plan, 2 mm unless set. The diagonal is that of the whole image.
Lesions are counted for the regions that `--lesions` names; as many of them are matched as can be.

`about` in a `metrics.json` names implementation, version, tolerance and these definitions. [How far the numbers are
from other implementations on real labels](../benchmarks/metrics.md).
"""

FORMULAS = {
    "dice": ("0 to 1", "2·\\|A∩B\\| / (\\|A\\| + \\|B\\|)", "Dice, 1945"),
    "iou": ("0 to 1", "\\|A∩B\\| / \\|A∪B\\|", "Jaccard, 1912"),
    "sensitivity": ("0 to 1", "\\|A∩B\\| / \\|A\\|", ""),
    "precision": ("0 to 1", "\\|A∩B\\| / \\|B\\|", ""),
    "surface_dice": (
        "0 to 1",
        "(area of ∂A within τ of ∂B + area of ∂B within τ of ∂A) / (area of ∂A + area of ∂B)",
        "Nikolov et al., 2018",
    ),
    "hausdorff_95": ("mm", "max(P95 over ∂A of d(a, ∂B), P95 over ∂B of d(b, ∂A))", "Huttenlocher et al., 1993"),
    "average_surface_distance": (
        "mm",
        "(Σ over ∂A of d(a, ∂B) + Σ over ∂B of d(b, ∂A)) / (area of ∂A + area of ∂B)",
        "Heimann et al., 2009",
    ),
    "volume_difference_ml": ("ml", "\\|B\\| - \\|A\\|", "its mean shows a bias"),
    "reference_volume_ml": ("ml", "\\|A\\|", ""),
    "predicted_volume_ml": ("ml", "\\|B\\|", ""),
    "lesion_f1_10": ("0 to 1", "2·matches / (lesions of A + lesions of B), at an IoU of 0.1", ""),
    "lesion_f1_50": ("0 to 1", "the same at an IoU of 0.5", ""),
    "reference_lesions": ("", "connected components of A, 26 neighbours", ""),
    "predicted_lesions": ("", "connected components of B", ""),
}
"""Metric to unit, formula and source; the definition in words is the code's."""


def cli_reference() -> str:
    """Return the help texts of all commands as Markdown."""
    parts = ["# Commands\n\nGenerated from the commands' own `--help`.\n"]
    for name in COMMANDS:
        parts.append(f"## autoseg_{name}\n\n```\n{_help(name).strip()}\n```\n")
    parts.append(
        "Exit status: 0; 1 from autoseg_predict and autoseg_plan if some of the cases could not be worked on (2 from "
        "autoseg_predict if none could), from autoseg_run if runs failed, and from autoseg_compare if no plan is "
        "better than it must be; "
        "2 for a mistake of the user's, told in one line on standard error; 130 when interrupted. "
        "Any other error is a bug and shows its traceback.\n"
    )
    return "\n".join(parts)


def plan_reference() -> str:
    """Return the sections and fields of a plan as Markdown."""
    from autoseg.plan.plan import Plan

    return "\n".join([PLAN_INTRODUCTION, "## plan\n", *_tables(Plan, "", headings=True)])


def documents_reference() -> str:
    """Return the fields of the JSON documents in a workspace as Markdown."""
    parts = [DOCUMENTS_INTRODUCTION]
    for kind in _documents():
        (schema,) = get_args(kind.model_fields["schema_"].annotation)
        parts += [f"## {schema}\n", *_tables(kind, "")]
    return "\n".join(parts)


def answers_reference() -> str:
    """Return what each command prints with ``--json`` as Markdown."""
    from autoseg.cli._answers import ANSWERS

    parts = [ANSWERS_INTRODUCTION]
    for command, kinds in ANSWERS.items():
        parts.append(f"## autoseg_{command}\n")
        parts += [line for kind in kinds for line in _tables(kind, "")]
    return "\n".join(parts)


def metrics_reference() -> str:
    """Return every metric with its formula and its definition as Markdown."""
    from autoseg.evaluate.evaluate import Scoring

    rows = ["| metric | unit | formula | in words | source |", "|---|---|---|---|---|"]
    for name, words in Scoring(tolerance_mm=2.0, lesions=("tumour",)).definitions.items():
        unit, formula, source = FORMULAS[name]
        rows.append(f"| `{name}` | {unit} | {formula} | {words} | {source} |")
    return f"{METRICS_INTRODUCTION}\n" + "\n".join(rows) + f"\n{METRICS_END}"


def plan_schema() -> str:
    """Return the JSON schema of a plan, in which an architecture's name decides what its configuration holds."""
    from autoseg.documents import format_json
    from autoseg.networks import available_architectures, load_architecture
    from autoseg.plan.plan import Plan

    schema = Plan.model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["$defs"]["Network"]["allOf"] = [
        {
            "if": {"properties": {"architecture": {"const": name}}},
            "then": {"properties": {"config": _complete(load_architecture(name).Config.model_json_schema())}},
        }
        for name in available_architectures()
    ]
    return format_json(schema) + "\n"


def _documents() -> list[type[BaseModel]]:
    from autoseg.compare.overview import Overview
    from autoseg.compare.summary import Summary
    from autoseg.data.problems import Problems
    from autoseg.data.splits import Splits
    from autoseg.evaluate.evaluate import Metrics
    from autoseg.fingerprint.fingerprint import Fingerprint
    from autoseg.launch.inference import PredictionRecord
    from autoseg.launch.select import Best
    from autoseg.launch.table import Table
    from autoseg.predict.postprocess import Postprocessing
    from autoseg.train.initial import InitialRecord
    from autoseg.tune.space import Space

    return [
        Problems, Fingerprint, Splits, Table, Space, Metrics, PredictionRecord, Postprocessing, Best, Summary, Overview,
        InitialRecord,
    ]  # fmt: skip


def _complete(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration's schema with every field required, since a plan fills in no defaults."""
    return {**schema, "required": list(schema["properties"])}


def _tables(document: type[BaseModel], prefix: str, *, headings: bool = False) -> list[str]:
    """Return what a document is, a table of its fields, and the tables of those in it that no other page has."""
    summary, meanings = _docstring(document)
    rows = [summary, "", "| field | type | meaning |", "|---|---|---|"]
    nested = []
    for name, field in document.model_fields.items():
        shown, holds = field.alias or name, _documents_in(field.annotation)
        kind = _type_name(field.annotation)
        rows.append(f"| `{prefix}{shown}` | {kind} | {meanings.get(name, '')} |")
        for part in holds:
            if "schema_" not in part.model_fields:
                title = [f"## {prefix}{name}\n"] if headings else []
                nested += [*title, *_tables(part, f"{prefix}{shown}.", headings=headings)]
    return [*rows, "", *nested]


def _docstring(document: type[BaseModel]) -> tuple[str, dict[str, str]]:
    """Return what a document's docstring says of it, and of each of its fields."""
    summary, _, attributes = (inspect.getdoc(document) or "").partition("\nAttributes:\n")
    meanings: dict[str, str] = {}
    name = ""
    for line in attributes.splitlines():
        text = line.strip()
        if line.startswith("    ") and not line.startswith("     ") and ": " in text:
            name, _, text = text.partition(": ")
        if name and text:
            meanings[name] = f"{meanings.get(name, '')} {text}".strip().replace("``", "`").replace("|", "\\|")
    return summary.strip().replace("``", "`"), meanings


def _documents_in(annotation: object) -> list[type[BaseModel]]:
    """Return the documents that a field holds, but for components, whose fields are those of their own files."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [] if annotation.__name__ == "Component" else [annotation]
    return [part for argument in get_args(annotation) for part in _documents_in(argument)]


def _type_name(annotation: Any) -> str:
    """Return the type of a field in the words of JSON."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_name(arguments[0])
    if origin is Literal:
        return " or ".join(f"`{value!r}`".replace("'", '"') for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type_name(part) for part in arguments))
    if origin is tuple and arguments[-1] is Ellipsis:
        return f"list of {_type_name(arguments[0])}"
    if origin is tuple:
        return f"[{', '.join(_type_name(part) for part in arguments)}]"
    if origin is dict:
        return f"object of {_type_name(arguments[1])}"
    return PLAIN.get(annotation) or str(annotation.__name__)


def _help(name: str) -> str:
    module = importlib.import_module(f"autoseg.cli.{name}")
    output = io.StringIO()
    named, wide = mock.patch("sys.argv", [f"autoseg_{name}"]), mock.patch.dict("os.environ", COLUMNS="100")
    with redirect_stdout(output), named, wide:
        module.main(["--help"])
    return output.getvalue()


PAGES: dict[str, Callable[[], str]] = {
    "commands.md": cli_reference,
    "plan.md": plan_reference,
    "plan.schema.json": plan_schema,
    "documents.md": documents_reference,
    "answers.md": answers_reference,
    "metrics.md": metrics_reference,
}
"""File of docs/reference and what writes it."""

if __name__ == "__main__":
    for page, write in PAGES.items():
        FOLDER.joinpath(page).write_text(write(), encoding="utf-8")
