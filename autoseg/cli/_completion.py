"""What the shell completes: names of datasets, plans and tables, found without PyTorch and without reading an image."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from pkgutil import iter_modules

import typer

from autoseg.data.workspace import NUMBERED_FOLDER, Workspace, dataset_name, open_workspace, plan_names
from autoseg.errors import AutosegError

COMMANDS = ("plan", "train", "predict", "evaluate", "compare", "run", "tune", "export", "demo")
"""The commands, in the order of the flow; each is ``autoseg_NAME``."""

PACKAGE = Path(__file__).parents[1]

OTHER_RECIPES = (
    "all", "nnunet_2d", "nnunet_lowres", "nnunet_cascade", "nnunet_resenc_m", "nnunet_resenc_l", "nnunet_resenc_xl",
)  # fmt: skip
"""What can be planned besides each architecture; far from all, but what is wanted most."""


def complete_dataset(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the datasets of the workspace; by their folders' names where a number has been begun."""
    place = _workspace(ctx)
    if place is None:
        return []
    folders = [path for root in _roots(place) for path in _folders(root)]
    short = {dataset_name(path) for path in folders} | {path.name for path in _folders(place.root / "plans")}
    return _beginning(short, incomplete) or _beginning({path.name for path in folders}, incomplete)


def complete_plan(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the plans of the dataset on the command line; of all datasets where it names none."""
    return _beginning(_plans(ctx), incomplete)


def complete_recipe(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return what can be planned."""
    return _beginning(_recipes(), incomplete)


def complete_plan_or_recipe(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return plans that there are and what can be planned."""
    return _beginning({*_plans(ctx), *_recipes()}, incomplete)


def complete_table(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the tables that come with the package; the shell adds files."""
    return _beginning((path.stem for path in (PACKAGE / "launch" / "experiments").glob("*.json")), incomplete)


def prepare_completion(command: str) -> None:
    """Let typer answer where the shell asks what could stand next, which it does by an environment variable."""
    if f"_{command}_COMPLETE".upper() in os.environ:
        from typer.completion import completion_init  # type: ignore[attr-defined]

        completion_init()


def install_completion(asked: bool) -> None:
    """Let the user's shell complete all commands, tell so, and end the command."""
    if not asked:
        return
    from typer.completion import install  # type: ignore[attr-defined]

    places = [install(prog_name=f"autoseg_{name}") for name in COMMANDS]
    shell, path = places[0]
    typer.echo(f"wrote the completion of {len(places)} commands for {shell}: {path.parent}")
    typer.echo("next: open a new shell, and press TAB behind autoseg_train -d")
    raise typer.Exit()


def _plans(ctx: typer.Context) -> set[str]:
    place = _workspace(ctx)
    if place is None:
        return set()
    given = ctx.params.get("dataset")
    folders = [place.plans(_named(str(given), place))] if given else _folders(place.root / "plans")
    return {name for folder in folders for name in plan_names(folder)}


def _named(given: str, place: Workspace) -> str:
    """Return the name of a dataset that may be given as a number, a folder's name, or a path."""
    for path in (path for root in _roots(place) for path in _folders(root)):
        match = NUMBERED_FOLDER.fullmatch(path.name)
        if match and given.isdigit() and int(given) == int(match.group(1)):
            return match.group(2)
    return dataset_name(Path(given))


def _recipes() -> list[str]:
    names = [module.name for module in iter_modules([str(PACKAGE / "networks")])]
    return [name for name in names if not name.startswith("_")] + list(OTHER_RECIPES)


def _workspace(ctx: typer.Context) -> Workspace | None:
    given = ctx.params.get("workspace")
    try:
        return open_workspace(Path(given) if given else None)
    except AutosegError:
        return None


def _roots(place: Workspace) -> Iterator[Path]:
    yield place.raw
    if place.nnunet_raw:
        yield place.nnunet_raw


def _folders(root: Path) -> list[Path]:
    return [path for path in root.iterdir() if path.is_dir() and path.name[0] != "."] if root.is_dir() else []


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return sorted(name for name in names if name.startswith(incomplete))
