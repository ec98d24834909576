"""The figures of a search's report: Optuna's own drawings, in the report's colours."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autoseg.tune.outcome import Result, pareto_front
from autoseg.tune.study import Search

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

MIN_TRIALS = 3
"""Trials trained to the end, below which importances and parallel coordinates say nothing."""

HEIGHT = 420
NUM_WORDS = 28


@dataclass(frozen=True)
class Drawing:
    """A figure with its heading and what is to be seen in it; ``html`` is empty where ``why_not`` says why."""

    title: str
    text: str
    html: str = ""
    why_not: str = ""


def draw_all(search: Search, results: list[Result]) -> list[Drawing]:
    """Return the drawings of a study."""
    done = [one for one in results if one.dice is not None]
    few = "" if len(done) >= MIN_TRIALS else f"Drawn from {MIN_TRIALS} trials on that were trained to the end."
    drawings = [_history(search, results), _curves(search), _importances(search, done, few), _parallel(search, few)]
    return [*drawings, _pareto(search, done)]


def _history(search: Search, results: list[Result]) -> Drawing:
    import plotly.graph_objects as go

    figure, best = go.Figure(), -math.inf
    done = [one for one in results if one.dice is not None]
    steps = []
    for one in done:
        best = max(best, one.dice or 0.0)
        steps.append(best)
    numbers, hover = [one.number for one in done], [_tell_values(one) for one in done]
    dots = {"size": 9, "symbol": ["star" if one.own else "circle" for one in done]}
    figure.add_scatter(x=numbers, y=[one.dice for one in done], mode="markers", name="trial (star: the plan itself)",
                       marker=dots, hovertext=hover)  # fmt: skip
    figure.add_scatter(x=numbers, y=steps, mode="lines", name="best so far", line={"shape": "hv"})
    figure.update_layout(xaxis_title="trial", yaxis_title="Dice")
    text = "The Dice of each trial that was trained to its end, in the order in which they were begun."
    return Drawing("History", text, _to_html(figure))


def _curves(search: Search) -> Drawing:
    from optuna.visualization import plot_intermediate_values

    text = "The patch Dice of the validation cases after each epoch; curves that end early were stopped."
    if search.settings.timed:
        return Drawing("Epochs", text, why_not="Not kept in a search with two objectives.")
    figure = plot_intermediate_values(search.study)
    figure.update_layout(title=None, xaxis_title="epoch", yaxis_title="patch Dice", showlegend=False)
    return Drawing("Epochs", text, _to_html(figure))


def _importances(search: Search, done: list[Result], few: str) -> Drawing:
    from optuna.importance import PedAnovaImportanceEvaluator
    from optuna.visualization import plot_param_importances

    text = (
        "How much of what sets the best trials apart each parameter accounts for (PED-ANOVA, Watanabe et al., 2023). "
        "With few trials this is a hint at most."
    )
    if not few and len({one.dice for one in done}) < 2:
        few = "All trials have the same Dice."
    if few:
        return Drawing("Importances", text, why_not=few)
    figure = plot_param_importances(
        search.study, evaluator=PedAnovaImportanceEvaluator(), target=_dice_of, target_name="Dice"
    )
    figure.update_layout(title=None)
    return Drawing("Importances", text, _to_html(figure))


def _parallel(search: Search, few: str) -> Drawing:
    from optuna.visualization import plot_parallel_coordinate

    text = "Each line is a trial trained to its end; the darker, the higher its Dice. Drag along an axis to select."
    if few:
        return Drawing("Parallel coordinates", text, why_not=few)
    figure = plot_parallel_coordinate(search.study, target=_dice_of, target_name="Dice")
    for dimension in figure.data[0].dimensions:
        dimension.label = _shorten(dimension.label)
    figure.update_traces(labelangle=-12, labelside="bottom")
    figure.update_layout(title=None, margin={"l": 60, "r": 60, "t": 30, "b": 90})
    return Drawing("Parallel coordinates", text, _to_html(figure))


def _pareto(search: Search, done: list[Result]) -> Drawing:
    import plotly.graph_objects as go

    text = (
        "Dice against the time of the training. The line is the Pareto front: no other trial is both as good and as fast."
        + ("" if search.settings.timed else " The search itself looked at the Dice alone.")
    )
    if not done:
        return Drawing("Dice against time", text, why_not="No trial was trained to its end.")
    figure, front = go.Figure(), pareto_front(done)
    figure.add_scatter(x=[one.seconds for one in done], y=[one.dice for one in done], mode="markers", name="trial",
                       marker={"size": 9}, hovertext=[_tell_values(one) for one in done])  # fmt: skip
    figure.add_scatter(x=[one.seconds for one in front], y=[one.dice for one in front], mode="lines+markers+text",
                       name="Pareto front", text=[str(one.number) for one in front], textposition="top center",
                       line={"shape": "hv"})  # fmt: skip
    figure.update_layout(xaxis_title="seconds of training", yaxis_title="Dice")
    return Drawing("Dice against time", text, _to_html(figure))


def _dice_of(trial: "FrozenTrial") -> float:
    value: float = trial.values[0]
    return value


def _tell_values(one: Result) -> str:
    return f"trial {one.number}<br>" + "<br>".join(f"{key}: {_word(value)}" for key, value in one.values.items())


def _word(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _shorten(label: str) -> str:
    return label if len(label) <= NUM_WORDS else "..." + label[3 - NUM_WORDS :]


def _to_html(figure: Any) -> str:
    figure.update_layout(template="plotly_white", height=HEIGHT, legend={"orientation": "h", "y": 1.12})
    return str(figure.to_html(full_html=False, include_plotlyjs=False, config={"displaylogo": False}))
