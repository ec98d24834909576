"""Give the commands that use a trained model what they should refuse, and write down what they say.

``python tests/benchmarks/bad_input.py [PAGE]`` makes a phantom and a model whose networks were never trained, runs
``autoseg_predict`` and ``autoseg_export --install`` on each of ``TRIALS``, and writes what is printed to PAGE, by
default docs/benchmarks/bad_input.md. tests/cli/test_bad_input.py holds the page against what the commands do.
"""

import importlib
import io
import os
import pickle
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from autoseg.data.volumes import read_image, write_volume

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "benchmarks" / "bad_input.md"


class Bench:
    """A workspace of its own, with the plan ``good`` of two folds, and folders of images to segment."""

    def __init__(self, trained: Path, folder: Path) -> None:
        self.root, self.images, self.output = folder / "workspace", folder / "images", folder / "out"
        self.archive = folder / "model.zip"
        shutil.copytree(trained, self.root, symlinks=True)
        self.images.mkdir()
        self.source = sorted((trained / "raw").glob("*/imagesTr/*_0000.nii.gz"))[0]
        self.run = self.root / "results" / "Phantom" / "good"

    @property
    def checkpoint(self) -> Path:
        return self.run / "fold_0" / "checkpoints" / "last.pt"

    def add(self, name: str = "one_0000.nii.gz") -> Path:
        """Add a good image."""
        return Path(shutil.copy(self.source, self.images / name))

    def write(self, change: Callable[[np.ndarray], np.ndarray], name: str = "one_0000.nii.gz") -> None:
        """Add an image with other values."""
        volume = read_image([self.source])
        values = change(volume.array[0].astype(np.float32))
        write_volume(self.images / name, values, volume.geometry.model_copy(update={"shape": values.shape}))

    def predict(self, *more: str) -> list[str]:
        return ["predict", "-d", "Phantom", "-w", str(self.root), "-a", "good", "-i", str(self.images),
                "-o", str(self.output), "--device", "cpu", *more]  # fmt: skip

    def install(self) -> list[str]:
        shutil.rmtree(self.run, ignore_errors=True)
        return ["export", "--install", str(self.archive), "-w", str(self.root)]

    def pack(self) -> None:
        """Pack the model."""
        words = ["-d", "Phantom", "-w", str(self.root), "-a", "good", "-o", str(self.archive)]
        with redirect_stdout(io.StringIO()):
            importlib.import_module("autoseg.cli.export").main(words)

    def left(self) -> list[str]:
        """Return what a command has left: the files of the output, a model that was installed, what is half-written."""
        found = [f"out/{path.name}" for path in sorted(self.output.glob("*")) if self.output.is_dir()]
        installed = [str(self.run.relative_to(self.root))] if self.archive.exists() and self.run.exists() else []
        return found + installed + [path.name for path in self.root.rglob(".partial*")]


class _Shell:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch HACKED",)


def _empty(bench: Bench) -> list[str]:
    return bench.predict()


def _nowhere(bench: Bench) -> list[str]:
    bench.images.rmdir()
    return bench.predict()


def _unknown_ending(bench: Bench) -> list[str]:
    (bench.images / "note.txt").write_text("no image")
    return [*bench.predict()[:-6], "-i", str(bench.images / "note.txt"), *bench.predict()[-4:]]


def _surplus_channel(bench: Bench) -> list[str]:
    bench.add()
    bench.add("one_0001.nii.gz")
    return bench.predict()


def _small(bench: Bench) -> list[str]:
    bench.write(lambda values: values[:3, :4, :5])
    return bench.predict()


def _constant(bench: Bench) -> list[str]:
    bench.write(lambda values: np.full_like(values, 7))
    return bench.predict()


def _zero(bench: Bench) -> list[str]:
    bench.write(np.zeros_like)
    return bench.predict()


def _nan(bench: Bench) -> list[str]:
    bench.add("two_0000.nii.gz")
    bench.write(lambda values: np.where(values > values.mean(), np.nan, values))
    return bench.predict()


def _film(bench: Bench, *, alone: bool = False) -> list[str]:
    image = sitk.ReadImage(str(bench.source))
    sitk.WriteImage(sitk.JoinSeries([image, image]), str(bench.images / "film_0000.nii.gz"))
    if not alone:
        bench.add()
    return bench.predict()


def _film_alone(bench: Bench) -> list[str]:
    return _film(bench, alone=True)


def _cut_image(bench: Bench) -> list[str]:
    path = bench.add()
    path.write_bytes(path.read_bytes()[:2000])
    bench.add("two_0000.nii.gz")
    return bench.predict()


def _output_is_a_file(bench: Bench) -> list[str]:
    bench.add()
    bench.output.write_text("")
    return bench.predict()


def _missing_fold(bench: Bench) -> list[str]:
    bench.add()
    return bench.predict("-f", "0", "-f", "4")


def _never_trained(bench: Bench) -> list[str]:
    bench.add()
    shutil.rmtree(bench.run)
    return bench.predict()


def _no_plan(bench: Bench) -> list[str]:
    bench.add()
    (bench.run / "fold_0" / "plan.json").unlink()
    return bench.predict()


def _cut_checkpoint(bench: Bench) -> list[str]:
    bench.add()
    content = bench.checkpoint.read_bytes()
    bench.checkpoint.write_bytes(content[: len(content) // 2])
    return bench.predict()


def _code_in_checkpoint(bench: Bench) -> list[str]:
    bench.add()
    bench.checkpoint.write_bytes(pickle.dumps({"network": _Shell()}))
    return bench.predict()


def _other_plan(bench: Bench) -> list[str]:
    bench.add()
    shutil.copy(bench.run.parent / "poor" / "fold_0" / "checkpoints" / "last.pt", bench.checkpoint)
    return bench.predict()


def _no_zip(bench: Bench) -> list[str]:
    bench.archive.write_text("no zip")
    return bench.install()


def _cut_zip(bench: Bench) -> list[str]:
    bench.pack()
    content = bench.archive.read_bytes()
    bench.archive.write_bytes(content[: len(content) // 2])
    return bench.install()


def _climbing_zip(bench: Bench) -> list[str]:
    bench.pack()
    with zipfile.ZipFile(bench.archive, "a") as archive:
        archive.writestr("../../HACKED", "outside")
    return bench.install()


def _pickled_zip(bench: Bench) -> list[str]:
    bench.checkpoint.write_bytes(pickle.dumps({"network": _Shell()}))
    with zipfile.ZipFile(bench.archive, "w") as archive:
        for path in (bench.run / "fold_0" / "plan.json", bench.checkpoint):
            archive.write(path, str(path.relative_to(bench.run)))
    return bench.install()


def _module_in_zip(bench: Bench) -> list[str]:
    path = bench.run / "fold_0" / "plan.json"
    path.write_text(path.read_text().replace('"architecture": "unet"', '"architecture": "evil.network"'))
    with zipfile.ZipFile(bench.archive, "w") as archive:
        for one in (path, bench.checkpoint):
            archive.write(one, str(one.relative_to(bench.run)))
    return bench.install()


TRIALS: dict[str, tuple[Callable[[Bench], list[str]], int]] = {
    "an empty folder": (_empty, 2),
    "a folder that is not there": (_nowhere, 2),
    "a file that is no image": (_unknown_ending, 2),
    "a channel too many": (_surplus_channel, 2),
    "an image smaller than the patch": (_small, 0),
    "a constant image": (_constant, 0),
    "an image of zeros": (_zero, 0),
    "NaN in one of two images": (_nan, 1),
    "one of two images is a film (4-D)": (_film, 1),
    "the only image is a film (4-D)": (_film_alone, 2),
    "one of two images is cut short": (_cut_image, 1),
    "the output is a file": (_output_is_a_file, 2),
    "a fold that is not trained": (_missing_fold, 2),
    "a plan that is not trained": (_never_trained, 2),
    "a fold without its plan": (_no_plan, 2),
    "a checkpoint that is cut short": (_cut_checkpoint, 2),
    "a checkpoint with code in it": (_code_in_checkpoint, 2),
    "a checkpoint of another plan": (_other_plan, 2),
    "an archive that is no zip": (_no_zip, 2),
    "an archive that is cut short": (_cut_zip, 2),
    "an archive with `../` in it": (_climbing_zip, 2),
    "an archive with code in a checkpoint": (_pickled_zip, 2),
    "an archive whose plan names a module": (_module_in_zip, 2),
}
"""What is given, and the exit status that it should have."""


@dataclass(frozen=True)
class Answer:
    """What a command said and left."""

    command: str
    status: int
    told: list[str]
    left: list[str]


def play(trial: str, trained: Path, folder: Path) -> Answer:
    """Run a trial in a folder of its own; ``trained`` is a workspace with the plans ``good`` and ``poor``."""
    bench = Bench(trained, folder)
    name, *words = TRIALS[trial][0](bench)
    errors = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(errors):
        status = importlib.import_module(f"autoseg.cli.{name}").main(words)
    told = errors.getvalue().replace(f"{folder}/", "").replace(f"{folder.resolve()}/", "")
    return Answer(f"autoseg_{name}", status, told.splitlines(), bench.left())


def make_page(answers: dict[str, Answer]) -> str:
    """Return the page with a row for each trial."""
    rows = [
        f"| {trial} | `{one.command}` | {one.status} | {'<br>'.join(_code(line) for line in one.told) or '-'} | "
        f"{', '.join(one.left) or 'nothing'} |"
        for trial, one in answers.items()
    ]
    return "\n".join(
        [
            "# What is said of bad input",
            "",
            "`python tests/benchmarks/bad_input.py` gives a model, and what installs one, each of these, and writes "
            "down what is printed on standard error and what is left behind. Exit status 2: nothing was done; 1: the "
            "other images were segmented; 0: it works. Paths are shortened.",
            "",
            "| given | command | status | it says | it leaves |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _code(line: str) -> str:
    return "`` " + line.replace("|", "\\|") + " ``" if "`" in line else f"`{line.replace('|', chr(92) + '|')}`"


def main() -> None:
    """Play all trials, and write the page."""
    sys.path.insert(0, str(ROOT / "tests"))
    import conftest

    with tempfile.TemporaryDirectory() as temporary:
        (root := Path(temporary) / "trained").mkdir()
        trained = conftest.make_trained(root)
        answers = {}
        for number, trial in enumerate(TRIALS):
            (place := Path(temporary) / str(number)).mkdir()
            answers[trial] = play(trial, trained, place)
            print(trial, answers[trial], flush=True)
    Path(sys.argv[1] if len(sys.argv) > 1 else PAGE).write_text(make_page(answers))


if __name__ == "__main__":
    main()
