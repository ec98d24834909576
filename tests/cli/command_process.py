"""A command in a process that a test has forked off (see ``Command`` in conftest.py), which gives it ``ORDER``."""

import importlib
import os
import resource
import signal
import sys
from typing import Any


def main(order: dict[str, Any]) -> int:
    """Run the command as if it had been typed: output and environment are its own, signals end it."""
    for number, path in ((1, order["out"]), (2, order["err"])):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.environ.clear()
    os.environ.update(order["environment"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if order["largest_file"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["largest_file"], order["largest_file"]))
    status: int = importlib.import_module(f"autoseg.cli.{order['name']}").main(order["arguments"])
    return status


if __name__ == "__main__":
    sys.exit(main(globals()["ORDER"]))
