"""Telling a tracking service what happens: a process of its own talks to it, and is fed from a thread.

So the service can neither end what is tracked nor hold it up: if its process dies, hangs or loses the network, that is
said once. It sees the end of what it tracks even if that is killed.
"""

import base64
import importlib.util
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import IO, Any, Literal

from PIL import Image

from autoseg.documents import to_text
from autoseg.errors import TrainingError
from autoseg.plan.plan import Plan
from autoseg.train.examples import draw_examples
from autoseg.train.log import Beginning, EpochReport, make_record
from autoseg.train.record import RunRecord
from autoseg.train.tensorboard import EXAMPLES, hyper_parameters, make_scalars

Kind = Literal["training", "optimizer", "qc"]
State = Literal["finished", "failed", "stopped"]

SERVICES = {"clearml": "autoseg.train.clearml_process"}
"""Name of a service, which is that of its package and its extra, to the module that talks to it."""

PROJECT = "autoseg"
PATIENCE_SECONDS = 120.0
"""How long the end waits for what is still to be sent."""

CONNECTION_SECONDS = 30.0
"""How long a service may take, from its start, to answer at all; one that is out of reach tries again without end."""

INHERITED = ("CLEARML_PROC_MASTER_ID", "TRAINS_PROC_MASTER_ID", "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
"""What would make ClearML believe that it is part of another task."""


def check_service(name: str | None) -> None:
    """Refuse to begin without the package of a service.

    Raises:
        TrainingError: it is not installed.
    """
    if name is not None and importlib.util.find_spec(name) is None:
        raise TrainingError(f"--logger {name}: {name} is not installed; run pip install 'autoseg[{name}]'")


class Tracker:
    """One task of a service, begun by the first thing that is told. Nothing raises, and nothing waits but ``close``."""

    def __init__(
        self, service: str, project: str, name: str, *, kind: Kind, log: Path, tell: Callable[[str], None]
    ) -> None:
        """Name the task; ``log`` gets what the service's package says, ``tell`` where the task is and what failed."""
        self.service = service
        self._settings = {"project": f"{PROJECT}/{project}", "name": name, "kind": kind, "tags": [PROJECT]}
        self._log, self._tell = log, tell
        self._waiting: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._process: subprocess.Popen[str] | None = None
        self._failed = self._answered = False
        self._started = 0.0

    @property
    def begun(self) -> bool:
        """Whether anything was told."""
        return self._thread is not None

    def describe(self, plan: Plan, record: RunRecord | None = None, more: Mapping[str, Any] | None = None) -> None:
        """Tell plan and machine, and the plan's numbers as hyper-parameters."""
        self.add_parameters(hyper_parameters(plan.model_dump(mode="json")) | dict(more or {}))
        self._send(do="document", name="plan", content=to_text(plan))
        if record is not None:
            self._send(do="document", name="run", content=to_text(record))

    def add_parameters(self, values: Mapping[str, Any]) -> None:
        """Tell numbers and words that tasks are compared by."""
        self._send(do="parameters", values=dict(values))

    def add_scalars(self, values: Mapping[str, float], epoch: int) -> None:
        """Tell numbers of an epoch; a tag is ``title/series``."""
        self._send(do="scalars", values=dict(values), epoch=epoch)

    def add_values(self, values: Mapping[str, float]) -> None:
        """Tell numbers of the whole."""
        self._send(do="values", values=dict(values))

    def add_picture(self, title: str, picture: Image.Image, epoch: int) -> None:
        """Show a picture."""
        content = io.BytesIO()
        picture.save(content, format="PNG")
        self._send(do="picture", title=title, png=base64.b64encode(content.getvalue()).decode(), epoch=epoch)

    def attach(self, paths: Sequence[Path]) -> None:
        """Attach files, as far as they are there, under their names without ending."""
        for path in paths:
            if path.is_file():
                self._send(do="attach", name=path.stem, path=str(path.resolve()))

    def close(self, state: State = "finished", reason: str = "") -> None:
        """End the task, if there is one, once all is told; one that takes too long is given up."""
        if self._thread is None:
            return
        self._send(do="end", state=state, reason=reason)
        self._waiting.put(None)
        self._wait(self._thread)
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _wait(self, thread: Thread) -> None:
        """Wait for the thread's end, but not long for a service that never answered."""
        thread.join(max(0.0, self._started + CONNECTION_SECONDS - time.monotonic()))
        if not self._answered:
            if thread.is_alive():
                self._complain("it does not answer")
            return
        thread.join(PATIENCE_SECONDS)
        if thread.is_alive():
            self._complain(f"not all was taken after {PATIENCE_SECONDS:.0f} s")

    def _send(self, **message: Any) -> None:
        self._waiting.put(message)
        if self._thread is None:
            self._started = time.monotonic()
            self._thread = Thread(target=self._feed, name=f"autoseg {self.service}", daemon=True)
            self._thread.start()

    def _feed(self) -> None:
        try:
            self._process = process = self._start()
            try:
                self._pass_on(process)
            finally:
                status = process.wait()
            if status:
                raise RuntimeError(self._last_words())
        except Exception as error:  # nothing here may end what is tracked
            self._complain(" ".join(str(error).split()) if isinstance(error, RuntimeError) else repr(error))

    def _pass_on(self, process: "subprocess.Popen[str]") -> None:
        if process.stdin is None or process.stdout is None:
            raise ValueError("the process was started with pipes")
        Thread(target=self._listen, args=(process.stdout,), daemon=True).start()
        with suppress(BrokenPipeError), process.stdin as pipe:
            while (message := self._waiting.get()) is not None:
                pipe.write(json.dumps(message) + "\n")
                pipe.flush()

    def _start(self) -> "subprocess.Popen[str]":
        environment = {name: value for name, value in os.environ.items() if name not in INHERITED}
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("a", encoding="utf-8") as log:
            return subprocess.Popen(
                [sys.executable, "-m", SERVICES[self.service], json.dumps(self._settings)], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=log, text=True, encoding="utf-8", env=environment,
                start_new_session=True,
            )  # fmt: skip

    def _listen(self, pipe: IO[str]) -> None:
        for line in pipe:
            self._answered = True
            self._tell(f"{self.service}: {line.strip()}")

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it ended without a word")

    def _complain(self, what: str) -> None:
        if not self._failed:
            self._failed = True
            self._tell(f"warning: nothing is told to {self.service} from here on: {what}; see {self._log}")


class TrackedTraining:
    """Tells a tracker of a training."""

    def __init__(self, tracker: Tracker, more: Mapping[str, Any] | None = None) -> None:
        """Tell ``tracker``, which outlives the training; ``more`` are hyper-parameters beside the plan's."""
        self.name, self._tracker, self._more = tracker.service, tracker, more

    def begin(self, beginning: Beginning) -> None:
        """Tell plan and machine, and the epochs so far: a training that goes on is a new task that has all of them."""
        self._tracker.describe(beginning.plan, beginning.record, self._more)
        for record in beginning.history:
            self._tracker.add_scalars(make_scalars(record), record["epoch"])

    def add_epoch(self, report: EpochReport) -> None:
        """Tell an epoch."""
        self._tracker.add_scalars(make_scalars(make_record(report)), report.epoch)
        if report.examples is not None:
            self._tracker.add_picture(EXAMPLES, Image.fromarray(draw_examples(report.examples)), report.epoch)

    def rest(self) -> None:
        """Do nothing: the tracker has a thread of its own."""

    def end(self) -> None:
        """Do nothing: what comes after the training belongs to the task too."""


@contextmanager
def tracked(tracker: Tracker | None, *, stops: tuple[type[BaseException], ...] = ()) -> Iterator[None]:
    """Close a tracker at the end of the block: as stopped after an interruption or one of ``stops``, else as failed."""
    state: State = "finished"
    reason = ""
    try:
        yield
    except BaseException as error:
        state = "stopped" if isinstance(error, (KeyboardInterrupt, *stops)) else "failed"
        reason = " ".join(str(error).split()) or type(error).__name__
        raise
    finally:
        if tracker is not None:
            tracker.close(state, reason)
