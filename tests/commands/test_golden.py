"""What every command prints, word for word: ``golden/`` has a file for each, with refusals and second starts.

``python -m pytest tests/commands/test_golden.py --update-golden`` writes the files anew; read their difference as a
user would before it is committed.
"""

from __future__ import annotations

import itertools
import os
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import typer

sys.path.insert(0, str(Path(__file__).parent))  # scenario and masking, beside this file
sys.path.insert(0, str(Path(__file__).parents[1] / "detection"))  # voc_squares

from masking import masked
from scenario import SCRIPT, Spoken, play
from tiny_network import exact_integers

from softedge.bench import base
from softedge.bench.browser import ort_web
from softedge.cli import app
from softedge.eval import pace
from softedge.export.litert import environment as litert
from softedge.live import serve
from softedge.progress import say

GOLDEN = Path(__file__).parent / "golden"
SATURATING = {"quantize"}  # its answers, so that its words, too, are others where int8 sums saturate


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, list[Spoken]]]]:
    """The whole scenario; its folder is the working directory meanwhile. Nothing waits, and nothing is fetched."""
    folder = tmp_path_factory.mktemp("golden")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["softedge"])
        patch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))  # which says how the program was started
        patch.setenv("SOFTEDGE_CACHE", str(folder / "cache"))
        patch.setenv("TERMINAL_WIDTH", "100")
        patch.setenv("COLUMNS", "100")
        patch.setattr(os, "cpu_count", lambda: 2)
        patch.setattr(torch.cuda, "is_available", lambda: False)
        patch.setattr(torch.cuda, "device_count", lambda: 0)
        patch.setattr(pace, "measured", lambda backbone, size: (0.01, 0))
        patch.setitem(base.PRESETS, "quick", base.Preset(20, 0.02, 500))
        patch.setattr(serve, "until_interrupted", say)
        (folder / "runtime.wasm").write_bytes(bytes(100_000))
        patch.setattr(ort_web, "files", lambda backend: {"ort.wasm": folder / "runtime.wasm"})
        patch.setenv("SOFTEDGE_LITERT", str(folder / "litert"))
        patch.setattr(litert, "make", lambda: None)
        yield folder, play(folder)


@pytest.mark.parametrize("name", [pytest.param(n, marks=exact_integers if n in SATURATING else ()) for n in SCRIPT])
def test_a_command_prints_what_is_written_down(name, played, request):
    folder, spoken = played
    text = "\n".join(each.text(folder) for each in spoken[name])
    file = GOLDEN / f"{name}.txt"
    if request.config.getoption("--update-golden"):
        GOLDEN.mkdir(exist_ok=True)
        file.write_text(text)
    assert text == file.read_text(), f"{file} says otherwise; --update-golden writes it anew"


def test_every_command_is_in_the_scenario():
    def commands(group, *words: str) -> Iterator[str]:
        for name, inner in getattr(group, "commands", {}).items():
            yield from commands(inner, *words, name) if hasattr(inner, "commands") else [" ".join([*words, name])]

    lines = [line for script in SCRIPT.values() for line in script]
    asked = list(commands(typer.main.get_command(app)))
    assert len(asked) > 30 and not [name for name in asked if not any(f"{x} ".startswith(f"{name} ") for x in lines)]
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(SCRIPT)


def test_columns_stand_below_each_other(played):
    """In raw output: of neighbouring lines with as many cells, each cell starts or ends where the other's does."""
    for spoken in (each for script in played[1].values() for each in script):
        if spoken.line.startswith(("recipes show", "report --compare")):  # TOML, and lines of words
            continue
        lines = spoken.out.splitlines()
        for above, below in itertools.pairwise(lines):
            first, second = ([m.span() for m in re.finditer(r"\S+(?: \S+)*", line)] for line in (above, below))
            if len(first) != len(second) or len(first) < 2:
                continue
            askew = [a for a, b in zip(first, second) if a[0] != b[0] and a[1] != b[1]]
            assert not askew, f"softedge {spoken.line}:\n{above}\n{below}"


def test_what_one_command_says_twice_it_says_for_two_things(played):
    for spoken in (each for script in played[1].values() for each in script):
        lines = [line for line in spoken.err.splitlines() if line]
        assert len(lines) == len(set(lines)), f"softedge {spoken.line}:\n{spoken.err}"


def test_no_word_stands_twice_in_a_row_and_nothing_counts_one_of_many(played):
    wrong = re.compile(
        r"\b([a-z]{2,}) \1\b|(?<![\d.,])\b1 (images|epochs|minutes|passes|files|labels|pictures|folders)\b|::"
    )
    for spoken in (each for script in played[1].values() for each in script):
        if not spoken.line.startswith("recipes list"):
            assert not wrong.search(spoken.out + spoken.err), f"softedge {spoken.line}:\n{spoken.out}{spoken.err}"


def test_masked_text_keeps_words_and_counts():
    text = "/a/b/x: 3 of 40 images, 12 ms, 0.25\nprobe  top1  77.8 %\nprobe  n_test  9\nbench x: 3/7\nn  140  2.30 MB\n"
    assert masked(text, Path("/a/b")) == (
        "FOLDER/x: 3 of 40 images, <n> ms, <n>\nprobe  top1  <n> %\nprobe  n_test  9\nn  <n>  <n> MB\n"
    )
