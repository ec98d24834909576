"""What autoseg_plan prints of plans: side by side, the story of one, the difference of two."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoseg.fingerprint.fingerprint import Fingerprint
    from autoseg.plan.plan import Plan


def plans_table(plans: "Sequence[Plan]", fingerprint: "Fingerprint") -> Any:
    """Return a table of the plans side by side."""
    from rich.table import Table

    from autoseg.plan.summary import COLUMNS, summarise

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("plan")
    for column in COLUMNS:
        table.add_column(column, justify="right")
    for plan in plans:
        table.add_row(plan.name, *summarise(plan, fingerprint).values())
    return table
