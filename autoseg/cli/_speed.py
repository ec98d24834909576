"""What ``autoseg_train --benchmark`` prints."""

from typing import TYPE_CHECKING, Any

from autoseg.plurals import count

if TYPE_CHECKING:
    from autoseg.train.benchmark import Speed
    from autoseg.train.laps import Part

TITLES: dict["Part", str] = {
    "waiting": "waiting for data",
    "transfer": "transfer to the device",
    "augmentation": "augmentation",
    "forward": "forward",
    "loss": "loss",
    "backward": "backward",
    "optimizer": "optimiser",
}


def describe_speed(speed: "Speed") -> str:
    """Return the figures of the whole iteration as sentences, a line each."""
    each = speed.iteration_seconds
    memory = "" if speed.peak_memory_gb is None else f", peak memory {speed.peak_memory_gb:.2f} GB"
    size = "x".join(map(str, speed.patch_size))
    return (
        f"{speed.plan} on {speed.device} in {speed.precision}, {speed.network}; {count(speed.threads, 'CPU thread')}, "
        f"{count(speed.workers, 'worker')}, augmented {_augmented(speed)}{memory}\n"
        f"{_time(each)} an iteration of {speed.patches} patches of {size}: {1 / each:.3g} iterations/s, "
        f"{speed.patches / each:.3g} patches/s, {speed.iterations} measured\n"
        f"{speed.operations / each / 1e12:.3g} TFLOP/s, {100 * speed.share_of_peak:.0f} % of the "
        f"{speed.attainable_rate / 1e12:.3g} that a matrix product reaches here in {speed.precision}\n"
        f"the network's step alone takes {_time(speed.bare_seconds)}; loop, data and augmentation add "
        f"{_added(speed.overhead)}"
    )


def speed_table(speed: "Speed") -> Any:
    """Return a table of the parts of an iteration."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("part of an iteration", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("share", justify="right", no_wrap=True)
    total = sum(speed.parts.values())
    for part, seconds in speed.parts.items():
        table.add_row(TITLES[part], _time(seconds), f"{100 * seconds / total:.1f} %")
    for part, seconds in speed.meanwhile.items():
        table.add_row(f"{TITLES[part]}, meanwhile", _time(seconds), "")
    return table


def _augmented(speed: "Speed") -> str:
    return "on the device" if speed.augmented_on == "device" else "by the workers"


def _added(overhead: float) -> str:
    percent = f"{100 * overhead:.1f} %"
    return percent if overhead > 0 else f"nothing that can be told from noise ({percent})"


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1e3 * seconds:.1f} ms"
