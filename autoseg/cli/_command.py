"""What every command shares: running it, its options, and how a mistake, an interruption or a bug ends it."""

import errno
import functools
import inspect
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from contextvars import ContextVar
from enum import Enum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Optional, TextIO

import typer
from typer.exceptions import TyperException

from autoseg import __version__
from autoseg.cli._completion import complete_dataset, install_completion, prepare_completion

if TYPE_CHECKING:
    from autoseg.documents import Document

# Read when PyTorch is imported. Threads that have nothing to do give their core away at once instead of spinning: where
# another program wants a core too, spinning makes a step several times as long, and where none does, it gains little.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

SOME_FAILED = 1
"""Some cases could not be worked on; the others are done."""

USER_ERROR = 2
INTERRUPTED = 130

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
"""What the system says where there is no room, or no right, to write or read a file: for the user to mend, no bug."""

DATASET_HELP = "Dataset: its name in raw/ (or $nnUNet_raw), or a path to its folder."
DatasetOption = Annotated[str, typer.Option("-d", "--dataset", help=DATASET_HELP, autocompletion=complete_dataset)]
OptionalDatasetOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("-d", "--dataset", help=DATASET_HELP, autocompletion=complete_dataset),
]
WorkspaceOption = Annotated[
    Optional[Path],  # noqa: UP045 (typer reads the annotation at run time on Python 3.10 too)
    typer.Option("-w", "--workspace", help="Folder of raw/, plans/, results/ ...; else $AUTOSEG_WORKSPACE, else here."),
]


class Service(str, Enum):  # noqa: UP042 (StrEnum is Python 3.11's)
    """Where trainings, searches and reports are told of."""

    clearml = "clearml"


LoggerOption = Annotated[
    Optional[Service],  # noqa: UP045
    typer.Option("--logger", help="Tell this service too (pip install 'autoseg[clearml]'), as itself is configured."),
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.")]
WorkersOption = Annotated[
    int, typer.Option("-j", "--workers", min=0, help="Parallel workers; 0: one a core, at most 8.")
]


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"autoseg {__version__}")
        raise typer.Exit()


COMMON_OPTIONS = {
    "version": typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True),
    "install_completion": typer.Option(
        "--install-completion",
        help="Let this shell complete all commands, and exit.",
        callback=install_completion,
        is_eager=True,
    ),
}
"""What every command has besides its own options."""

JSON_OPTION = typer.Option("--json", help="Print the result as JSON alone, and all that is for people elsewhere.")

_program: ContextVar[TextIO | None] = ContextVar("_program", default=None)
"""Where the answer goes if a program asked for it with ``--json``."""


def run(command: Callable[..., None], arguments: Sequence[str] | None = None, *, answers: bool = False) -> int:
    """Parse ``arguments`` (default: the command line), call ``command``, and return the exit status.

    0 is success; 2 a mistake of the user's, told in one line on standard error; 130 an interruption. A bug keeps its
    traceback. With ``answers`` the command has the option ``--json``, and calls ``answer``.
    """
    from autoseg.errors import AutosegError

    program = f"autoseg_{command.__name__}"
    prepare_completion(program)
    app = make_app(command, answers=answers)
    try:
        with _sigterm_interrupts():
            given = list(arguments) if arguments is not None else None
            status = app(args=given, prog_name=program, standalone_mode=False)
    except TyperException as error:
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        return _refuse(f"{message.rstrip('.')}; see --help")
    except AutosegError as error:
        return _refuse(str(error))
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        where = error.filename or "writing"
        return _refuse(f"{where}: {error.strerror}; see to room and access there, then run this again")
    return int(status or 0)  # typer returns the status of typer.Exit


def make_app(command: Callable[..., None], *, answers: bool = False) -> typer.Typer:
    """Return what parses the options of a command and calls it."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(context_settings={"help_option_names": ["-h", "--help"]})(_wrap(command, answers))
    return app


def answer(document: "Callable[[], Document]") -> None:
    """Print, if a program asked, what the function returns; it is not called otherwise."""
    if (program := _program.get()) is not None:
        from autoseg.documents import to_text

        program.write(to_text(document()))
        program.flush()


def num_workers(option: int) -> int:
    """Return the number of workers that the option ``-j`` asks for."""
    return option or min(os.cpu_count() or 1, 8)


def console() -> Any:
    """Return the console for results; outside a terminal it writes plain text of a fixed width."""
    from rich.console import Console

    terminal = sys.stdout.isatty()
    return Console(highlight=False, width=None if terminal else 120, soft_wrap=not terminal)


def _refuse(message: str) -> int:
    sys.stderr.write("error: " + " ".join(message.split()) + "\n")
    return USER_ERROR


def _wrap(command: Callable[..., None], answers: bool) -> Callable[..., None]:
    """Return ``command`` with the common options, and with Ctrl-C and SIGTERM told in one line.

    Typer itself would end without a word.
    """
    common = COMMON_OPTIONS | ({"json": JSON_OPTION} if answers else {})

    @functools.wraps(command)
    def wrapped(*arguments: Any, **options: Any) -> None:
        own = {name: value for name, value in options.items() if name not in common}
        try:
            with _answering(options.get("json", False)):
                command(*arguments, **own)
        except KeyboardInterrupt as interruption:
            told = " ".join(str(interruption).split()) or "interrupted; the same command goes on from there"
            sys.stderr.write(f"{told}\n")
            raise typer.Exit(INTERRUPTED) from None

    own = inspect.signature(command, eval_str=True)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[bool, option])
        for name, option in common.items()
    ]
    wrapped.__signature__ = own.replace(parameters=[*own.parameters.values(), *added])  # type: ignore[attr-defined]
    return wrapped


@contextmanager
def _answering(asked: bool) -> Iterator[None]:
    """Let ``answer`` write to standard output, and everything else to standard error, where a program asked."""
    before = _program.set(sys.stdout if asked else None)
    try:
        with redirect_stdout(sys.stderr) if asked else nullcontext():
            yield
    finally:
        _program.reset(before)


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
