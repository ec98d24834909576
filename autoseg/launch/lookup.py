"""Finding plans by what a person calls them."""

from pathlib import Path

from autoseg.data.dataset import name_dataset
from autoseg.data.workspace import Workspace
from autoseg.errors import PlanError
from autoseg.plan.plan import Plan, read_plan


def find_plan(name: str, workspace: Workspace, dataset: str | None) -> Plan:
    """Return the plan that a path names, or that is called so in a dataset's folder, or in the only one that has it.

    Raises:
        PlanError: there is no such plan, or several datasets have one.
        DocumentError: the plan is not valid.
    """
    path = Path(name)
    if path.suffix == ".json" or len(path.parts) > 1:
        return read_plan(path)
    if dataset is not None:
        return read_plan(workspace.plan(name_dataset(dataset, workspace), name))
    found = sorted(workspace.root.glob(f"plans/*/{name}.json"))
    if not found:
        raise PlanError(
            f"{name}: no plan of that name in {workspace.root / 'plans'}; give its path, or make it with autoseg_plan"
        )
    if len(found) > 1:
        owners = ", ".join(one.parent.name for one in found)
        raise PlanError(f"{name}: several datasets have a plan of that name ({owners}); say which with -d")
    return read_plan(found[0])
