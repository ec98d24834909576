"""What several processes of a test run together: a training of the tests' small plan.

It is told what to do in its argument (JSON), or in the global ``ORDER`` that ``runpy`` gives it.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from autoseg.data.labels import Labels
from autoseg.data.splits import Fold
from autoseg.documents import read_document
from autoseg.errors import AutosegError
from autoseg.plan.plan import Plan
from autoseg.preprocess.store import CaseStore
from autoseg.train.initial import InitialRun
from autoseg.train.log import Event, IterationReport
from autoseg.train.loop import train_fold
from autoseg.train.machine import Machine
from autoseg.train.processes import open_processes

TAKEN = 3
"""Exit status of a process that the test has broken."""


def main() -> int:
    """Train the plan as ordered; the processes' last words stand in files beside the run."""
    order = globals().get("ORDER") or json.loads(sys.argv[1])
    os.environ.update(globals().get("ENVIRONMENT", {}))
    rank = os.environ.get("RANK", "0")
    device, run_folder = torch.device("cpu"), Path(order["run_folder"])
    labels = Labels.from_names({"background": 0, "ball": 1, "core": 2})
    words = ""
    try:
        with open_processes(device) as processes:
            train_fold(
                read_document(Path(order["plan"]), Plan),
                CaseStore(Path(order["store"]), labels),
                Fold(**{side: tuple(names) for side, names in order["fold"].items()}),
                run_folder,
                Machine(device, 1, compiled="off", processes=processes),
                on_event=_strike(order.get("strike"), int(rank)),
                initial=_open_initial(order.get("initial")),
            )
    except (AutosegError, KeyboardInterrupt) as error:
        words = f"{type(error).__name__}: {error}"
    (Path(order["words"]) / f"{rank}.txt").write_text(words, encoding="utf-8")
    return 0 if not words else 2


def _open_initial(folder: str | None) -> InitialRun | None:
    """Return the run in a folder, whose weights are started from."""
    return InitialRun(read_document(Path(folder) / "plan.json", Plan), 0, Path(folder)) if folder else None


def _strike(order: dict[str, object] | None, rank: int) -> Callable[[Event], None]:
    """Return an ``on_event`` that sends itself a signal, or ends the process, in one iteration of one process."""

    def show(event: Event) -> None:
        if order is None or rank != order["rank"] or not isinstance(event, IterationReport):
            return
        if [event.phase, event.epoch, event.iteration] == order["where"]:
            if order["kind"] == "end":
                os._exit(TAKEN)
            os.kill(os.getpid(), signal.SIGTERM)

    return show


if __name__ == "__main__":
    raise SystemExit(main())
