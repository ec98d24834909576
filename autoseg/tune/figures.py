"""The figures of a search's report."""

import math
import warnings
from dataclasses import dataclass
from typing import Any

from autoseg.tune.outcome import Result, pareto_front
from autoseg.tune.study import Search

MIN_TRIALS = 3
"""Trials trained to the end, below which importances and parallel coordinates say nothing."""

BEST_PART = 0.3
"""Part of the trials whose values are held against those of all; the usual tenth would often be a single trial."""

HEIGHT = 380


MARGINS = {"l": 60, "r": 30, "t": 60, "b": 50}


@dataclass(frozen=True)
class Drawing:
    """A figure with its heading and what is to be seen in it; ``html`` is empty where ``why_not`` says why."""

    title: str
    text: str
    html: str = ""
    why_not: str = ""


@dataclass(frozen=True)
class Axis:
    """One axis of the parallel coordinates: where from 0 to 1 each trial crosses it, and its ticks."""

    label: str
    places: list[float]
    ticks: list[tuple[float, str]]


def draw_all(search: Search, results: list[Result]) -> list[Drawing]:
    """Return the drawings of a study."""
    done = [one for one in results if one.dice is not None]
    few = "" if len(done) >= MIN_TRIALS else f"Drawn from {MIN_TRIALS} trials on that were trained to the end."
    drawings = [_history(results), _curves(search), _importances(search, done, few), _parallel(search, done, few)]
    return [*drawings, _pareto(search, done)]


def _history(results: list[Result]) -> Drawing:
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
    import plotly.graph_objects as go

    text = "The mean patch Dice of the validation cases after each epoch; curves that end early were stopped."
    if search.settings.timed:
        return Drawing("Epochs", text, why_not="Not kept in a search with two objectives.")
    figure = go.Figure()
    for trial in search.study.get_trials(deepcopy=False):
        curve = sorted(trial.intermediate_values.items())
        figure.add_scatter(x=[epoch for epoch, _ in curve], y=[dice for _, dice in curve], mode="lines+markers",
                           name=f"trial {trial.number}", line={"width": 1.5}, marker={"size": 5})  # fmt: skip
    figure.update_layout(xaxis_title="epoch", yaxis_title="patch Dice", showlegend=False)
    figure.update_xaxes(tick0=1, dtick=max(1, search.settings.epochs // 10))
    return Drawing("Epochs", text, _to_html(figure))


def _importances(search: Search, done: list[Result], few: str) -> Drawing:
    import plotly.graph_objects as go

    text = (
        "How much of what sets the best trials apart each parameter accounts for (PED-ANOVA, Watanabe et "
        "al., 2023, of the best third). "
        "With few trials this is a hint at most."
    )
    if not few and len({one.dice for one in done}) < 2:
        few = "All trials have the same Dice."
    if few:
        return Drawing("Importances", text, why_not=few)
    found = sorted(_measure_importances(search).items(), key=lambda item: item[1])
    figure = go.Figure()
    figure.add_bar(x=[value for _, value in found], y=[key for key, _ in found], orientation="h",
                   text=[f"{value:.2f}" for _, value in found])  # fmt: skip
    figure.update_layout(xaxis_title="part", yaxis={"automargin": True})
    return Drawing("Importances", text, _to_html(figure))


def _measure_importances(search: Search) -> dict[str, float]:
    """Return the part of each parameter in the Dice; the evaluator takes a low target for the better one."""
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: dict[str, float] = get_param_importances(
            search.study,
            evaluator=PedAnovaImportanceEvaluator(target_quantile=BEST_PART),
            target=lambda trial: -float(trial.values[0]),
        )
    return found


def _parallel(search: Search, done: list[Result], few: str) -> Drawing:
    import plotly.graph_objects as go

    text = "A line for each trial trained to its end, the darker the higher its Dice."
    if few:
        return Drawing("Parallel coordinates", text, why_not=few)
    axes = [_make_axis(search, key, done) for key in search.space.parameters]
    dice = [one.dice or 0.0 for one in done]
    low, high = min(dice), max(dice)
    places = [(value - low) / (high - low) if high > low else 0.5 for value in dice]
    ticks = [(part / 4, f"{low + (high - low) * part / 4:.3f}") for part in range(5)]
    figure = go.Figure()
    _draw_lines(figure, [*axes, Axis("Dice", places, ticks)], done)
    return Drawing("Parallel coordinates", text, _to_html(figure))


def _draw_lines(figure: Any, axes: list[Axis], done: list[Result]) -> None:
    """Draw a line a trial across axes that all go from 0 to 1, as plain lines: not every browser has WebGL."""
    from plotly.colors import sample_colorscale

    colours = sample_colorscale("Viridis", [1 - place for place in axes[-1].places])
    order = sorted(range(len(done)), key=lambda index: axes[-1].places[index])  # the best on top
    for index in order:
        figure.add_scatter(
            x=list(range(len(axes))), y=[axis.places[index] for axis in axes], mode="lines", showlegend=False,
            line={"color": colours[index], "width": 2}, hovertext=_tell_values(done[index]), hoverinfo="text",
        )  # fmt: skip
    for number, axis in enumerate(axes):
        figure.add_vline(x=number, line={"color": "#5b6773", "width": 1})
        for place, text in axis.ticks:
            figure.add_annotation(x=number, y=place, text=text, showarrow=False, xanchor="left", xshift=3,
                                  font={"size": 11}, bgcolor="rgba(255,255,255,0.7)")  # fmt: skip
    names = {"tickvals": list(range(len(axes))), "ticktext": [axis.label for axis in axes], "showgrid": False}
    figure.update_xaxes(**names, range=[-0.1, len(axes) - 0.5], side="top")
    figure.update_yaxes(visible=False, range=[-0.08, 1.08])


def _make_axis(search: Search, key: str, done: list[Result]) -> Axis:
    """Return a parameter's axis: choices one above the other, wide ranges by their logarithm."""
    parameter, label = search.space.parameters[key], "<br>".join(key.split(".")[-2:])
    values = [one.values[key] for one in done]
    if parameter.choices is not None:
        names = [_word(choice) for choice in parameter.choices]
        heights = {name: number / (len(names) - 1) for number, name in enumerate(names)}
        return Axis(label, [heights[_word(value)] for value in values], [(heights[name], name) for name in names])
    low, high = (float(end or 0) for end in (parameter.low, parameter.high))
    if parameter.log:
        places = [math.log(value / low) / math.log(high / low) for value in values]
        return Axis(label, places, [(part / 4, f"{low * (high / low) ** (part / 4):.3g}") for part in range(5)])
    places = [(value - low) / (high - low) for value in values]
    return Axis(label, places, [(part / 2, f"{low + (high - low) * part / 2:.3g}") for part in range(3)])


def _pareto(search: Search, done: list[Result]) -> Drawing:
    import plotly.graph_objects as go

    text = (
        "Dice against the time of training. The line is the Pareto front: no other trial is both as good and as fast."
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


def _tell_values(one: Result) -> str:
    return f"trial {one.number}<br>" + "<br>".join(f"{key}: {_word(value)}" for key, value in one.values.items())


def _word(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _to_html(figure: Any) -> str:
    figure.update_layout(template="plotly_white", height=HEIGHT, legend={"orientation": "h", "y": 1.12}, margin=MARGINS)
    return str(figure.to_html(full_html=False, include_plotlyjs=False, config={"displayModeBar": False}))
