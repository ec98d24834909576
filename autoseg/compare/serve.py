"""Serving reports and TensorBoard on the loopback address, for people who sit elsewhere."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import AF_INET, SOCK_STREAM, socket
from typing import Any

LOOPBACK = "127.0.0.1"
TENSORBOARD_PORT = 6006
HOSTS = (LOOPBACK, "localhost")


class _Handler(SimpleHTTPRequestHandler):
    """Serves files of one folder to who asks for the loopback address by name, and logs nothing.

    Refusing other names keeps web pages from reading reports through a name that they let point here.
    """

    def send_head(self) -> Any:
        if self.headers.get("Host", "").rsplit(":", 1)[0] not in HOSTS:
            self.send_error(HTTPStatus.FORBIDDEN, "only localhost is served")
            return None
        if not Path(self.translate_path(self.path)).resolve().is_relative_to(Path(self.directory).resolve()):
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        return super().send_head()

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the terminal quiet."""


class _Server(ThreadingHTTPServer):
    """Takes no notice of browsers that go away before they have read all."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def make_server(folder: Path, port: int) -> ThreadingHTTPServer:
    """Return a server of ``folder`` on the loopback address; on another port where ``port`` is taken."""
    handler = partial(_Handler, directory=str(folder))
    return _Server((LOOPBACK, free_port(port)), handler)


def free_port(wanted: int) -> int:
    """Return ``wanted`` if nobody listens there, else some free port."""
    for port in (wanted, 0):
        with socket(AF_INET, SOCK_STREAM) as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
            return found
    return wanted


@contextmanager
def run_tensorboard(results: Path) -> Iterator[str]:
    """Run TensorBoard on the event files below ``results`` while the context lasts; yields its address."""
    port = free_port(TENSORBOARD_PORT)
    options = ("--logdir", str(results), "--host", LOOPBACK, "--port", str(port), "--reload_multifile", "true")
    process = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield f"http://{LOOPBACK}:{port}/"
    finally:
        process.terminate()
        process.wait()
