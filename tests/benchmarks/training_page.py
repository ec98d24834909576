"""The page and the picture of ``training_speed.py``."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "benchmarks"
NAMES = {"autoseg": "autoseg", "nnunet": "nnU-Net 2.8.1"}
COLOURS = {"autoseg": "#0b6e99", "nnunet": "#c4622d"}
OTHER_SEEDS = "#7fb8d4"
WIDTH, HEIGHT, MARGIN = 720, 360, 50

Document = dict[str, Any]


def write_page(document: Document) -> None:
    """Write training_speed.md, and the picture if there are trainings."""
    parts = {"speed": _speed, "dice": _dice, "gpu": _gpu}
    lines = [
        "# Training beside nnU-Net", "",
        "Made by `tests/benchmarks/training_speed.py`: the same data, folds, patch, batch and network (equally many "
        "weights), each side with its own loader, augmentation, loss and step, and equally many loaders.",
    ]  # fmt: skip
    for name, write in parts.items():
        if name in document:
            lines += ["", *write(document[name])]
    if missing := [name for name in parts if name not in document]:
        lines += ["", f"Not measured yet: {', '.join(missing)}."]
    (FOLDER / "training_speed.md").write_text("\n".join(lines) + "\n")


def _speed(found: Document) -> list[str]:
    own, peer = (found["sides"][side] for side in NAMES)
    lines = [
        "## An iteration on a CPU", "", _about(found), "",
        "Blocks of both sides alternate, the other side being stopped meanwhile. Medians of "
        f"{len(own['loop'])} blocks, least and most in brackets. CPU seconds are those of all of a side's processes: "
        "a busy machine stretches the clock's seconds, and much less these.", "",
        "| an iteration | precision | seconds | CPU seconds | bare step, seconds | CPU seconds | loop over bare step |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for side, name in NAMES.items():
        row = found["sides"][side]
        cells = [_spread(row[kind], key) for kind in ("loop", "bare") for key in ("seconds", "cpu_seconds")]
        overhead = 100 * (_median(row["loop"], "cpu_seconds") / _median(row["bare"], "cpu_seconds") - 1)
        lines.append(f"| {name} | {row['precision']} | {' | '.join(cells)} | {overhead:+.1f} % of CPU seconds |")
    ratios = {
        (kind, key): _median(peer[kind], key) / _median(own[kind], key)
        for kind in ("loop", "bare") for key in ("seconds", "cpu_seconds")
    }  # fmt: skip
    lines += [
        "",
        f"**nnU-Net's iteration takes {ratios['loop', 'seconds']:.2f} times autoseg's by the clock, "
        f"{ratios['loop', 'cpu_seconds']:.2f} times in CPU seconds**; its bare step {ratios['bare', 'seconds']:.2f} "
        f"and {ratios['bare', 'cpu_seconds']:.2f} times.",
    ]  # fmt: skip
    return lines


def _dice(found: Document) -> list[str]:
    curves = {side: row["losses"] for side, row in found["sides"].items()}
    (FOLDER / "training_speed.svg").write_text(draw_losses(curves))
    regions = list(found["sides"]["autoseg"]["dice"])
    lines = [
        f"## The same training: {found['iterations']} iterations", "", _about(found), "",
        "nnU-Net's optimiser, learning rate and schedule, cut to this length; whole validation cases of fold 0, scored "
        "by `autoseg_evaluate`. Minutes are those of the epochs, each with 5 iterations of validation.",
        "", "| | mean Dice | " + " | ".join(regions) + " | last training loss | minutes |",
        "|" + "---|" * (len(regions) + 4),
    ]  # fmt: skip
    for side, row in found["sides"].items():
        scores = [row["dice"][region] for region in regions]
        cells = [f"{score:.3f}" for score in (sum(scores) / len(scores), *scores)]
        cells += [f"{row['losses'][-1]:.3f}", f"{sum(row['seconds']) / 60:.0f}"]
        lines.append(f"| {_name(side)} | {' | '.join(cells)} |")
    return [*lines, "", "![training loss by epoch](training_speed.svg)", "",
            "Mean training loss of each epoch; nnU-Net's is raised by 1, so that 0 is perfect for both."]  # fmt: skip


def _name(side: str) -> str:
    return NAMES.get(side) or side.replace("_seed", ", seed ")


def _gpu(found: Document) -> list[str]:
    lines = [
        "## Patches a second on a GPU", "",
        f"On {found['device']}; medians of blocks, which alternate. {found['rows'][0]['note']}",
        "", "| plan | patch | batch | loaders | side | patches/s | utilisation | peak memory | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in found["rows"]:
        size, batch = row["configuration"]["patch_size"], row["configuration"]["batch_size"]
        rates = {side: batch / _median(row["sides"][side]["loop"], "seconds") for side in NAMES}
        for side, name in NAMES.items():
            blocks = row["sides"][side]["loop"]
            values = [block["utilisation"] for block in blocks if block["utilisation"] is not None]
            busy = f"{sum(values) / len(values):.0f} %" if values else ""
            memory = f"{_median(blocks, 'peak_memory_gb'):.2f} GB"
            ratio = f"{rates['autoseg'] / rates['nnunet']:.2f} times" if side == "autoseg" else ""
            lines.append(
                f"| {row['plan']} | {'x'.join(map(str, size))} | {batch} | {row['workers']} | {name} "
                f"({row['sides'][side]['precision']}) | {rates[side]:.1f} | "
                f"{busy} | {memory} | {ratio} |"
            )
    return lines


def _about(found: Document) -> str:
    size = "x".join(map(str, found["configuration"]["patch_size"]))
    text = (
        f"{found['dataset']}, plan `{found['plan']}`: batch {found['configuration']['batch_size']} of {size}; "
        f"{found['device']}, {found['cores']} cores, {found['workers']} loader(s) a side."
    )
    return f"{text} **{found['note']}**" if found["note"] else text


def _median(blocks: Iterable[Document], key: str) -> float:
    return median(block[key] for block in blocks)


def _spread(blocks: Sequence[Document], key: str) -> str:
    values = [block[key] for block in blocks]
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def draw_losses(losses: dict[str, list[float]]) -> str:
    """Return an SVG picture of the curves, one value an epoch."""
    top = max(value for curve in losses.values() for value in curve)
    bottom = min(0.0, *(value for curve in losses.values() for value in curve))
    count = max(len(curve) for curve in losses.values())

    def place(index: int, value: float) -> str:
        x = MARGIN + (WIDTH - 2 * MARGIN) * index / max(count - 1, 1)
        y = HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * (value - bottom) / (top - bottom)
        return f"{x:.1f},{y:.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for step in range(5):
        value = bottom + (top - bottom) * step / 4
        start, end = place(0, value), place(count - 1, value)
        parts.append(f'<polyline points="{start} {end}" stroke="#ddd"/>')
        parts.append(_text(MARGIN - 8, float(start.partition(",")[2]) + 4, "end", "#333", f"{value:.2f}"))
    for number, (side, curve) in enumerate(losses.items()):
        points = " ".join(place(index, value) for index, value in enumerate(curve))
        colour = COLOURS.get(side, OTHER_SEEDS)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(_text(WIDTH - MARGIN, MARGIN + 18 * number, "end", colour, _name(side)))
    for index, text in ((0, "1"), (count - 1, f"epoch {count}")):
        x, _, y = place(index, bottom).partition(",")
        parts.append(_text(float(x), float(y) + 22, "middle", "#333", text))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _text(x: float, y: float, anchor: str, colour: str, text: str) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{colour}" font-size="13">{text}</text>'
