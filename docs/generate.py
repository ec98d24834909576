"""Write docs/reference-cli.md and docs/reference-plan.md from the code: ``python docs/generate.py``. A test compares them."""

import importlib
import io
from contextlib import redirect_stdout
from pathlib import Path
from unittest import mock

from pydantic import BaseModel

COMMANDS = ("plan", "train", "predict", "evaluate", "compare", "export", "demo")
FOLDER = Path(__file__).parent


def cli_reference() -> str:
    """Return the help texts of all commands as Markdown."""
    parts = ["# Commands\n\nGenerated from the commands' own `--help`.\n"]
    for name in COMMANDS:
        parts.append(f"## autoseg_{name}\n\n```\n{_help(name).strip()}\n```\n")
    parts.append(
        "Exit status: 0; 1 from autoseg_predict if some of the images could not be read; "
        "2 for a mistake of the user's, told in one line on standard error; 130 when interrupted. "
        "Any other error is a bug and shows its traceback.\n"
    )
    return "\n".join(parts)


def plan_reference() -> str:
    """Return the sections and fields of a plan as Markdown."""
    from autoseg.plan.plan import Plan

    introduction = (
        "# The plan document\n\nGenerated from `autoseg/plan/plan.py`. Complete, closed and versioned JSON: every field must be there, an "
        "unknown one is refused. Spatial lists are in array order (z, y, x) after `preprocessing.transpose`; spacing in mm, sizes in voxels.\n"
    )
    return "\n".join([introduction, *_sections(Plan, "")])


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
    text = annotation.__name__ if isinstance(annotation, type) and not hasattr(annotation, "__args__") else str(annotation)
    for module in ("autoseg.plan.plan.", "autoseg.plan.optimization.", "autoseg.data.labels.", "typing."):
        text = text.replace(module, "")
    return text.replace("|", "or")


def _help(name: str) -> str:
    module = importlib.import_module(f"autoseg.cli.{name}")
    output = io.StringIO()
    with redirect_stdout(output), mock.patch("sys.argv", [f"autoseg_{name}"]), mock.patch.dict("os.environ", COLUMNS="100"):
        module.main(["--help"])
    return output.getvalue()


if __name__ == "__main__":
    FOLDER.joinpath("reference-cli.md").write_text(cli_reference(), encoding="utf-8")
    FOLDER.joinpath("reference-plan.md").write_text(plan_reference(), encoding="utf-8")
