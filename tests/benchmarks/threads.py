"""What threads that wait do to a training on a CPU: spinning, or giving their core away (OMP_WAIT_POLICY=PASSIVE).

    python tests/benchmarks/threads.py      # about two minutes on two cores

Trains a small network with two threads, beside nothing and beside a program that keeps one core busy, with either kind
of waiting in turn. Writes docs/benchmarks/threads.{json,md}.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from autoseg.train.device import name_cpu

FOLDER = Path(__file__).parents[2] / "docs" / "benchmarks"
SECONDS, ROUNDS = 6.0, 3
POLICIES = {"spinning, as PyTorch does by itself": None, "giving the core away, as the commands set it": "PASSIVE"}
PLACES = {"beside nothing": 0, "beside one busy program": 1}


def work() -> None:
    """Print the seconds that a step takes."""
    import torch
    from torch import nn

    torch.set_num_threads(2)
    blocks = [(nn.Conv3d(16 if i else 1, 16, 3, padding=1), nn.InstanceNorm3d(16), nn.LeakyReLU()) for i in range(6)]
    network = nn.Sequential(*(layer for block in blocks for layer in block))
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    images = torch.randn(2, 1, 32, 32, 32)
    steps, started = -1, time.perf_counter()
    while time.perf_counter() - started < SECONDS:
        if steps < 0:
            started = time.perf_counter()
        steps += 1
        optimizer.zero_grad()
        network(images).square().mean().backward()
        optimizer.step()
    print((time.perf_counter() - started) / (steps + 1))


def measure(policy: str | None, neighbours: int) -> float:
    """Return the seconds of a step beside so many busy programs, each in a session of its own."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_"))}
    environment |= {"OMP_WAIT_POLICY": policy} if policy else {}
    program = [sys.executable, "-c", "while True: pass"]
    busy = [subprocess.Popen(program, start_new_session=True) for _ in range(neighbours)]
    try:
        command = [sys.executable, __file__, "work"]
        return float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
    finally:
        for process in busy:
            process.kill()
            process.wait()


def main() -> None:
    """Measure all four, in turn, and write the page."""
    found: dict[str, dict[str, list[float]]] = {place: {policy: [] for policy in POLICIES} for place in PLACES}
    for _ in range(ROUNDS):
        for place, neighbours in PLACES.items():
            for name, policy in POLICIES.items():
                found[place][name].append(measure(policy, neighbours))
    about = {"cpu": name_cpu(), "cores": os.cpu_count()}
    (FOLDER / "threads.json").write_text(json.dumps({**about, "seconds": found}, indent=1) + "\n", encoding="utf-8")
    lines = [
        "# Threads that wait", "",
        f"Made by `tests/benchmarks/threads.py`: a step of a small network (six convolutions of 16 features on two "
        f"patches of 32^3) with two threads on {about['cpu']}, {about['cores']} cores; medians of {ROUNDS} rounds of "
        f"{SECONDS:g} s, least and most in brackets.", "",
        f"| seconds a step | {' | '.join(PLACES)} |", "|---" * (len(PLACES) + 1) + "|",
    ]  # fmt: skip
    lines += [f"| {name} | {' | '.join(_cell(found[place][name]) for place in PLACES)} |" for name in POLICIES]
    lines += ["", "Set `OMP_WAIT_POLICY=ACTIVE` yourself where a machine does nothing else."]
    (FOLDER / "threads.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _cell(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    work() if sys.argv[1:] == ["work"] else main()
