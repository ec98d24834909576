"""What is installed: the wheel holds all that the package needs, and the code is Python 3.10's."""

import ast
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from autoseg.cli._completion import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
OLDEST = (3, 10)
SOURCES = sorted(path for folder in ("autoseg", "tests", "docs") for path in (ROOT / folder).rglob("*.py"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from a copy of the sources without a network."""
    # looking for pip's module would switch off setuptools' distutils in this process, which torch.compile needs
    if not {"pip", "setuptools"} <= {one.name.lower() for one in distributions()}:
        pytest.skip("setuptools or pip is not installed (pip install '.[test]' brings them)")
    copy = tmp_path_factory.mktemp("sources")
    shutil.copytree(ROOT / "autoseg", copy / "autoseg", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        "dist",
        ".",
    ]
    subprocess.run(command, cwd=copy, check=True, capture_output=True)
    (path,) = (copy / "dist").glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_every_file_of_the_package(wheel: zipfile.ZipFile) -> None:
    here = {str(path.relative_to(ROOT)) for path in (ROOT / "autoseg").rglob("*") if path.is_file()}
    here = {name for name in here if "__pycache__" not in name}
    there = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert there == here
    endings = {Path(name).suffix for name in here}
    assert {".j2", ".json", ".typed"} <= endings


def _metadata(wheel: zipfile.ZipFile, name: str) -> str:
    (path,) = (each for each in wheel.namelist() if each.endswith(f".dist-info/{name}"))
    return wheel.read(path).decode()


def test_the_wheel_has_every_command(wheel: zipfile.ZipFile) -> None:
    lines = _metadata(wheel, "entry_points.txt").splitlines()
    expected = {f"autoseg_{name} = autoseg.cli.{name}:main" for name in COMMANDS}
    assert {line for line in lines if "=" in line} == expected
    assert {path.stem for path in (ROOT / "autoseg" / "cli").glob("[a-z]*.py")} == set(COMMANDS)


def test_no_dependency_is_listed_twice(wheel: zipfile.ZipFile) -> None:
    needed = [line for line in Parser().parsestr(_metadata(wheel, "METADATA")).get_all("Requires-Dist", [])]
    always = [line.split(">")[0].split("=")[0] for line in needed if "extra ==" not in line]
    assert len(always) > 10 and len(always) == len(set(always))


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13"])
def test_every_dependency_is_pinned_once_for_each_python(version: str) -> None:
    """Several packages have no release for every Python, so that one pin for all would refuse to be installed."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines]
    environment = {"python_version": version}
    here = [canonicalize_name(pin.name) for pin in pins if pin.marker is None or pin.marker.evaluate(environment)]
    assert len(here) > 100 and len(here) == len(set(here))
    assert set(here) == {canonicalize_name(pin.name) for pin in pins}


def test_the_oldest_python_can_read_the_code() -> None:
    assert len(SOURCES) > 100
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text, str(path), feature_version=OLDEST)):
            if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Tuple):  # 3.11 let x[a, *b] be written
                starred = any(isinstance(one, ast.Starred) for one in node.slice.elts)
                bare = not (ast.get_source_segment(text, node.slice) or "").startswith("(")
                assert not (starred and bare), f"{path}:{node.lineno}: write x[(a, *b)]"


def test_the_oldest_python_has_what_is_imported() -> None:
    """Names that later versions added to the standard library."""
    newer = {"tomllib", "StrEnum", "Self", "assert_never", "override", "batched", "ExceptionGroup", "TaskGroup"}
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "") in ("enum", "typing", "itertools", "asyncio"):
                assert not newer & {name.name for name in node.names}, f"{path}:{node.lineno}"
            if isinstance(node, ast.Import):
                assert not newer & {name.name for name in node.names}, f"{path}:{node.lineno}"
