"""A study: its storage, what it was begun with, and whose turn which trial is.

A trial belongs to who holds the lock of its folder. One that is under way by its record but whose folder nobody holds
has lost its worker, and whoever comes next goes on with it.
"""

import re
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from autoseg.documents import Document, parse_document, to_text, write_text
from autoseg.errors import PlanError, TrainingError, WorkspaceError
from autoseg.train.exclusion import hold_folder
from autoseg.tune.samplers import SamplerName, grid_points, make_sampler
from autoseg.tune.space import Space
from autoseg.tune.values import encode, suggest

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial, Trial

Score = Literal["patches", "cases"]
JOURNAL = "journal:"
DRIVERS = {"psycopg": "'psycopg[binary]'", "psycopg2": "psycopg2-binary"}
"""What is installed for a database driver that is not called like its package."""

PASSWORD = re.compile(r"(?<=\w):[^:/@]+@")
SQLITE_WAIT_SECONDS = 120
POLL_SECONDS = 0.2
MAX_DEATHS = 3
BIRTH_SECONDS = 60

OWN, PLACE, DEATHS, REASON, STOPPED = "own", "place", "deaths", "reason", "stopped"
"""Attributes of a trial: whether it is the plan itself; the folder of studies it runs from; how often its worker died
with it; why it ended early; whether it was stopped on purpose."""


class Settings(Document):
    """What all trials of a study share; whoever goes on with it must want the same.

    Attributes:
        plan_sha256: hash of what the plan's weights depend on.
        epochs: of each trial.
        score: what a finished trial is judged by: the Dice of patches, or that of whole cases.
        timed: whether the time is an objective too.
    """

    dataset: str
    plan: str
    plan_sha256: str
    fold: int
    epochs: int
    score: Score
    timed: bool
    space: Space


@dataclass(frozen=True)
class Search:
    """A study that is open, and how this worker takes part in it."""

    study: "Study"
    folder: Path
    settings: Settings
    own: dict[str, Any]
    sampler: SamplerName
    seed: int

    @property
    def space(self) -> Space:
        """What is searched."""
        return self.settings.space

    def trial_folder(self, number: int) -> Path:
        """Folder of one trial."""
        return self.folder / f"trial_{number:04}"


@dataclass(frozen=True)
class Claim:
    """A trial that this worker holds; ``resumed`` if another worker began it."""

    trial: "Trial"
    values: dict[str, Any]
    folder: Path
    resumed: bool

    @property
    def number(self) -> int:
        """The trial's number, from 0."""
        number: int = self.trial.number
        return number

    @property
    def is_own(self) -> bool:
        """Whether it is the plan itself."""
        return bool(self.trial.user_attrs.get(OWN))


def open_study(folder: Path, name: str, settings: Settings, *, storage: str | None, pruner: "BasePruner") -> "Study":
    """Open the study, or begin it; ``storage`` is an Optuna URL or ``journal:PATH``, by default SQLite in ``folder``.

    Raises:
        PlanError: it was begun with other settings.
        WorkspaceError: the storage cannot be opened.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with wait_for(folder):
        study = _load(folder, name, settings, storage)
        study.pruner = pruner
        begun = study.user_attrs.get("settings")
        if begun is None:
            study.set_user_attr("settings", to_text(settings))
        else:
            _check_settings(parse_document(begun, Settings, where=f"study {name}"), settings, name)
    return study


def _load(folder: Path, name: str, settings: Settings, storage: str | None) -> "Study":
    import optuna

    directions: list[Literal["maximize", "minimize"]] = ["maximize"]
    if settings.timed:
        directions.append("minimize")
    try:
        kept = _open_storage(folder, storage)
        return optuna.create_study(storage=kept, study_name=name, directions=directions, load_if_exists=True)
    except Exception as error:  # each database driver has its own
        where = f"--storage {PASSWORD.sub(':***@', storage or str(folder))}"
        if isinstance(error.__cause__, ModuleNotFoundError):
            driver = error.__cause__.name
            wanted = DRIVERS.get(driver or "", driver)
            raise WorkspaceError(f"{where}: the driver {driver} is not installed; run pip install {wanted}") from error
        told = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise WorkspaceError(
            f"{where}: cannot be opened ({told}); allowed are a URL such as sqlite:///FILE or "
            "postgresql://USER@HOST/NAME, and journal:FILE"
        ) from error


def _open_storage(folder: Path, storage: str | None) -> "BaseStorage":
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    url = storage or f"sqlite:///{folder / 'study.db'}"
    if url.startswith(JOURNAL):
        return JournalStorage(JournalFileBackend(url.removeprefix(JOURNAL)))
    waiting = {"connect_args": {"timeout": SQLITE_WAIT_SECONDS}} if url.startswith("sqlite") else None
    return RDBStorage(url, engine_kwargs=waiting)


def _check_settings(begun: Settings, wanted: Settings, name: str) -> None:
    told = {"plan_sha256": "the plan has changed", "space": "--space differs"}
    for field in Settings.model_fields:
        old, new = getattr(begun, field), getattr(wanted, field)
        if old != new:
            what = told.get(field, f"{field} was {old} and is now {new}")
            raise PlanError(f"study {name}: it was begun otherwise ({what}); give the new one a name with --study")


def num_left(search: Search, num_trials: int) -> int:
    """Return how many trials are still to be begun until there are ``num_trials``, however they end."""
    from optuna.trial import TrialState

    begun = [one for one in search.study.get_trials(deepcopy=False) if one.state != TrialState.WAITING]
    return max(num_trials - len(begun), 0)


@contextmanager
def claim_trial(search: Search, num_trials: int) -> Iterator[Claim | None]:
    """Hold a trial until the end of the block: one that lost its worker, else a new one; None if none is left."""
    with ExitStack() as held:
        with wait_for(search.folder):
            claim = _resume(search, held) or _begin(search, held, num_trials)
        yield claim


def _resume(search: Search, held: ExitStack) -> Claim | None:
    """Take the first trial that lost its worker; one that does so again and again is given up."""
    for frozen in _orphans(search):
        folder = search.trial_folder(frozen.number)
        try:
            held.enter_context(hold_folder(folder))
        except TrainingError:  # its worker lives
            continue
        trial = _reopen(search, frozen)
        deaths = int(frozen.user_attrs.get(DEATHS, 0)) + (not frozen.user_attrs.get(STOPPED))
        trial.set_user_attr(DEATHS, deaths)
        trial.set_user_attr(STOPPED, False)
        if deaths >= MAX_DEATHS:
            fail(search, trial, f"its worker died {deaths} times (out of memory?)")
            continue
        return Claim(trial, suggest(trial, search.space), folder, resumed=True)
    return None


def _orphans(search: Search) -> "list[FrozenTrial]":
    """Return the trials under way that were begun from this folder, and give up what was never really begun."""
    from optuna.trial import TrialState

    found, place = [], _place(search.folder)
    for frozen in search.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if PLACE not in frozen.user_attrs:
            begun = frozen.datetime_start.timestamp() if frozen.datetime_start else 0.0
            if time.time() - begun > BIRTH_SECONDS:
                fail(search, _reopen(search, frozen), "its worker died before it began")
        elif frozen.user_attrs[PLACE] == place:
            found.append(frozen)
    return found


def _reopen(search: Search, frozen: "FrozenTrial") -> "Trial":
    import optuna

    return optuna.trial.Trial(search.study, frozen._trial_id)


def _begin(search: Search, held: ExitStack, num_trials: int) -> Claim | None:
    if num_left(search, num_trials) == 0 or not _offer(search):
        return None
    study = search.study
    number = len(study.get_trials(deepcopy=False))
    study.sampler = make_sampler(search.sampler, search.seed + number)
    trial = study.ask()
    folder = search.trial_folder(trial.number)
    held.enter_context(hold_folder(folder))
    values = suggest(trial, search.space)
    trial.set_user_attr(PLACE, _place(search.folder))
    return Claim(trial, values, folder, resumed=False)


def _offer(search: Search) -> bool:
    """Put the plan itself, and then the points of a grid, before the sampler; False where a grid is exhausted."""
    trials = search.study.get_trials(deepcopy=False)
    own = encode(search.space, search.own)
    if not trials:
        search.study.enqueue_trial(own, user_attrs={OWN: True})
    elif search.sampler == "grid":
        tried = [trial.params or trial.system_attrs.get("fixed_params") for trial in trials]
        points = (encode(search.space, point) for point in grid_points(search.space, search.seed))
        point = next((one for one in points if one not in tried), None)
        if point is None:
            return False
        search.study.enqueue_trial(point)
    return True


def fail(search: Search, trial: "Trial", reason: str) -> None:
    """Record that a trial failed, and why."""
    from optuna.trial import TrialState

    trial.set_user_attr(REASON, reason)
    search.study.tell(trial, state=TrialState.FAIL)


@contextmanager
def wait_for(folder: Path) -> Iterator[None]:
    """Hold a folder until the end of the block, once nobody else does."""
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(hold_folder(folder))
                break
            except TrainingError:
                time.sleep(POLL_SECONDS)
        yield


def _place(folder: Path) -> str:
    """Return the name of the folder of this study: whoever sees it sees the locks of its trials."""
    path = folder / "place"
    if not path.is_file():
        write_text(path, uuid.uuid4().hex)
    return path.read_text(encoding="utf-8")
