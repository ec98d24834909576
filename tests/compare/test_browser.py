"""The page in a real browser: headless Chromium, where there is one."""

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest

from autoseg.compare.background import gather_background
from autoseg.compare.external import read_cases_table
from autoseg.compare.measure import measure
from autoseg.compare.overview import compare_over_datasets
from autoseg.compare.report import write_overview, write_report
from autoseg.compare.runs import Run, Runs, Values
from autoseg.compare.scores import gather_scores
from autoseg.data.workspace import Workspace

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
           "--disable-component-update", "--disable-sync", "--hide-scrollbars")  # fmt: skip
VIRTUAL_MS = 60000
EVIL = "<img src=x onerror=alert(1)>"
FOLDER = Path(__file__).parent
Browse = Callable[..., Any]


@pytest.fixture(scope="module")
def browse(tmp_path_factory: pytest.TempPathFactory) -> Browse:
    """A function that opens a page, does some steps of browser_after.js, and fails if the page has any problem."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no Chromium here")
    before, after = (
        f"<script>{(FOLDER / name).read_text()}</script>" for name in ("browser_before.js", "browser_after.js")
    )

    def run(page: Path, *steps: str, width: int = 1280) -> dict[str, Any]:
        folder = tmp_path_factory.mktemp("browser")
        start, end = page.read_text(encoding="utf-8").split("<head>", 1)
        start = start.replace("<html ", f'<html data-steps="{" ".join(steps)}" ')
        rest, _, tail = end.rpartition("</body>")
        text = f"{start}<head>{before}{rest}{after}</body>{tail}"
        (folder / "page.html").write_text(text, encoding="utf-8")
        options = (
            f"--window-size={width},900",
            f"--user-data-dir={folder / 'profile'}",
            f"--virtual-time-budget={VIRTUAL_MS}",
        )
        command = [browser, *OPTIONS, *options, "--dump-dom", (folder / "page.html").as_uri()]
        dom = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout
        assert '<pre id="answers">' in dom, "the steps did not come to their end"
        found = json.loads(unquote(dom.split('<pre id="answers">')[1].split("</pre>")[0]))
        assert found["problems"] == []
        return dict(found["answers"])

    return run


def _run(plan: str, folder: Path, cases: dict[str, Values], seconds: float) -> Run:
    losses = {"train_loss": 0.5, "validation_loss": 0.4, "validation_dice": {"liver": 0.5}}
    epochs = tuple({"epoch": epoch, "seconds": seconds, **losses} for epoch in (1, 2, 3))
    record = {"parameters": 1000, "device": EVIL}
    return Run(plan, 0, "finished", "", {}, epochs, cases, record=record, predictions=folder)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, phantom_folder: Path) -> Path:
    """A report of three plans with pictures; plans and regions have hostile names."""
    root = tmp_path_factory.mktemp("report")
    (root / "raw").symlink_to(phantom_folder.parent)
    rng = np.random.default_rng(0)
    labels = sorted((phantom_folder / "labelsTr").iterdir())
    runs = []
    for shift, (plan, seconds) in enumerate({"unet": 20.0, EVIL: 9.0, "slow": 100.0}.items()):
        folder = root / f"predictions_{shift}"
        folder.mkdir()
        cases: dict[str, Values] = {}
        for place, path in enumerate(labels):
            other = labels[(place + shift) % len(labels)] if shift == 0 else path
            (folder / path.name).symlink_to(other)
            volume = 10.0 + place
            dice = 0.8 + 0.01 * place - 0.05 * shift + 0.002 * rng.random()
            cases[path.name.split(".")[0]] = {
                region: {"dice": dice, "reference_volume_ml": volume} for region in ("liver", f"{EVIL}{'</script>'}")
            }
        runs.append(_run(plan, folder, cases, seconds))
    found = Runs("Phantom", tuple(runs))
    table = gather_scores(found)
    background = gather_background(found, table, Workspace(root))
    assert background.gallery is not None
    write_report(found, root / "out", table=table, background=background)
    return root / "out" / "report.html"


@pytest.fixture(scope="module")
def used(browse: Browse, page: Path) -> dict[str, Any]:
    """What a reader with a wide window gets to see who does everything that the page offers."""
    return browse(page, "open", "sort", "find", "choices", "view", "untick")  # type: ignore[no-any-return]


def test_the_page_opens_without_a_problem(used: dict[str, Any]) -> None:
    found = used["open"]
    assert (found["plots"], found["undrawn"], found["images"]) == (5, 0, 0)
    assert found["wide"] <= found["room"] == 1280


def test_the_page_fits_a_phone(browse: Browse, page: Path) -> None:
    found = browse(page, "open", width=500)["open"]
    assert found["undrawn"] == 0 and found["wide"] <= found["room"] == 500


def test_the_leaderboard_sorts(used: dict[str, Any]) -> None:
    assert used["sort"]["seen"] == [
        ["unet", EVIL, "slow"],
        ["slow", "unet", EVIL],
        [EVIL, "unet", "slow"],
        [EVIL, "slow", "unet"],
    ]  # fmt: skip
    assert used["sort"]["marks"] == [["Plan", "ascending"]]


def test_cases_are_found_and_sorted(used: dict[str, Any]) -> None:
    found = used["find"]
    assert len(found["before"]) == 6
    assert found["found"] == [[name for name in found["before"] if "4" in name], "1 of 6 cases"]
    assert found["best"] == found["before"][-1]
    assert len(found["numbers"]) == 3 and all(0.0 < float(number) < 1.0 for number in found["numbers"])


def test_every_choice_of_every_figure_is_drawn(used: dict[str, Any]) -> None:
    assert used["choices"] > 10


def test_the_viewer_scrolls_and_its_outlines_come_and_go(used: dict[str, Any]) -> None:
    found = used["view"]
    assert found["drawn"] and found["moved"] and found["returned"] and found["outlines"]
    assert found["other"].startswith("1|") and found["label"].startswith("phantom_002, slice ")
    assert len(found["dice"]) == 3 and all(0.0 < float(dice) < 1.0 for dice in found["dice"])


def test_a_plan_that_is_unticked_leaves_tables_and_figures(used: dict[str, Any]) -> None:
    found = used["untick"]
    assert [a - b for a, b in zip(found["before"], found["after"])] == [1, 2, 1] and "slow" not in found["rows"]


def test_pages_with_little_on_them_open_too(browse: Browse, page: Path, tmp_path: Path) -> None:
    write_report(Runs("Empty", (Run("a", 0, "not started", "nothing"),)), tmp_path / "empty")
    assert browse(tmp_path / "empty" / "report.html", "open")["open"]["title"] == "No run is finished yet"
    (runs,) = read_cases_table(page.with_name("cases.csv"))
    summaries = [measure(replace(runs, dataset=name)) for name in ("A", EVIL)]
    overview = write_overview(compare_over_datasets(summaries), tmp_path)
    found = browse(overview, "open", width=500)["open"]
    assert (found["plots"], found["undrawn"], found["images"]) == (1, 0, 0) and found["wide"] <= found["room"]
