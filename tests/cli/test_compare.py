"""autoseg_compare: exit statuses, what is written, results from elsewhere, serving."""

import json
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from autoseg.cli import compare
from autoseg.compare.serve import free_port, make_server

HEAD = "dataset,plan,fold,case,region,metric,value\n"
FILES = ["cases.csv", "report.html", "summary.json", "table.md", "table.tex"]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Two datasets, each with a good, a middling and a baseline plan on thirty cases."""
    shifts = {"unet": 0.0, "same": 0.001, "good": 0.08}
    rows = [
        f"{dataset},{plan},0,c{k:02d},liver,dice,{0.7 + 0.005 * ((7 * k) % 30) + shift * (1 + (k % 5) / 10):.4f}\n"
        for dataset in ("A", "B")
        for plan, shift in shifts.items()
        for k in range(30)
    ]
    path = tmp_path / "table.csv"
    path.write_text(HEAD + "".join(rows))
    return path


def _run(*arguments: object) -> int:
    return compare.main([str(argument) for argument in arguments])


def test_a_table_of_two_datasets_makes_two_reports_and_an_overview(table: Path, tmp_path: Path) -> None:
    assert _run("--cases", table, "-w", tmp_path) == 0
    for dataset in ("A", "B"):
        assert sorted(path.name for path in (tmp_path / "reports" / dataset).iterdir()) == FILES
    overview = json.loads((tmp_path / "reports" / "datasets.json").read_text())
    assert overview["critical"]["plans"][0] == "good" and (tmp_path / "reports" / "datasets.html").is_file()


def test_one_dataset_of_a_table_and_one_that_is_not_in_it(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run("--cases", table, "-w", tmp_path, "-d", "B", "-a", "good", "-a", "unet") == 0
    assert [path.name for path in (tmp_path / "reports").iterdir()] == ["B"]
    summary = json.loads((tmp_path / "reports" / "B" / "summary.json").read_text())
    assert [plan["name"] for plan in summary["plans"]] == ["good", "unet"]
    assert _run("--cases", table, "-w", tmp_path, "-d", "C") == 2
    assert _run("--cases", table, "-w", tmp_path, "-a", "goood") == 2
    said = capsys.readouterr().err
    assert "no rows of dataset C" in said and "did you mean 'good'?" in said and said.count("\n") == 2


def test_a_long_name_is_told_whole(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "attention_unet_with_a_name_as_long_as_people_make_them"
    table.write_text(table.read_text().replace(",unet,", f",{name},"))
    assert _run("--cases", table, "-w", tmp_path, "-d", "A", "--baseline", name) == 0
    heading, rows = capsys.readouterr().out.split("\ngood ", 1)
    assert name in heading and f"\n{name} " in rows


def test_the_exit_status_says_whether_a_plan_is_better(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ("--cases", table, "-w", tmp_path, "-d", "A")
    assert _run(*place, "--fail-unless-better-than", "unet") == 0
    assert "A: better than unet: good (+9.6 points" in capsys.readouterr().out
    assert _run(*place, "-a", "same", "--fail-unless-better-than", "unet") == 1
    assert capsys.readouterr().err == "A: no plan is better than unet: same (+0.1 points, +0.1 to +0.1, equal)\n"
    assert _run(*place, "--fail-unless-better-than", "good") == 1
    assert _run(*place, "--baseline", "same", "--fail-unless-better-than", "unet") == 2
    assert "a report has one baseline" in capsys.readouterr().err


def test_a_plan_from_elsewhere_enters_the_table(
    phantom_folder: Path, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ("-d", "Phantom", "-w", workspace)
    assert _run(*place, "--add", f"theirs={phantom_folder / 'labelsTr'}", "--no-images") == 0
    summary = json.loads((workspace / "reports" / "Phantom" / "summary.json").read_text())
    assert summary["plans"][0]["scores"]["liver"]["dice"]["mean"] == 1.0
    assert "not asked for" in (workspace / "reports" / "Phantom" / "report.html").read_text()
    assert _run(*place, "--add", "theirs") == 2
    assert "expected NAME=FOLDER" in capsys.readouterr().err


def test_mistakes_are_told_in_one_line(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("--cases", table, "-w", tmp_path, "--by", "losss") == 2
    assert _run("--cases", table, "-w", tmp_path, "--add", f"x={tmp_path}") == 2
    assert _run("-w", tmp_path) == 2
    lines = capsys.readouterr().err.splitlines()
    assert "did you mean 'loss'" in lines[0] and "say with -d which one" in lines[1] and "no runs yet" in lines[2]


@contextmanager
def _serving(folder: Path) -> Iterator[str]:
    with make_server(folder, free_port(0)) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def _status(url: str, host: str | None = None) -> int:
    request = urllib.request.Request(url, headers={"Host": host} if host else {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_only_reports_are_served_and_only_to_this_machine(tmp_path: Path) -> None:
    (tmp_path / "reports" / "D").mkdir(parents=True)
    (tmp_path / "reports" / "D" / "report.html").write_text("page")
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "reports" / "link").symlink_to(tmp_path / "secret.txt")
    with _serving(tmp_path / "reports") as address:
        assert _status(f"{address}/D/report.html") == 200
        assert _status(f"{address}/D/report.html", "localhost:80") == 200
        assert _status(f"{address}/D/report.html", "evil.example") == 403
        assert _status(f"{address}/../secret.txt") == 404 and _status(f"{address}/link") == 404
        assert free_port(int(address.rsplit(":", 1)[1])) != int(address.rsplit(":", 1)[1])


def test_serving_ends_cleanly_on_a_signal(table: Path, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    port = free_port(0)
    command = [
        sys.executable,
        "-m",
        "autoseg.cli.compare",
        "--cases",
        str(table),
        "-d",
        "A",
        "-w",
        str(tmp_path),
        "--serve",
    ]
    process = subprocess.Popen(
        [*command, "--port", str(port)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        for _ in range(300):
            try:
                assert _status(f"http://127.0.0.1:{port}/A/report.html") == 200
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, err) == (0, "")
    assert f"http://127.0.0.1:{port}/" in out and "TensorBoard on "
    "http://127.0.0.1:" in out and out.endswith("stopped\n")


def test_losses_are_put_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for plan, loss, dice in (("unet", "dice_ce", 0.8), ("unet_tversky", "tversky", 0.7)):
        folder = tmp_path / "results" / "D" / plan / "fold_0"
        (folder / "validation").mkdir(parents=True)
        training = {"loss": {"name": loss}, "epochs": 1, "optimizer": {"name": "sgd"}}
        (folder / "plan.json").write_text(json.dumps({"name": plan, "training": training}))
        cases = {f"c{k}": {"liver": {"dice": dice + 0.01 * k}} for k in range(10)}
        (folder / "validation" / "metrics.json").write_text(json.dumps({"cases": cases}))
    assert _run("-w", tmp_path, "--by", "loss", "--by", "optimizer") == 0
    said = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["by", "loss", "loss", "Dice", "against", "unet"] in said
    assert ["unet", "dice_ce", "0.845", "±", "0.030", "–"] in said
    assert ["unet_tversky", "tversky", "0.745", "±", "0.030", "−10.0", "worse"] in said
    assert any(line[:2] == ["by", "optimizer:"] for line in said)
    summary = json.loads((tmp_path / "reports" / "D" / "summary.json").read_text())
    assert [(group["by"], group["values"]) for group in summary["groups"]] == [("loss", ["dice_ce", "tversky"])]


def test_runs_of_which_none_is_finished_are_reported_as_such(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained, tmp_path / "copy", symlinks=True)
    for folder in (tmp_path / "copy" / "results").rglob("validation"):
        shutil.rmtree(folder)
    assert _run("-d", "Phantom", "-w", tmp_path / "copy", "--no-images") == 0
    assert (tmp_path / "copy" / "reports" / "Phantom" / "report.html").is_file()
    assert _run("-d", "Phantom", "-w", tmp_path / "copy", "--no-images", "--best") == 2
    assert "no scored fold of any plan" in capsys.readouterr().err
