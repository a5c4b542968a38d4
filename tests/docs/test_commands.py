"""Every command in the documentation parses with the real command line; the marked ones are run."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import typer.core
from pages import PAGES, ROOT, Block, blocks
from PIL import Image

from softedge import config, registry
from softedge.bench.base import open_device, split_specs
from softedge.cli import app, main

SHELL = list(blocks("sh"))
OTHER_PROGRAMS = {"opt_in_out"}  # of OpenVINO


def parse(words: list[str]) -> dict[str, Any]:
    """The values of a ``softedge ...`` line, parsed by the app and not run; its error for a wrong one."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("softedge", words[1:])
    while isinstance(command, typer.core.TyperGroup):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)
    return dict(context.params)


def check_values(values: dict[str, Any]) -> None:
    """What the parser cannot know: recipes, their keys, formats and devices.  UserError for a wrong one."""
    recipe = values.get("recipe") or "small-domain"
    if recipe in config.available():
        config.load(recipe, values.get("set_") or ())
    if values.get("targets"):
        for name in values["targets"].split(","):
            registry.lookup(registry.FORMATS, name, "format")
    for spec in split_specs(values.get("devices") or ""):
        open_device(spec)


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_the_demo_takes_the_folder_that_it_is_given() -> None:
    def lines(*given: str) -> str:
        return subprocess.run(
            ["make", "-n", "demo", *given], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout

    assert "softedge deploy --out runs/demo\n" in lines()
    assert 'softedge deploy --data "my photos/"\n' in lines("DATA=my photos/")


def check_command(words: list[str]) -> None:
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    program = words[0]
    if program == "softedge":
        check_values(parse(words))
    elif program == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), words
    elif program == "python" and (exported := re.search(r"/export/(\w+)-\w+/snippets/run\.py$", words[1])):
        assert (ROOT / "softedge" / "export" / exported[1] / "snippets" / "run.py.txt").is_file(), words
    elif program == "python" and words[1] != "-m":
        assert (ROOT / words[1]).is_file(), words
    elif program in ("pip", "git", "cd", "python"):
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        for extra in re.findall(r"softedge\[(\w+)\]", " ".join(words)):
            assert extra in extras, words
    else:
        assert program in OTHER_PROGRAMS, f"unknown program in {words}"


@pytest.fixture
def photos_and_runs_are_the_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("softedge.data.naming.refuse_missing", lambda source: None)
    monkeypatch.setattr("softedge.stages.opening.reopen", lambda run: None)


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_every_command_in_the_documentation_parses(block: Block, photos_and_runs_are_the_readers: None):
    commands = block.commands()
    assert commands
    for words in commands:
        check_command(words)


@pytest.mark.parametrize(
    "line",
    [
        "softedge deploi --data photos/",
        "softedge check RUN --max-drip 0.01",
        "softedge check",
        "softedge bench RUN --devices lokal",
        "softedge pretrain --set ssl.epoch=3",
        "make demmo",
        "python runs/mine/export/onyx-int8/snippets/run.py photo.jpg",
        "wget http://example.org",
    ],
)
def test_a_command_that_does_not_exist_is_refused(line: str, photos_and_runs_are_the_readers: None):
    with pytest.raises(Exception, match=r"."):
        check_command(line.split())


def test_every_command_is_documented():
    text = "\n".join(page.read_text() for page in PAGES)
    missing = [name for name in typer.main.get_command(app).commands if f"softedge {name}" not in text]
    assert not missing


def photos(folder: Path) -> None:
    """30 pictures of 300 pixels in each of three classes: a bright square in another colour on noise."""
    rng = np.random.default_rng(0)
    for channel, name in enumerate(("red", "green", "blue")):
        (folder / name).mkdir(parents=True)
        for number in range(30):
            image = rng.integers(0, 120, (300, 300, 3), dtype=np.uint8)
            y, x = rng.integers(20, 160, 2)
            image[y : y + 120, x : x + 120, channel] = 255
            Image.fromarray(image).save(folder / name / f"{number}.jpg")


def _marked(mark: str) -> list[Block]:
    return [block for block in SHELL if block.mark == mark]


def _run(block: Block, folder: Path) -> None:
    photos(folder / "photos")
    for words in block.commands():
        assert words[0] == "softedge", f"{block} is marked to be run and holds {words}"
        with pytest.raises(SystemExit) as left:
            main(words[1:])
        assert not left.value.code, f"{block}: {' '.join(words)} ended with exit code {left.value.code}"


@pytest.mark.parametrize("block", _marked("run"), ids=str)
def test_commands_that_are_marked_run_on_a_small_folder(block: Block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _run(block, tmp_path)
