"""Every code block of the documentation: Python runs, JSON is valid, each command line can be typed."""

import importlib
import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
import typer
from typer.exceptions import TyperException

from autoseg.cli._answers import ANSWERS
from autoseg.cli._command import make_app
from autoseg.cli._completion import COMMANDS
from autoseg.compare.groups import THINGS
from autoseg.documents import parse_document
from autoseg.launch.table import SHIPPED, Table
from autoseg.plan.plan import Plan
from autoseg.tune.space import Space

ROOT = Path(__file__).resolve().parents[1]
LANGUAGES = ("bash", "python", "json", "")
PROGRAM = re.compile(r"(?:autoseg_|autoseg\.cli\.)([a-z]+)")


@dataclass(frozen=True)
class Block:
    """A fenced block of code, and where it begins."""

    page: str
    line: int
    language: str
    text: str


def _blocks() -> Iterator[Block]:
    for path in sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]):
        text = path.read_text(encoding="utf-8")
        for found in re.finditer(r"^```(.*)\n([\s\S]*?)^```$", text, re.MULTILINE):
            line = text[: found.start()].count("\n") + 1
            yield Block(str(path.relative_to(ROOT)), line, found[1], found[2])


def _inline_commands() -> Iterator[tuple[str, str]]:
    """Return page and text of each command that stands in a sentence and has options."""
    for path in sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]):
        text = re.sub(r"^```[\s\S]*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        for command in re.findall(r"`(autoseg_[a-z]+ [^`]*)`", text):
            if "..." not in command and "[" not in command:
                yield str(path.relative_to(ROOT)), " ".join(command.split())


BLOCKS = list(_blocks())


def _where(block: Block) -> str:
    return f"{block.page}:{block.line}"


def _of(language: str) -> list[Any]:
    return [pytest.param(block, id=_where(block)) for block in BLOCKS if block.language == language]


def test_every_block_says_what_it_is() -> None:
    assert [_where(block) for block in BLOCKS if block.language not in LANGUAGES] == []


def _commands(text: str) -> list[list[str]]:
    """Return the words of each command of a shell script, without redirections, loops and other programs."""
    commands: list[list[str]] = []
    for line in re.sub(r"\\\n", " ", text).splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
        lexer.whitespace_split = True
        commands.append([])
        redirected = False
        for word in lexer:
            if set(word) <= set(";|&"):
                commands.append([])
            elif redirected or set(word) <= set("<>"):
                if not redirected and commands[-1][-1:] == ["2"]:
                    commands[-1].pop()
                redirected = not redirected
            else:
                commands[-1].append(word)
    return [command for command in map(_own_words, commands) if command]


def _own_words(words: list[str]) -> list[str]:
    """Return the name and the arguments of a command of autoseg; nothing if it is another's."""
    for index, word in enumerate(words):
        found = PROGRAM.fullmatch(word)
        if found and found[1] in COMMANDS:
            return [found[1], *(re.sub(r"\$\w+", "0", argument) for argument in words[index + 1 :])]
    return []


def _parse(words: list[str]) -> Any:
    """Return the context of a command line, as typer reads it before it calls the command; none of it is run."""
    name, *arguments = words
    command = getattr(importlib.import_module(f"autoseg.cli.{name}"), name)
    app = make_app(command, answers=name in ANSWERS)
    return typer.main.get_command(app).make_context(f"autoseg_{name}", arguments)


def _check(words: list[str]) -> None:
    """Check options and their values, as far as they can be told without a dataset."""
    if "--install-completion" in words or "--version" in words:
        return
    options = _parse(words).params
    for text in options.get("assignments") or ():
        section, _, rest = text.partition("=")[0].partition(".")
        part = Plan.model_fields[section].annotation
        assert not rest or rest.split(".")[0] in part.model_fields, f"no field {section}.{rest}"  # type: ignore
    table = options.get("table")
    assert table is None or table.endswith(".json") or SHIPPED.joinpath(f"{table}.json").is_file()
    assert set(options.get("by") or ()) <= set(THINGS)


@pytest.mark.parametrize("block", _of("bash"))
def test_commands_can_be_typed(block: Block) -> None:
    for words in _commands(block.text):
        _check(words)


@pytest.mark.parametrize(
    ("page", "text"), [pytest.param(*each, id=f"{each[0]}: {each[1]}") for each in _inline_commands()]
)
def test_commands_in_sentences_can_be_typed(page: str, text: str) -> None:
    typed = re.sub(r" N\b", " 2", text.replace("FOLD", "0").replace("KEY=VALUE", "training.epochs=1"))
    typed = typed.replace("--table TABLE", "--table losses")
    for words in _commands(typed):
        try:
            _check(words)
        except TyperException as error:  # a sentence need not name everything
            if type(error).__name__ != "MissingParameter" and "requires an argument" not in str(error.message):
                raise


def test_a_wrong_command_is_found() -> None:
    assert _commands("for f in 0 1; do autoseg_train -d D -f $f; done  # why not") == [["train", "-d", "D", "-f", "0"]]
    assert _commands("# autoseg_plan\nautoseg_plan -d D 2> out.txt && ls") == [["plan", "-d", "D"]]
    with pytest.raises(Exception, match="--banana"):
        _check(["plan", "--banana"])
    with pytest.raises(Exception, match="no field training.banana"):
        _check(["plan", "-d", "D", "--set", "training.banana=1"])


@pytest.mark.parametrize("block", _of("json"))
def test_json_is_valid(block: Block) -> None:
    kinds = {"autoseg.table.1": Table, "autoseg.space.1": Space}
    schema = json.loads(block.text)["schema"]
    parse_document(block.text, kinds[schema], where=_where(block))


@pytest.fixture
def ready(tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Go to a folder that has what the examples take for granted; return the names that they do."""
    shutil.copytree(trained, tmp_path, symlinks=True, dirs_exist_ok=True)
    shutil.copytree(trained / "results" / "Phantom" / "good", tmp_path / "results" / "Hippocampus" / "unet")
    kept = {"epoch": 1, "iteration": 2, "cases": ["a"], "images": torch.zeros(1, 1, 4, 4, 4)}
    logs = tmp_path / "results" / "D" / "unet" / "fold_0" / "logs"
    logs.mkdir(parents=True)
    torch.save(kept, logs / "not_finite.pt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    image = sitk.ReadImage(str(next((trained / "raw").glob("*/imagesTs/*"))))
    return {"sitk_image": image, "array": sitk.GetArrayFromImage(image).astype(np.float32)}


def _is_module(block: Block) -> bool:
    return bool(re.match(r"# \w+/\w+\.py\n", block.text))


@pytest.mark.parametrize("block", [one for one in _of("python") if not _is_module(one.values[0])])
def test_python_runs(block: Block, ready: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    text = block.text.replace('"D", "-a", "unet"', '"Phantom", "-a", "good"')
    text = text.replace('["autoseg_run"', f'["{sys.executable}", "-m", "autoseg.cli.run"')
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    exec(compile(text, _where(block), "exec"), dict(ready))


def test_python_is_not_run_in_vain(ready: dict[str, Any]) -> None:
    blocks = [one.values[0] for one in _of("python")]
    assert sum(map(_is_module, blocks)) == 3
    assert sum(not _is_module(block) for block in blocks) >= 3


def _own_module(page: str, folder: Path) -> str:
    """Write the module that a page shows, and return its dotted name."""
    (block,) = [block for block in BLOCKS if block.page == f"docs/how-to/{page}.md" and _is_module(block)]
    path = block.text.split("\n", 1)[0].removeprefix("# ")
    folder.joinpath(path).parent.mkdir()
    folder.joinpath(path).write_text(block.text, encoding="utf-8")
    return path.removesuffix(".py").replace("/", ".")


def test_the_architecture_of_the_page_trains(ready: dict[str, Any], tmp_path: Path) -> None:
    from autoseg.networks import load_architecture

    module = load_architecture(_own_module("add-an-architecture", tmp_path))
    config = module.derive((1.0, 1.0, 1.0), (16, 16, 16))
    network = module.build(config, 2, 3)
    (logits,) = network(torch.randn(1, 2, 16, 16, 16))
    assert logits.shape == (1, 3, 16, 16, 16)
    logits.square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_the_loss_of_the_page_is_a_loss(ready: dict[str, Any], tmp_path: Path) -> None:
    from autoseg.data.labels import Labels
    from autoseg.losses import load_loss
    from autoseg.losses._outputs import Outputs

    module = load_loss(_own_module("add-a-loss", tmp_path))
    loss = module.build(module.Config(), Outputs(Labels.from_names({"background": 0, "liver": 1})))
    classes = torch.zeros(1, 8, 8, 8, dtype=torch.int16)
    classes[:, 2:6] = 1
    perfect = torch.nn.functional.one_hot(classes.long(), 2).movedim(-1, 1) * 40.0 - 20.0
    assert loss(perfect, classes) < 1e-3 < 0.9 < loss(-perfect, classes)


def test_the_augmentation_of_the_page_augments(ready: dict[str, Any], tmp_path: Path) -> None:
    from autoseg.augment import load_augmentation

    module = load_augmentation(_own_module("add-an-augmentation", tmp_path))
    drawn = module.sample(module.Config(probability=0.5), (64, 1, 4, 4, 4), torch.Generator().manual_seed(0))  # type: ignore
    images, _ = module.apply(torch.ones(64, 1, 4, 4, 4), torch.zeros(64, 4, 4, 4, dtype=torch.int16), drawn)
    flipped = images[:, 0, 0, 0, 0] < 0
    assert flipped.equal(drawn["applied"]) and 10 < flipped.sum() < 54
