"""The workspace: where the five folders of the flow stand."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from autoseg.errors import PlanError, WorkspaceError, nearest

VARIABLE = "AUTOSEG_WORKSPACE"
NNUNET_VARIABLE = "nnUNet_raw"
NNUNET_PREPROCESSED_VARIABLE = "nnUNet_preprocessed"

RESERVED_NAMES = ("fingerprint", "dataset_fingerprint", "problems", "splits")
"""Documents that stand beside the plans: no plan can be named like these."""

NUMBERED_FOLDER = re.compile(r"(?:Dataset|Task)(\d+)_(.+)")
"""How nnU-Net and the Decathlon name the folder of a dataset."""


@dataclass(frozen=True)
class Workspace:
    """Paths below one root folder; nothing here creates or reads a file.

    Attributes:
        root: the workspace itself.
        nnunet_raw: where nnU-Net keeps its datasets on this machine, searched after ``raw``; may be None.
        nnunet_preprocessed: where nnU-Net keeps its own folds of these; may be None.
    """

    root: Path
    nnunet_raw: Path | None = None
    nnunet_preprocessed: Path | None = None

    @property
    def raw(self) -> Path:
        """What the user has; never written to."""
        return self.root / "raw"

    def plans(self, dataset: str) -> Path:
        """Folder of fingerprint.json, splits.json and the plans."""
        return self.root / "plans" / dataset

    def fingerprint(self, dataset: str) -> Path:
        """The fingerprint document."""
        return self.plans(dataset) / "fingerprint.json"

    def problems(self, dataset: str) -> Path:
        """What the checks found wrong or doubtful."""
        return self.plans(dataset) / "problems.json"

    def measured(self, dataset: str) -> Path:
        """Folder of the measurements of single cases."""
        return self.plans(dataset) / "measured"

    def nnunet_fingerprint(self, dataset: str) -> Path:
        """The fingerprint as nnU-Net's own document."""
        return self.plans(dataset) / "dataset_fingerprint.json"

    def splits(self, dataset: str) -> Path:
        """The document of the cross-validation folds."""
        return self.plans(dataset) / "splits.json"

    def plan(self, dataset: str, plan: str) -> Path:
        """The document of one plan."""
        return self.plans(dataset) / f"{plan}.json"

    def preprocessed(self, dataset: str, digest: str) -> Path:
        """Folder of the preprocessed cases of all plans whose preprocessing section hashes to ``digest``."""
        return self.root / "preprocessed" / dataset / digest[:12]

    def fold(self, dataset: str, plan: str, fold: int) -> Path:
        """Run folder of one fold."""
        return self.root / "results" / dataset / plan / f"fold_{fold}"

    def jobs(self, dataset: str) -> Path:
        """Folder of the own files of a cluster's jobs."""
        return self.root / "results" / dataset / "slurm"

    def study(self, dataset: str, study: str) -> Path:
        """Folder of one search: its trials, and its storage unless that is elsewhere."""
        return self.root / "tune" / dataset / study

    def report(self, dataset: str) -> Path:
        """Folder of report.html, cases.csv and summary.json."""
        return self.root / "reports" / dataset


def open_workspace(option: Path | None) -> Workspace:
    """Return the workspace given by the option, else by $AUTOSEG_WORKSPACE, else the current directory; nnU-Net's
    variables are noted.

    Raises:
        WorkspaceError: the folder does not exist.
    """
    root = option or Path(os.environ.get(VARIABLE, "."))
    if not root.is_dir():
        origin = "-w" if option else f"${VARIABLE}"
        raise WorkspaceError(f"{root}: no such folder (from {origin}); create it, or name another workspace with -w")
    raw, preprocessed = os.environ.get(NNUNET_VARIABLE), os.environ.get(NNUNET_PREPROCESSED_VARIABLE)
    return Workspace(root.resolve(), Path(raw) if raw else None, Path(preprocessed) if preprocessed else None)


def plan_names(folder: Path) -> list[str]:
    """Return the sorted names of the plans in a dataset's folder of plans."""
    return sorted(path.stem for path in folder.glob("*.json") if path.stem not in RESERVED_NAMES)


def check_plan_exists(path: Path) -> None:
    """Refuse the path of a plan that is not there.

    Raises:
        PlanError: naming the plans that there are.
    """
    if path.stem in RESERVED_NAMES or not path.is_file():
        names = plan_names(path.parent)
        known = f"plans here: {', '.join(names)}{nearest(path.stem, names)}" if names else "there are no plans yet"
        raise PlanError(f"{path}: no such plan; {known}; make it with autoseg_plan")


def dataset_name(folder: Path) -> str:
    """Return the folder's name without nnU-Net's ``DatasetNNN_`` or the Decathlon's ``TaskNN_``."""
    match = NUMBERED_FOLDER.fullmatch(folder.name)
    return match.group(2) if match else folder.name
