"""autoseg_demo: the whole flow on a phantom that it makes itself, by the very commands that a user types."""

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

from autoseg.cli import compare, plan, predict, train
from autoseg.cli._command import console, run
from autoseg.cli._progress import duration, progress_bar
from autoseg.errors import WorkspaceError

NUM_CASES = 12
PLANS = ("unet_demo", "attention_unet_demo")
# A patch of a quarter of the volume and this many iterations find the liver in about a minute and a half on 2 cores.
BRIEF = ("training.patch_size=[32,48,48]", "training.epochs=4", "training.iterations_per_epoch=25",
         "training.validation_iterations=2", "prediction.mirror_axes=[]")  # fmt: skip


def demo(
    workspace: Annotated[Path, typer.Option("-w", "--workspace", help="Folder to work in; made if missing.")] = Path(
        "autoseg_demo"
    ),
    seed: Annotated[int, typer.Option("--seed", help="Seed of the phantom.")] = 0,
) -> None:
    """Show the whole flow on a phantom: no download, about five minutes on two cores.

    It makes twelve CT-like abdomens with a liver and tumours, plans and trains two architectures briefly, segments
    new images, and compares. A phantom is no patient: the scores show that everything works, not how good a network is.

    Example: autoseg_demo -w my_demo
    """
    start = time.perf_counter()
    out = console()
    raw = workspace / "raw" / "Dataset900_Phantom"
    _make_phantom(raw, seed)
    for command, arguments in _steps(workspace, raw):
        out.print(
            f"\n$ autoseg_{command.__name__.rpartition('.')[2]} {shlex.join(arguments)}",
            style="bold",
            markup=False,
            soft_wrap=True,
        )
        status = command.main([*arguments, "-w", str(workspace)])
        if status:
            raise typer.Exit(status)
    report = workspace / "reports" / "Phantom" / "report.html"
    out.print(
        f"\nthe demo took {duration(time.perf_counter() - start)}; open {report.resolve()} in a browser", soft_wrap=True
    )
    out.print("next: put your dataset into raw/ and run autoseg_plan -d NAME   (docs/tutorial/)")


def _make_phantom(folder: Path, seed: int) -> None:
    from autoseg.data.phantom import make_phantom_dataset

    if (folder / "dataset.json").is_file():
        console().print(f"the phantom is already in {folder}", soft_wrap=True)
        return
    if folder.parent.parent.exists() and any(p.name != "raw" for p in folder.parent.parent.iterdir()):
        raise WorkspaceError(
            f"{folder.parent.parent}: this folder is in use but holds no phantom; name an empty one with -w"
        )
    with progress_bar("making the phantom", NUM_CASES) as advance:
        make_phantom_dataset(folder, num_cases=NUM_CASES, seed=seed, on_case=advance)
    console().print(
        f"made {NUM_CASES} phantom abdomens in {folder}: liver and tumours, CT-like, no patient's data", soft_wrap=True
    )


def _steps(workspace: Path, raw: Path) -> list[tuple[ModuleType, list[str]]]:
    settings = [word for assignment in BRIEF for word in ("--set", assignment)]
    architectures = ["-a", "unet", "-a", "attention_unet"]
    return [
        (plan, ["-d", "Phantom", *architectures, "--name", "demo", *settings]),
        *[(train, ["-d", "Phantom", "-a", name, "-f", "0"]) for name in PLANS],
        (predict, ["-d", "Phantom", "-a", PLANS[0], "-i", str(raw / "imagesTs"), "-o", str(workspace / "predictions")]),
        (compare, ["-d", "Phantom", "--baseline", PLANS[0]]),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``autoseg_demo`` and return its exit status."""
    return run(demo, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
