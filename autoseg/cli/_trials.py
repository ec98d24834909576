"""What autoseg_tune shows: a line for each thing that happens to a trial."""

import json
import time
from typing import TYPE_CHECKING, Any

from autoseg.cli._progress import TrainingDisplay, duration

if TYPE_CHECKING:
    from autoseg.launch.search import SearchEvent

VERBS = {
    "began": "trial {number}: {values}",
    "resumed": "trial {number} goes on, its worker was interrupted: {values}",
    "complete": "trial {number} finished: Dice {dice:.4f}, trained in {seconds}",
    "same": "trial {number} is {told}: Dice {dice:.4f}",
    "pruned": "trial {number} stopped: {told}",
    "too large": "trial {number} left out: it {told}",
    "failed": "trial {number} failed: {told}",
}


class TrialsDisplay(TrainingDisplay):
    """A line for each event; on a terminal below them a bar of the running epoch."""

    def tell(self, event: "SearchEvent") -> None:
        """Print what happened to a trial."""
        judged = event.judgement
        line = VERBS[event.kind].format(
            number=event.claim.number,
            values="the plan's own values" if event.claim.is_own else values_text(event.claim.values),
            told=event.told,
            dice=judged.dice if judged else 0.0,
            seconds=duration(judged.seconds) if judged else "",
        )
        self._out.print(f"{time.strftime('%H:%M:%S')}  {line}", markup=False, soft_wrap=True)


def values_text(values: dict[str, Any]) -> str:
    """Return a trial's values in one line, by the last words of their keys."""
    return ", ".join(f"{_short(key)} {_word(value)}" for key, value in values.items())


def _short(key: str) -> str:
    parts = key.split(".")
    return " ".join(parts[-2:]) if parts[-1] == "name" else parts[-1]


def _word(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)
