"""Line charts as pictures, drawn by Pillow; plotly, which draws the report, needs a browser to make pictures."""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

PALETTE: tuple[Colour, ...] = (
    (31, 119, 180), (214, 84, 28), (44, 145, 75), (148, 90, 190), (190, 150, 20), (20, 150, 165), (214, 90, 160),
    (110, 110, 110), (140, 86, 75), (120, 150, 40),
)  # fmt: skip
"""Colours that are told apart on white, also in print; taken in turn."""

INK, GRID, FAINT, PAPER = (40, 40, 40), (225, 225, 225), (110, 110, 110), (255, 255, 255)
SCALE = 2
"""Pixels of the picture for each unit below, so that lines and letters are smooth on any screen."""

WIDTH, HEIGHT = 560, 320
"""Size of one chart."""

LEFT, RIGHT, TOP, BOTTOM = 62, 14, 62, 36
"""Margins around the axes; the legend stands in the upper one."""

TEXT, TITLE = 11, 13
LEGEND_ROWS = 2
FONTS = ("DejaVuSans.ttf", "LiberationSans-Regular.ttf", "Arial.ttf", "Arial Unicode.ttf")
NUM_TICKS = 5
NUM_EPOCH_TICKS = 8
DOTTED_UP_TO = 60
"""Points up to which each is marked with a dot; more would melt into the line."""


@dataclass(frozen=True)
class Line:
    """One curve over the epochs; None where there is no value, which leaves a gap."""

    name: str
    values: Sequence[float | None]
    colour: Colour
    width: int = 2


@dataclass(frozen=True)
class Chart:
    """Curves on common axes.

    Attributes:
        title: what is shown, with its unit.
        lines: the curves, whose first values are those of epoch ``first``; the first curve lies above the others.
        limits: lowest and highest value shown; None where the curves decide.
    """

    title: str
    lines: Sequence[Line]
    first: int = 1
    limits: tuple[float | None, float | None] = field(default=(None, None))


def draw_charts(title: str, charts: Sequence[Chart], *, columns: int = 2) -> Image.Image:
    """Return charts side by side below a common title."""
    head = 34
    rows = -(-len(charts) // columns)
    picture = Image.new("RGB", (columns * WIDTH * SCALE, (rows * HEIGHT + head) * SCALE), PAPER)
    draw = ImageDraw.Draw(picture)
    _text(draw, (LEFT, 10), title, TITLE + 2)
    for index, chart in enumerate(charts):
        _draw_chart(draw, chart, (index % columns * WIDTH, head + index // columns * HEIGHT))
    return picture


def find_ticks(low: float, high: float, count: int) -> list[float]:
    """Return about ``count`` round numbers (1, 2, 2.5 or 5 times a power of ten apart) between two values."""
    step = _round((high - low) / max(count, 1))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def format_tick(value: float) -> str:
    """Return a round number as short as it can be written."""
    return f"{value:.6g}".replace("e-0", "e-").replace("e+0", "e")


def _round(step: float) -> float:
    """Return what is nearest to ``step`` of 1, 2, 2.5, 5 and 10 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return min((factor * power for factor in (1, 2, 2.5, 5, 10)), key=lambda one: abs(math.log(one / step)))


def _draw_chart(draw: ImageDraw.ImageDraw, chart: Chart, corner: tuple[int, int]) -> None:
    left, top = corner[0] + LEFT, corner[1] + TOP
    right, bottom = corner[0] + WIDTH - RIGHT, corner[1] + HEIGHT - BOTTOM
    count = max((len(line.values) for line in chart.lines), default=0)
    low, high = _limits(chart)
    last = chart.first + max(count - 1, 1)

    def place(epoch: float, value: float) -> tuple[float, float]:
        across = (epoch - chart.first) / (last - chart.first)
        return left + across * (right - left), bottom - (value - low) / (high - low) * (bottom - top)

    for tick in find_ticks(low, high, NUM_TICKS):
        y = place(chart.first, tick)[1]
        _line(draw, [(left, y), (right, y)], GRID, 1)
        _text(draw, (left - 6, y), format_tick(tick), TEXT, FAINT, anchor="rm")
    for epoch in _epoch_ticks(chart.first, last):
        x = place(epoch, low)[0]
        _line(draw, [(x, bottom), (x, bottom + 4)], FAINT, 1)
        _text(draw, (x, bottom + 6), str(epoch), TEXT, FAINT, anchor="mt")
    _text(draw, (right, bottom + 21), "epoch", TEXT, FAINT, anchor="rt")
    _line(draw, [(left, top), (left, bottom), (right, bottom)], FAINT, 1)
    for line in reversed(chart.lines):
        points = [None if v is None else place(chart.first + i, v) for i, v in enumerate(line.values)]
        _draw_curve(draw, points, line, dotted=count <= DOTTED_UP_TO)
    _text(draw, (left, corner[1] + 6), chart.title, TITLE)
    _draw_legend(draw, chart.lines, (left, corner[1] + 32), right)


def _epoch_ticks(first: int, last: int) -> list[int]:
    """Return whole epochs only."""
    step = max(1, round(_round((last - first) / NUM_EPOCH_TICKS)))
    return list(range(-(-first // step) * step, last + 1, step))


def _limits(chart: Chart) -> tuple[float, float]:
    """Return what the axis runs between: the values with a little air, or what the chart demands."""
    values = [value for line in chart.lines for value in line.values if value is not None and math.isfinite(value)]
    least, most = (min(values), max(values)) if values else (0.0, 1.0)
    air = 0.05 * (most - least) or 0.05 * abs(most) or 0.5
    low, high = chart.limits
    low = least - air if low is None else low
    high = most + air if high is None else high
    return (low, high) if high > low else (low, low + 1.0)


def _draw_curve(
    draw: ImageDraw.ImageDraw, points: Sequence[tuple[float, float] | None], line: Line, *, dotted: bool
) -> None:
    piece: list[tuple[float, float]] = []
    for point in (*points, None):
        if point is not None:
            piece.append(point)
            continue
        if len(piece) > 1:
            _line(draw, piece, line.colour, line.width)
        for x, y in piece if dotted or len(piece) == 1 else ():
            radius = line.width + 0.5
            draw.ellipse([SCALE * edge for edge in (x - radius, y - radius, x + radius, y + radius)], line.colour)
        piece = []


def _draw_legend(draw: ImageDraw.ImageDraw, lines: Sequence[Line], corner: tuple[float, float], right: float) -> None:
    """Write the names beside short strokes in two rows at most; what does not fit is counted."""
    (x, y), rows = corner, 1
    for index, line in enumerate(lines):
        rest = f"and {len(lines) - index} more"
        more = _length(rest) + 26 if rows == LEGEND_ROWS and index + 1 < len(lines) else 0
        if x + 23 + _length(line.name) + more > right and x > corner[0]:
            if rows == LEGEND_ROWS:
                _text(draw, (x, y), rest, TEXT, FAINT, anchor="lm")
                return
            (x, y), rows = (corner[0], y + 16), rows + 1
        _line(draw, [(x, y), (x + 18, y)], line.colour, line.width + 1)
        _text(draw, (x + 23, y), line.name, TEXT, anchor="lm")
        x += 23 + _length(line.name) + 16


def _line(draw: ImageDraw.ImageDraw, points: Sequence[tuple[float, float]], colour: Colour, width: int) -> None:
    draw.line([(SCALE * x, SCALE * y) for x, y in points], fill=colour, width=width * SCALE, joint="curve")


def _text(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    size: int,
    colour: Colour = INK,
    *,
    anchor: str = "la",
) -> None:
    at = SCALE * place[0], SCALE * place[1]
    draw.text(at, text, fill=colour, font=_font(size), anchor=anchor)


def _length(text: str) -> float:
    return float(_font(TEXT).getlength(text)) / SCALE


@cache
def _font(size: int) -> Any:
    """Return a font of the system that knows more than English letters, or Pillow's own."""
    for name in FONTS:
        with suppress(OSError):
            return ImageFont.truetype(name, size * SCALE)
    return ImageFont.load_default(size * SCALE)
