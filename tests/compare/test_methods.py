"""The paragraph for a paper, and numbers as people read them."""

import re
from dataclasses import replace

import pytest

from autoseg.compare import words
from autoseg.compare.background import Background
from autoseg.compare.conclusions import conclude
from autoseg.compare.measure import measure
from autoseg.compare.methods import CITATIONS, citation_of, write_methods
from autoseg.compare.page import render_page
from autoseg.compare.runs import Run, Runs, load_runs
from autoseg.compare.scores import gather_scores
from autoseg.data.workspace import Workspace


def test_the_paragraph_cites_what_was_used_and_nothing_else(finished_results: Workspace) -> None:
    runs = load_runs(finished_results, "Hippocampus")
    paragraph, references = write_methods(conclude(measure(runs), runs), runs, None)
    cited = [int(n) for group in re.findall(r"\[([\d, ]+)\]", paragraph) for n in group.split(", ")]
    assert sorted(set(cited)) == list(range(1, len(references) + 1))
    for told in (
        "4 plans",
        "40 cases",
        "25,000 iterations",
        "folds 0, 1",
        "torch 2.13.0",
        "NVIDIA H200",
        "compared with unet",
    ):
        assert told in paragraph
    assert all(CITATIONS[name] in references for name in ("unet", "nnunet", "attention_unet", "unetr"))
    assert any("Holm" in text for text in references) and not any("MedNeXt" in text for text in references)
    assert ". ." not in paragraph and paragraph.endswith(".")


def test_methods_from_elsewhere_are_not_said_to_be_trained_here() -> None:
    cases = {f"c{k}": {"x": {"dice": k / 10}} for k in range(8)}
    runs = Runs("D", (Run("a", 0, "finished", "", cases=cases), Run("b", 0, "finished", "", cases=cases)))
    paragraph, references = write_methods(conclude(measure(runs), runs), runs, None)
    assert "trained" not in paragraph and "8 cases that all have (1 region: x)" in paragraph
    assert not any(text in references for text in CITATIONS.values())


@pytest.mark.parametrize(
    ("architecture", "key"),
    [
        ("unet", "unet"),
        ("unetr", "unetr"),
        ("nnunet_resenc_l", "nnunet_resenc"),
        ("nnunet_2d", "nnunet"),
        ("mine", None),
    ],
)
def test_an_architecture_has_the_citation_of_its_kin(architecture: str, key: str | None) -> None:
    assert citation_of(architecture) == (CITATIONS[key] if key else None)


def test_groups_have_their_table_and_their_view_of_the_costs(finished_results: Workspace) -> None:
    runs = load_runs(finished_results, "Hippocampus", ["unet", "nnunet"])
    summary = conclude(measure(runs, by=("architecture", "loss")), runs)
    assert [(group.by, group.values) for group in summary.groups] == [("architecture", ("unet", "nnunet"))]
    page = render_page(summary, runs, gather_scores(runs), Background())
    assert 'id="by-1"' in page and "By architecture" in page and "epoch_seconds|group0" in page
    assert "No pictures" in page


def test_results_from_elsewhere_have_no_settings_to_differ_in(finished_results: Workspace) -> None:
    runs = load_runs(finished_results, "Hippocampus", ["unet", "nnunet"])
    added = Run("theirs", "added", "finished", "", cases=runs.runs[0].cases)
    both = replace(runs, runs=(*runs.runs, added))
    pages = [
        render_page(conclude(measure(found), found), found, gather_scores(found), Background())
        for found in (runs, both)
    ]
    rows = [re.findall(r'<th scope="row"><code>(.*?)</code>', page) for page in pages]
    assert rows[0] == rows[1] and any("architecture" in row for row in rows[0])


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "less than 1 %"),
        (0.004, "less than 1 %"),
        (0.5, "50 %"),
        (0.999, "more than 99 %"),
        (1.0, "more than 99 %"),
    ],
)
def test_no_share_claims_certainty(share: float, text: str) -> None:
    assert words.format_share(share) == text


def test_numbers_have_their_unit_and_unknown_ones_a_dash() -> None:
    assert words.format_operations(192_365_789_184) == "192 G" and words.format_operations(2 * 10**13) == "20 T"
    assert words.format_effect(-0.314) == "−0.31" and words.format_effect(0.5) == "+0.50"
    assert words.format_more_cases(1234) == "1,234" and words.format_more_cases(10**6) == "> 10,000"
    unknown = (words.format_operations, words.format_effect, words.format_more_cases)
    assert [form(None) for form in unknown] == [words.DASH] * 3  # type: ignore[operator]
