"""What commands read and print of plans: budgets, plans side by side, the story of one, the difference of two."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoseg.cli._command import answer, console
from autoseg.cli._progress import duration

if TYPE_CHECKING:
    from autoseg.cli._answers import DifferenceAnswer, StoryAnswer
    from autoseg.fingerprint.fingerprint import Fingerprint
    from autoseg.plan.plan import Plan


def read_memory(option: str | None) -> float | None:
    """Return the budget that ``--memory`` means; None leaves it to each recipe."""
    from autoseg.errors import PlanError
    from autoseg.launch.prepare import gpu_memory_gb

    if option is None:
        return None
    if option == "auto":
        return gpu_memory_gb()
    try:
        value = float(option)
    except ValueError:
        value = 0.0
    if not 0.1 <= value < 1e6:
        raise PlanError(f"--memory {option}: expected a number of GB, at least 0.1, or auto")
    return value


LONG_SECONDS = 7 * 86400
"""A training that takes longer than this is one that a person may not have meant."""


SLOW_SECONDS = 1800
"""Of longer epochs a budget of hours holds too few to learn anything."""


def epochs_here(plans: "Sequence[Plan]") -> tuple[str, dict[str, float]]:
    """Return this machine's kind of device, and for each plan's name how many seconds an epoch takes on it at least."""
    import torch

    from autoseg.plan.throughput import epoch_seconds, measure_rate
    from autoseg.train.device import DTYPES, choose_memory_format, choose_precision

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = DTYPES[choose_precision(plans[0].training.precision, device)]
    rate = measure_rate(device, dtype, choose_memory_format(device))
    return device.type, {plan.name: epoch_seconds(plan, rate) for plan in plans}


def advise_length(plans: "Sequence[Plan]", device: str, seconds: Mapping[str, float]) -> str | None:
    """Return what to do about plans that this device would train for more than a week; None if there are none."""
    whole = {plan.name: seconds[plan.name] * plan.training.epochs for plan in plans}
    longest = max(whole, key=lambda name: whole[name])
    if whole[longest] <= LONG_SECONDS:
        return None
    told = f"all epochs of {longest} take more than {whole[longest] / 86400:,.0f} days on this {device}"
    if seconds[longest] > SLOW_SECONDS:
        return (
            f"{told}, one alone {duration(seconds[longest])}: train on a faster device, or see first how it works with "
            f"a small plan: --memory 1 --downsample 2 --set training.epochs=20 --set training.iterations_per_epoch=25 "
            f"--name small"
        )
    return (
        f"{told}: let autoseg_train --time-budget 6h make a plan that fits, or plan a short one with "
        f"--set training.epochs=20 --name short; a smaller --memory makes each epoch shorter"
    )


def plans_table(plans: "Sequence[Plan]", fingerprint: "Fingerprint", device: str, seconds: Mapping[str, float]) -> Any:
    """Return a table of the plans side by side, with about how long an epoch takes on this machine."""
    from rich.table import Table

    from autoseg.plan.summary import COLUMNS, summarise

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("plan", no_wrap=True)
    for column in COLUMNS:
        table.add_column(column, justify="right")
    table.add_column(f"epoch, {device}", justify="right")
    for plan in plans:
        table.add_row(plan.name, *summarise(plan, fingerprint).values(), f"> {duration(seconds[plan.name])}")
    return table


def tell_story(name: str, dataset: str | None, workspace: Path | None) -> None:
    """Print how a plan came about."""
    from autoseg.data.workspace import open_workspace
    from autoseg.launch.lookup import find_plan
    from autoseg.plan.story import tell

    plan = find_plan(name, open_workspace(workspace), dataset)
    console().print(story_text(plan), markup=False)

    def told() -> "StoryAnswer":
        from autoseg.cli._answers import Reason, StoryAnswer

        fields = tuple(Reason(field=field, value=value, reason=reason) for field, value, reason in tell(plan))
        return StoryAnswer(dataset=plan.dataset.name, plan=plan.name, fields=fields)

    answer(told)


def tell_difference(names: tuple[str, str], dataset: str | None, workspace: Path | None) -> None:
    """Print what differs between two plans."""
    from autoseg.data.workspace import open_workspace
    from autoseg.launch.lookup import find_plan
    from autoseg.plan.story import differences

    place = open_workspace(workspace)
    first, second = (find_plan(name, place, dataset) for name in names)
    console().print(difference_table(first, second))

    def told() -> "DifferenceAnswer":
        from autoseg.cli._answers import DifferenceAnswer, FieldDifference

        rows = differences(first, second)
        fields = tuple(FieldDifference(field=field, first=one, second=other) for field, one, other in rows)
        return DifferenceAnswer(plans=(first.name, second.name), fields=fields)

    answer(told)


def story_text(plan: "Plan") -> str:
    """Return each explained number of a plan with its reason."""
    from autoseg.plan.story import tell

    lines = [f"{plan.name}: {plan.network.architecture} for {plan.dataset.name}, {plan.budget.memory_gb:g} GB"]
    for field, value, reason in tell(plan):
        lines += ["", f"{field} = {value}" if len(value) <= 100 else f"{field} = {value[:97]}...", f"  {reason}"]
    return "\n".join(lines)


def difference_table(first: "Plan", second: "Plan") -> Any:
    """Return a table of the fields that differ, or a line that says that none does."""
    from rich.table import Table

    from autoseg.plan.story import differences

    rows = differences(first, second)
    if not rows:
        return "the plans are equal"
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("field", f"{first.dataset.name}/{first.name}", f"{second.dataset.name}/{second.name}"):
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
