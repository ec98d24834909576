"""The process that talks to ClearML: ``python -m autoseg.train.clearml_process SETTINGS`` with messages on its input.

ClearML takes signals, forks, hooks ``sys.exit`` and may wait for a network; here it does so where no training is. Each
line of the input is a JSON message (see ``tracking.py``); the end of the input without a farewell means that whoever
wrote it was killed. What is to be told to the user goes to the output, everything else to the error stream.
"""

import base64
import io
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import IO, Any

FRAMEWORKS = (
    "matplotlib", "tensorflow", "tensorboard", "pytorch", "xgboost", "scikit", "fastai", "lightgbm", "hydra",
    "detect_repository", "tfdefines", "joblib", "megengine", "catboost", "gradio", "jsonargparse",
)  # fmt: skip
"""All that ClearML would look into by itself; nothing is sent but what the messages say."""


class Task:
    """A task of ClearML, from its first to its last message."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """Begin a new task; the server and the credentials are those of ClearML's own configuration."""
        import clearml

        # ClearML's sdk.development.report_use_subprocess: this process does nothing else, and the end of a task would
        # wait ten seconds for another one
        self._clearml: Any = clearml
        self._clearml.Task._report_subprocess_enabled = False
        self._task: Any = clearml.Task.init(
            project_name=settings["project"],
            task_name=settings["name"],
            task_type=settings["kind"],
            tags=settings["tags"],
            reuse_last_task_id=False,
            auto_connect_arg_parser=False,
            auto_connect_frameworks=dict.fromkeys(FRAMEWORKS, False),
            auto_resource_monitoring=False,
            auto_connect_streams=False,
        )

    def where(self) -> str:
        """Return where the task is seen."""
        if self._clearml.Task.is_offline():
            return f"offline, {self._task.get_offline_mode_folder()}.zip when it is over"
        return str(self._task.get_output_log_web_page())

    def do(self, message: dict[str, Any]) -> None:
        """Do what a message says."""
        getattr(self, f"_{message.pop('do')}")(**message)

    def end(self, state: str, reason: str) -> None:
        """Close the task as ``finished``, ``failed`` or ``stopped``."""
        if state == "failed":
            self._task.mark_failed(status_reason=reason, status_message=reason)
        elif state == "stopped":
            self._task.mark_stopped(status_message=reason)
        self._task.close()

    def _parameters(self, values: dict[str, Any]) -> None:
        self._task.set_parameters(values)

    def _document(self, name: str, content: str) -> None:
        self._task.set_configuration_object(name, config_text=content, config_type="json")

    def _scalars(self, values: dict[str, float], epoch: int) -> None:
        for tag, value in values.items():
            title, _, series = tag.partition("/")
            self._task.get_logger().report_scalar(title, series or title, value, epoch)

    def _values(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._task.get_logger().report_single_value(name, value)

    def _picture(self, title: str, png: str, epoch: int) -> None:
        from PIL import Image

        picture = Image.open(io.BytesIO(base64.b64decode(png)))
        self._task.get_logger().report_image(title, "slices", epoch, image=picture)

    def _attach(self, name: str, path: str) -> None:
        self._task.upload_artifact(name, artifact_object=Path(path), wait_on_upload=True)


def follow(settings: dict[str, Any], messages: IO[str], out: IO[str]) -> int:
    """Begin a task, do what the messages say, and close it; return how many of them could not be done."""
    task = Task(settings)
    for number in (signal.SIGINT, signal.SIGTERM):  # whoever writes the messages decides when it is over
        signal.signal(number, signal.SIG_IGN)
    out.write(f"{task.where()}\n")
    out.flush()
    failed, state, reason = 0, "stopped", "its process ended without a word"
    for line in messages:
        message = json.loads(line)
        if message["do"] == "end":
            state, reason = message["state"], message["reason"]
            break
        try:
            task.do(message)
        except Exception:  # a file that the server does not take, say: what comes after is told all the same
            traceback.print_exc()
            failed += 1
    task.end(state, reason)
    return failed


def main() -> None:
    """Follow the standard input; ClearML's own words go to the error stream."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    with open(0, encoding="utf-8", closefd=False) as messages:
        try:
            failed = follow(json.loads(sys.argv[1]), messages, out)
        except Exception as error:
            traceback.print_exc()
            sys.exit(f"{type(error).__name__}: {' '.join(str(error).split())}")
    if failed:
        sys.exit(f"{failed} things could not be told")


if __name__ == "__main__":
    main()
