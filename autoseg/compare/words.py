"""Numbers as people read them."""

from autoseg.compare.statistics import Description, Difference
from autoseg.compare.summary import METRICS, Cost
from autoseg.plurals import count as count

DASH = "–"
MINUS = "−"
MAX_WORTH_NAMING = 10_000
"""More cases than these are not told by number: nobody will collect them."""


def format_value(value: float | None, metric: str) -> str:
    """Return a metric's value: three decimals for those between 0 and 1, two for those in mm."""
    return DASH if value is None else f"{value:.{2 if METRICS[metric].unit else 3}f}"


def format_mean(description: Description, metric: str) -> str:
    """Return ``mean ± standard deviation``."""
    spread = "" if description.std is None else f" ± {format_value(description.std, metric)}"
    return format_value(description.mean, metric) + spread


def scale_of(metric: str) -> float:
    """Return the factor by which differences are shown: points of a hundredth, or mm."""
    return 1 if METRICS[metric].unit else 100


def unit_of(metric: str) -> str:
    """Return the unit of a difference."""
    return METRICS[metric].unit or "points"


def format_signed(value: float | None, metric: str) -> str:
    """Return a difference with its sign, in points or mm."""
    if value is None:
        return DASH
    decimals = 2 if METRICS[metric].unit else 1
    text = f"{value * scale_of(metric):+.{decimals}f}"
    return text.replace("-", MINUS) if float(text) else text[1:]


def format_interval(difference: Difference, metric: str) -> str:
    """Return ``low to high``, or that there are too few cases for it."""
    if difference.low is None:
        return "too few cases"
    return f"{format_signed(difference.low, metric)} to {format_signed(difference.high, metric)}"


def format_p(p: float | None) -> str:
    """Return a p-value with two significant digits."""
    return DASH if p is None else "< 0.001" if p < 0.001 else f"{p:.2g}"


def format_seconds(seconds: float | None) -> str:
    """Return a duration with two or three significant digits, in the unit that suits it."""
    if seconds is None:
        return DASH
    for limit, divisor, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / divisor:.3g} {unit}"
    return f"{seconds / 86400:.3g} d"


def format_count(count: int | None) -> str:
    """Return a number of parameters, e.g. ``30.8 M``."""
    if count is None:
        return DASH
    return f"{count / 1e6:.3g} M" if count >= 1e6 else f"{count / 1e3:.3g} k" if count >= 1e3 else str(count)


def format_operations(count: int | None) -> str:
    """Return floating-point operations, e.g. ``192 G``."""
    if count is None:
        return DASH
    return f"{count / 1e12:.3g} T" if count >= 1e12 else f"{count / 1e9:.3g} G"


def format_effect(value: float | None) -> str:
    """Return an effect size with its sign."""
    return DASH if value is None else f"{value:+.2f}".replace("-", MINUS)


def format_more_cases(number: int | None) -> str:
    """Return a number of cases; what nobody will ever collect is not given exactly."""
    return DASH if number is None else f"{number:,}" if number <= MAX_WORTH_NAMING else f"> {MAX_WORTH_NAMING:,}"


def format_gb(memory: float | None) -> str:
    """Return memory in GB."""
    return DASH if memory is None else f"{memory:.1f} GB"


def format_memory(cost: Cost) -> str:
    """Return what a training took, marked where it is not the memory of its device."""
    memory, kind = cost.memory
    return format_gb(memory) if kind == "device" or memory is None else f"{format_gb(memory)} ({kind})"


def format_energy(kwh: float | None) -> str:
    """Return energy in Wh below 1 kWh, else in kWh."""
    if kwh is None:
        return DASH
    return f"{kwh:.3g} kWh" if kwh >= 1 else f"{1e3 * kwh:.3g} Wh"


def format_share(share: float) -> str:
    """Return a share in whole per cent, without claiming certainty."""
    return "more than 99 %" if share > 0.99 else "less than 1 %" if share < 0.01 else f"{100 * share:.0f} %"


def join(words: list[str]) -> str:
    """Return ``a, b and c``."""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + f" and {words[-1]}"
