"""What ``autoseg_compare --best`` prints."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from autoseg.cli._command import console
from autoseg.cli._progress import progress_bar
from autoseg.plurals import count

if TYPE_CHECKING:
    from autoseg.data.workspace import Workspace
    from autoseg.launch.select import Best, Candidate


def choose(place: "Workspace", dataset: str, plans: Sequence[str], device: str, workers: int) -> "Best":
    """Choose the best plan or pair of a dataset, and print the table and the command that uses it; return it."""
    from autoseg.data.dataset import find_dataset
    from autoseg.launch.fold import choose_device
    from autoseg.launch.inference import results_of
    from autoseg.launch.select import BEST_FILE, choose_best, open_contest

    contest = open_contest(place, find_dataset(dataset, place), plans)
    with progress_bar("segmenting with all plans", len(contest.cases)) as advance:
        best = choose_best(contest, device=choose_device(device), num_workers=workers, on_case=advance)
    out = console()
    out.print(_table(best))
    out.print(_sentence(best), markup=False, soft_wrap=True)
    path = results_of(place, best.dataset) / BEST_FILE
    out.print(f"wrote {path}, and postprocessing.json of the best plan and pair", markup=False, soft_wrap=True)
    command = f"autoseg_predict -d {best.dataset} -i IMAGES -o SEGMENTATIONS"
    out.print(f"next: {command}   (takes this choice)", soft_wrap=True)
    return best


def _table(best: "Best") -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(f"{count(best.num_cases, 'case')} of {count(len(best.folds), 'fold')}")
    for title in ("Dice", "postprocessed"):
        table.add_column(title, justify="right")
    for candidate in sorted((*best.singles, *best.pairs), key=lambda c: -c.dice):
        after = candidate.postprocessed_dice
        table.add_row(_name(candidate), f"{candidate.dice:.4f}", "-" if after is None else f"{after:.4f}")
    return table


def _sentence(best: "Best") -> str:
    pair = f"; the best pair is {_name(best.pairs[0])}, Dice {best.pairs[0].dice:.4f}" if best.pairs else ""
    single = best.singles[0]
    return f"The best plan is {_name(single)}, Dice {single.dice:.4f}{pair}. Chosen: {_name(best.chosen)}."


def _name(candidate: "Candidate") -> str:
    return " + ".join(candidate.plans)
