"""Write the generated pages of docs/reference: ``python docs/generate.py``.

A test compares them with the code.
"""

import importlib
import io
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

from pydantic import BaseModel

from autoseg.cli._completion import COMMANDS

FOLDER = Path(__file__).parent / "reference"


def cli_reference() -> str:
    """Return the help texts of all commands as Markdown."""
    parts = ["# Commands\n\nGenerated from the commands' own `--help`.\n"]
    for name in COMMANDS:
        parts.append(f"## autoseg_{name}\n\n```\n{_help(name).strip()}\n```\n")
    parts.append(
        "Exit status: 0; 1 from autoseg_predict if some of the images could not be read (2: none could), and from "
        "autoseg_run if runs failed; "
        "2 for a mistake of the user's, told in one line on standard error; 130 when interrupted. "
        "Any other error is a bug and shows its traceback.\n"
    )
    return "\n".join(parts)


def plan_reference() -> str:
    """Return the sections and fields of a plan as Markdown."""
    from autoseg.plan.plan import Plan

    introduction = (
        "# The plan document\n\nGenerated from `autoseg/plan/plan.py`. Complete, closed, versioned JSON: every field "
        "must be there, an unknown one is refused. Spatial lists are in array order (z, y, x) after "
        "`preprocessing.transpose`; spacing in mm, sizes in voxels. "
        "[plan.schema.json](plan.schema.json) is its JSON schema: point your editor's JSON settings at it for "
        "`plans/**/*.json`, and it completes and checks what you type.\n"
    )
    return "\n".join([introduction, *_sections(Plan, "")])


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


def _complete(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration's schema with every field required, since a plan fills in no defaults."""
    return {**schema, "required": list(schema["properties"])}


def _sections(document: type[BaseModel], prefix: str) -> list[str]:
    title = prefix.rstrip(".") or "plan"
    rows = [f"## {title}\n", _first_paragraph(document), "", "| field | type |", "|---|---|"]
    nested = []
    for name, field in document.model_fields.items():
        annotation = field.annotation
        rows.append(f"| `{prefix}{field.alias or name}` | {_type_name(annotation)} |")
        if isinstance(annotation, type) and issubclass(annotation, BaseModel) and annotation.__name__ != "Component":
            nested += _sections(annotation, f"{prefix}{name}.")
    return [*rows, "", *nested]


def _first_paragraph(document: type[BaseModel]) -> str:
    lines = (document.__doc__ or "").strip().splitlines()
    return "\n".join(line.strip() for line in lines)


def _type_name(annotation: object) -> str:
    is_plain = isinstance(annotation, type) and not hasattr(annotation, "__args__")
    text = annotation.__name__ if is_plain else str(annotation)
    for module in ("autoseg.plan.plan.", "autoseg.plan.optimization.", "autoseg.data.labels.", "typing."):
        text = text.replace(module, "")
    return text.replace("|", "or")


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
}
"""File of docs/reference and what writes it."""

if __name__ == "__main__":
    for page, write in PAGES.items():
        FOLDER.joinpath(page).write_text(write(), encoding="utf-8")
