"""The report of a search: one HTML file that loads nothing from anywhere."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from autoseg.documents import write_text
from autoseg.errors import AutosegError
from autoseg.plan.plan import Plan
from autoseg.tune.candidate import make_candidate
from autoseg.tune.figures import draw_all
from autoseg.tune.outcome import WORDS, Result, count_states, tell_changes
from autoseg.tune.study import Search


def write_report(
    search: Search, plan: Plan, results: Sequence[Result], chosen: Result | None, headline: str, path: Path
) -> None:
    """Write the report of a study to ``path``; ``chosen`` is the trial that is told in full."""
    write_text(path, render_page(search, plan, list(results), chosen, headline))


def render_page(search: Search, plan: Plan, results: list[Result], chosen: Result | None, headline: str) -> str:
    """Return the report as HTML."""
    from jinja2 import Environment, StrictUndefined
    from plotly.offline import get_plotlyjs

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = files("autoseg.tune").joinpath("page", "search.html.j2").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        search=search,
        settings=search.settings,
        plan=plan,
        headline=headline,
        counts=count_states(results),
        results=sorted(results, key=_rank),
        chosen=chosen,
        changes=_changes(plan, chosen),
        drawings=draw_all(search, results),
        keys=list(search.space.parameters),
        words=WORDS,
        plotly=get_plotlyjs().replace("</script", "<\\/script"),
    )


def _rank(one: Result) -> tuple[float, int]:
    return -(one.dice if one.dice is not None else -1.0), one.number


def _changes(plan: Plan, chosen: Result | None) -> list[tuple[str, str, str]]:
    if chosen is None:
        return []
    try:
        return tell_changes(plan, make_candidate(plan, plan.name, chosen.values))
    except AutosegError:  # a component of the user's is not there any more
        return []
