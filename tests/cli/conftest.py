"""A workspace planned and preprocessed through the command, with a plan small enough to be trained in a test."""

import io
import os
import runpy
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from autoseg.cli import plan

TINY = (
    "training.patch_size=[16,16,16]",
    'network.config={"strides":[[1,1,1],[2,2,2]],"kernel_sizes":[[3,3,3],[3,3,3]],"features_per_stage":[4,8],'
    '"blocks_per_stage_encoder":[1,1],"blocks_per_stage_decoder":[1]}',
    "training.batch_size=2",
    "training.epochs=12",
    "training.iterations_per_epoch=6",
    "training.validation_iterations=2",
    "prediction.mirror_axes=[]",
)


class Command:
    """A command in a process of its own, started quickly; to a test it is what ``subprocess.Popen`` gives."""

    def __init__(self, forks: ForkServerContext, folder: Path, name: str, arguments: list[str], largest: int) -> None:
        self._out, self._err = folder / "out.txt", folder / "err.txt"
        order = {"name": name, "arguments": arguments, "out": str(self._out), "err": str(self._err)}
        order |= {"environment": dict(os.environ), "largest_file": largest}
        script = Path(__file__).with_name("command_process.py")
        self._process = forks.Process(target=runpy.run_path, args=(str(script), {"ORDER": order}, "__main__"))
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float = 300.0) -> int:
        self._process.join(timeout)
        assert self.returncode is not None, f"still running after {timeout} s"
        return self.returncode

    def communicate(self) -> tuple[str, str]:
        """Wait for the end; return what was written to standard output and to standard error."""
        self.wait()
        return self._out.read_text(encoding="utf-8"), self._err.read_text(encoding="utf-8")

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)


Start = Callable[..., Command]


@pytest.fixture
def start(forks: ForkServerContext, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Start commands: ``start("train", "-d", ...)``, with ``largest_file`` no file grows beyond so many bytes."""
    started = []

    def start_one(name: str, *arguments: str, largest_file: int = 0) -> Command:
        started.append(Command(forks, tmp_path_factory.mktemp(name), name, list(arguments), largest_file))
        return started[-1]

    yield start_one
    for command in started:
        if command.poll() is None:
            command.send_signal(signal.SIGKILL)
            command.wait()


@pytest.fixture(scope="session")
def planned_once(tmp_path_factory: pytest.TempPathFactory, phantom_folder: Path) -> Path:
    """Root of a workspace with the plan ``tiny`` of the phantom, and the command's answer.json; read only."""
    root = tmp_path_factory.mktemp("planned")
    (root / "raw").symlink_to(phantom_folder.parent)
    settings = [word for text in TINY for word in ("--set", text)]
    with redirect_stdout(io.StringIO()) as out:
        assert plan.main(["-d", "Phantom", "-w", str(root), "-a", "unet", "--name", "tiny", *settings, "--json"]) == 0
    (root / "answer.json").write_text(out.getvalue())
    return root


@pytest.fixture
def planned(planned_once: Path, tmp_path: Path) -> Path:
    """An own copy of the planned workspace; its raw images are shared."""
    root = tmp_path / "planned"
    shutil.copytree(planned_once, root, symlinks=True)
    return root


@pytest.fixture
def own_raw(workspace: Path, phantom_folder: Path) -> Path:
    """The phantom's raw folder as a copy of ``workspace``'s own, that a test may change."""
    (workspace / "raw").unlink()
    shutil.copytree(phantom_folder, workspace / "raw" / phantom_folder.name)
    return workspace / "raw" / phantom_folder.name
