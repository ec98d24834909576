"""Train one plan on two hosts and with one process: ``python tests/benchmarks/two_hosts.py -w WORKSPACE -d D -a P``.

The hosts are two network namespaces with a virtual cable between them, which needs root and Linux; what runs in one
reaches the other through that cable only. Both see the same disk, as hosts of a cluster do. The plan should be short,
in fp32, and train with SGD: Adam makes differences of rounding large. Writes docs/benchmarks/two_hosts.md.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from autoseg.data.workspace import Workspace

ROOT = Path(__file__).parents[2]
HOSTS = ("autoseg_a", "autoseg_b")
ADDRESSES = ("10.83.61.1", "10.83.61.2")
PORT = 29417


def main() -> None:
    """Train on two hosts, then with one process, and write how far apart the results are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-w", "--workspace", type=Path, required=True)
    parser.add_argument("-d", "--dataset", required=True)
    parser.add_argument("-a", "--plan", required=True)
    options = parser.parse_args()
    folder = Workspace(options.workspace).fold(options.dataset, options.plan, 0)
    training = ["-m", "autoseg.cli.train", "-d", options.dataset, "-a", options.plan, "-f", "0"]
    training += ["-w", str(options.workspace), "--device", "cpu", "-j", "1"]
    _begin_anew(folder)
    with _two_hosts():
        _train_on_both(training)
    together = _read_weights(folder), _read_log(folder)
    _begin_anew(folder)
    subprocess.run([sys.executable, *training], check=True)
    _write_report(together, (_read_weights(folder), _read_log(folder)))


@contextmanager
def _two_hosts() -> Iterator[None]:
    """Make the two namespaces and the cable between them, and take them away again."""
    ends = [f"{host}_end" for host in HOSTS]
    try:
        for host in HOSTS:
            _ip("netns", "add", host)
        _ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for host, end, address in zip(HOSTS, ends, ADDRESSES):
            _ip("link", "set", end, "netns", host)
            _ip("-n", host, "address", "add", f"{address}/24", "dev", end)
            _ip("-n", host, "link", "set", end, "up")
            _ip("-n", host, "link", "set", "lo", "up")
        yield
    finally:
        for host in HOSTS:
            subprocess.run(["ip", "netns", "del", host], check=False)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def _train_on_both(training: list[str]) -> None:
    """Start torchrun on either host, as a user does on each of two machines."""
    meeting = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "autoseg"]
    meeting += ["--rdzv-endpoint", f"{ADDRESSES[0]}:{PORT}"]
    running = []
    for host, address in zip(HOSTS, ADDRESSES):
        # both namespaces have the machine's name, by which torchrun would know where they meet
        here = ["--rdzv-conf", f"is_host={int(address == ADDRESSES[0])}"]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": f"{host}_end"}
        enter = ["ip", "netns", "exec", host, sys.executable, "-m", "torch.distributed.run"]
        running.append(subprocess.Popen([*enter, *meeting, *here, "--local-addr", address, *training], env=environment))
    if failed := [host for host, process in zip(HOSTS, running) if process.wait()]:
        raise SystemExit(f"torchrun failed on {', '.join(failed)}")


def _begin_anew(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _read_weights(folder: Path) -> torch.Tensor:
    checkpoint = torch.load(folder / "checkpoints" / "last.pt", weights_only=True)
    return torch.cat([weights.flatten().double() for weights in checkpoint["network"].values()])


def _read_log(folder: Path) -> str:
    """Return train.log without dates, and without the machine's name."""
    lines = (folder / "logs" / "train.log").read_text(encoding="utf-8").splitlines()
    return "\n".join(line[21:] for line in lines if " on " not in line)


def _write_report(two: tuple[torch.Tensor, str], one: tuple[torch.Tensor, str]) -> None:
    difference = (two[0] - one[0]).norm() / one[0].norm()
    text = f"""# Two hosts

`tests/benchmarks/two_hosts.py`: the same training on two hosts with one Gloo process each, and with one process.
The hosts are network namespaces joined by a virtual cable. The weights of the last checkpoints differ by
{difference:.1e} of their norm (the largest single difference is {(two[0] - one[0]).abs().max():.1e}).

Two hosts:

```
{two[1]}
```

One process:

```
{one[1]}
```
"""
    (ROOT / "docs" / "benchmarks" / "two_hosts.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
