"""The leaderboard as a table for Markdown and for LaTeX."""

from collections.abc import Sequence

from autoseg.compare import words
from autoseg.compare.summary import FOREGROUND, MAIN_METRICS, METRICS, PRIMARY, PlanSummary, Summary

LATEX_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", words.MINUS: "$-$", words.DASH: "--", "±": r"$\pm$", "×": r"$\times$",
}  # fmt: skip
MARKDOWN_SPECIAL = "\\`*_{}[]<>|#"
Row = Sequence[str]


def format_markdown(summary: Summary) -> str:
    """Return the leaderboard in Markdown; the best score of a column is bold."""
    head, rows, best = _table(summary)
    marks = ["---", *["---:"] * (len(head) - 1)]
    lines = [[_escape_markdown(word) for word in row] for row in [head, *rows]]
    for row, column in best:
        lines[row + 1][column] = f"**{lines[row + 1][column]}**"
    body = [lines[0], marks, *lines[1:]]
    table = "".join(f"| {' | '.join(row)} |\n" for row in body)
    return f"{table}\n{_escape_markdown(_caption(summary))}\n"


def format_latex(summary: Summary) -> str:
    """Return the leaderboard as a LaTeX table that needs the package booktabs; the best score of a column is bold."""
    head, rows, best = _table(summary)
    lines = [[escape_latex(word) for word in row] for row in [head, *rows]]
    for row, column in best:
        lines[row + 1][column] = rf"\textbf{{{lines[row + 1][column]}}}"
    body = [" & ".join(row) + r" \\" for row in lines]
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{escape_latex(_caption(summary))}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
            r"\toprule",
            body[0],
            r"\midrule",
            *body[1:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def escape_latex(text: str) -> str:
    """Return text in which nothing means anything to LaTeX."""
    return "".join(LATEX_SPECIAL.get(character, character) for character in text)


def _escape_markdown(text: str) -> str:
    return "".join(f"\\{c}" if c in MARKDOWN_SPECIAL else c for c in " ".join(text.split()))


def _caption(summary: Summary) -> str:
    return (
        f"{summary.dataset}: {words.count(len(summary.plans), 'plan')}, "
        f"{words.count(summary.num_common_cases, 'common case')}. Scores: mean ± standard deviation over cases of the "
        f"mean over regions. Difference to {summary.baseline or 'no baseline'} in Dice points with its 95 % interval "
        "(bootstrap, BCa); p: Wilcoxon signed-rank test, Holm-corrected."
    )


def _table(summary: Summary) -> tuple[Row, list[Row], list[tuple[int, int]]]:
    """Return the head, the rows, and where (row, column) the best scores stand."""
    plans = ordered_plans(summary)
    shown = [metric for metric in summary.metrics if metric in MAIN_METRICS]
    metrics = [METRICS[metric] for metric in shown]
    titles = [metric.title + (f", {metric.unit}" if metric.unit else "") for metric in metrics]
    costs = ["Epoch", "Fold", "Case", "Memory", "Parameters"]
    head = ["Plan", "Cases", *titles, "Difference", "p", "Verdict", *costs]
    best = []
    for column, metric in enumerate(shown, start=2):
        means = [plan.scores[FOREGROUND][metric].mean for plan in plans]
        known = [mean for mean in means if mean is not None]
        winner = (max if METRICS[metric].higher_is_better else min)(known, default=None)
        best += [(row, column) for row, mean in enumerate(means) if mean is not None and mean == winner]
    return head, [_row(summary, plan) for plan in plans], best


def ordered_plans(summary: Summary) -> list[PlanSummary]:
    """Return the plans by their rank; without a ranking, as they come."""
    places = {rank.plan: place for place, rank in enumerate(summary.ranking)}
    return sorted(summary.plans, key=lambda plan: places.get(plan.name, 0))


def _row(summary: Summary, plan: PlanSummary) -> Row:
    scores = [
        words.format_mean(plan.scores[FOREGROUND][metric], metric)
        for metric in summary.metrics
        if metric in MAIN_METRICS
    ]
    found = summary.primary(plan.name)
    compared = ["baseline" if plan.name == summary.baseline else words.DASH, words.DASH, words.DASH]
    if found is not None:
        interval = words.format_interval(found.difference, PRIMARY)
        difference = f"{words.format_signed(found.difference.mean, PRIMARY)} ({interval})"
        compared = [difference, words.format_p(found.p_holm), found.verdict]
    cost = plan.cost
    costs = [words.format_seconds(s) for s in (cost.epoch_seconds, cost.training_seconds, cost.inference_seconds)]
    return [plan.name, str(plan.num_cases), *scores, *compared, *costs, words.format_memory(cost),
            words.format_count(cost.parameters)]  # fmt: skip
