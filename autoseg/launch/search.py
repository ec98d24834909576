"""Searching hyper-parameters: trials one after the other until there are as many as wanted. Any number of processes
can do this at the same time for one study.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from autoseg.data.dataset import Dataset
from autoseg.data.workspace import Workspace
from autoseg.documents import write_document, write_text
from autoseg.errors import AutosegError, PlanError
from autoseg.launch.fold import open_fold
from autoseg.launch.prepare import PlanRequest, check_request, check_results
from autoseg.launch.trial import Bench, Judgement, TooLarge, remove_checkpoints, run_trial
from autoseg.plan.plan import Plan, read_plan
from autoseg.train.state import training_digest
from autoseg.tune.outcome import STORY, Result, make_tuned_plan
from autoseg.tune.samplers import PrunerName, SamplerName, check_sampler, choose_pruner, make_pruner
from autoseg.tune.space import Space, own_values, space_text
from autoseg.tune.study import REASON, STOPPED, Claim, Score, Search, Settings, claim_trial, fail, open_study

Kind = Literal["began", "resumed", "complete", "same", "pruned", "too large", "failed"]
"""What happened to a trial; ``same``: its values were tried before, so the result is known."""


@dataclass(frozen=True)
class SearchEvent:
    """Something happened to a trial; ``told`` says it in words."""

    kind: Kind
    claim: Claim
    told: str = ""
    judgement: Judgement | None = None


@dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """What is to be searched.

    Attributes:
        epochs: of each trial; None: those of the plan.
        score: None: cases if the space changes patches, since the Dice of patches is then not comparable.
        pruner: None: the median, where there is one objective.
        storage: an Optuna URL or ``journal:PATH``; None: SQLite in the workspace.
        name: of the study; None: the plan's and the fold's.
    """

    plan: Plan
    fold: int
    space: Space
    sampler: SamplerName
    epochs: int | None = None
    score: Score | None = None
    pruner: PrunerName | None = None
    storage: str | None = None
    name: str | None = None
    seed: int = 0

    @property
    def settings(self) -> Settings:
        """What is kept of it."""
        return Settings(
            dataset=self.plan.dataset.name,
            plan=self.plan.name,
            plan_sha256=training_digest(self.plan),
            fold=self.fold,
            epochs=self.epochs or self.plan.training.epochs,
            score=self.score or ("cases" if self.space.changes_patches else "patches"),
            timed=self.sampler == "nsga2",
            space=self.space,
        )


def check_installed() -> None:
    """Refuse to go on without Optuna.

    Raises:
        PlanError: the extra is not installed.
    """
    try:
        import cmaes  # noqa: F401
        import optuna  # noqa: F401
    except ModuleNotFoundError as error:
        raise PlanError(f"{error.name} is not installed; run pip install 'autoseg[tune]'") from None


def check_target(workspace: Workspace, plan: Plan, name: str) -> None:
    """Refuse a name of the tuned plan that is another plan's: it would be lost.

    Raises:
        PlanError: it is the searched plan's own, a recipe's, or that of a plan that no search has made.
    """
    check_request(PlanRequest(base=plan.name, name=name, assignments=("training.seed=0",)))
    path = workspace.plan(plan.dataset.name, name)
    if name == plan.name or path.is_file() and STORY not in read_plan(path).rationale:
        raise PlanError(f"--name {name}: {path} is there already, and no search has made it; choose another name")


def open_search(workspace: Workspace, dataset: Dataset, request: SearchRequest) -> Search:
    """Check a request, and open its study or begin it.

    Raises:
        PlanError: the sampler cannot search the space, trials could not be judged, or the study was begun otherwise.
        WorkspaceError: the fold is not ready to be trained, or the storage cannot be opened.
    """
    plan, settings = request.plan, request.settings
    open_fold(workspace, dataset, plan.name, request.fold)
    check_sampler(request.sampler, request.space)
    pruner = choose_pruner(request.sampler, request.pruner)
    if plan.training.validation_iterations == 0 and (settings.score == "patches" or pruner != "none"):
        raise PlanError(
            f"plan {plan.name}: training.validation_iterations is 0, so that no epoch has a Dice; make a variant with "
            "some, or use --score cases --pruner none"
        )
    name = request.name or f"{plan.name}_fold_{request.fold}"
    if "/" in name or name.startswith("."):
        raise PlanError(f"--study {name}: it names a folder; letters, digits, '-', '_' and '.' are allowed")
    folder = workspace.study(dataset.name, name)
    made = make_pruner(pruner, settings.epochs)
    study = open_study(folder, f"{dataset.name}/{name}", settings, storage=request.storage, pruner=made)
    write_text(folder / "space.json", space_text(request.space))
    return Search(study, folder, settings, own_values(plan, request.space), request.sampler, request.seed)


def run_search(
    search: Search,
    bench: Bench,
    num_trials: int,
    *,
    tell: Callable[[SearchEvent], None],
    on_event: Callable[[Any], None] = lambda event: None,
) -> None:
    """Run trials until the study has ``num_trials``, those of other workers and those that failed among them.

    Raises:
        TrainingInterrupted: SIGINT or SIGTERM was received; the trial goes on the next time.
        WorkspaceError: the disk is full, or the like.
    """
    while True:
        with claim_trial(search, num_trials) as claim:
            if claim is None:
                return
            tell(SearchEvent("resumed" if claim.resumed else "began", claim))
            tell(_finish(search, bench, claim, on_event))


def keep_tuned_plan(search: Search, bench: Bench, chosen: Result, results: list[Result], name: str) -> Plan:
    """Write the plan of a trial under a name of its own and return it.

    Raises:
        PlanError: another plan of this name is trained already.
    """
    tuned = make_tuned_plan(search, bench.plan, chosen, results, name)
    check_results(tuned, bench.workspace)
    write_document(bench.workspace.plan(bench.dataset.name, name), tuned)
    return tuned


def _finish(search: Search, bench: Bench, claim: Claim, on_event: Callable[[Any], None]) -> SearchEvent:
    """Run one trial to whatever end, and record that."""
    from optuna import TrialPruned

    if (known := _find_same(search, claim)) is not None:
        return _complete(search, claim, known)
    try:
        judgement = run_trial(bench, claim, on_epoch=_make_watch(search, claim), on_event=on_event)
    except (TooLarge, TrialPruned) as ending:
        return _prune(search, claim, ending)
    except KeyboardInterrupt:
        claim.trial.set_user_attr(STOPPED, True)
        raise
    except AutosegError as error:
        reason = " ".join(str(error).split())
    except OSError:  # the disk's or the network's: this trial goes on when that is mended
        claim.trial.set_user_attr(STOPPED, True)
        raise
    except Exception as error:  # a bug: it is recorded, lest it stops every worker, and then shown
        fail(search, claim.trial, f"{type(error).__name__}: {error}")
        raise
    else:
        return _complete(search, claim, SearchEvent("complete", claim, judgement=judgement))
    fail(search, claim.trial, reason)
    remove_checkpoints(claim.folder)
    return SearchEvent("failed", claim, reason)


def _make_watch(search: Search, claim: Claim) -> Callable[[int, float], None]:
    """Return what reports the Dice of each epoch to the study, and stops a trial that is not worth its end.

    The plan itself is never stopped, since all others are told against it.
    """
    from optuna import TrialPruned

    known = set(search.study.get_trials(deepcopy=False)[claim.number].intermediate_values)

    def watch(epoch: int, dice: float) -> None:
        if search.settings.timed or epoch in known:
            return
        claim.trial.report(dice, epoch)
        if not claim.is_own and epoch < search.settings.epochs and claim.trial.should_prune():
            raise TrialPruned(f"patch Dice {dice:.4f} after epoch {epoch} of {search.settings.epochs}")

    return watch


def _find_same(search: Search, claim: Claim) -> SearchEvent | None:
    """Return the end of an earlier trial of the same values: the same seed would only find it again."""
    from optuna.trial import TrialState

    for other in search.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        if other.params == claim.trial.params:
            judgement = Judgement(other.values[0], other.user_attrs["seconds"])
            return SearchEvent("same", claim, f"the same as trial {other.number}", judgement)
    return None


def _complete(search: Search, claim: Claim, event: SearchEvent) -> SearchEvent:
    judgement = event.judgement
    if judgement is None:
        raise ValueError("a trial that was trained to its end has a judgement")
    claim.trial.set_user_attr("seconds", judgement.seconds)
    if event.told:
        claim.trial.set_user_attr(REASON, event.told)
    values = [judgement.dice, judgement.seconds] if search.settings.timed else [judgement.dice]
    search.study.tell(claim.trial, values)
    return event


def _prune(search: Search, claim: Claim, ending: Exception) -> SearchEvent:
    from optuna.trial import TrialState

    claim.trial.set_user_attr(REASON, str(ending))
    search.study.tell(claim.trial, state=TrialState.PRUNED)
    remove_checkpoints(claim.folder)
    return SearchEvent("too large" if isinstance(ending, TooLarge) else "pruned", claim, str(ending))
