"""Links lead somewhere, and the Python in the documentation is Python that works."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
import tomllib
import types
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from pages import PAGES, RESULTS, ROOT, Block, blocks

import softedge
from softedge import backbones, config, registry
from softedge.cli import app
from softedge.export.deployed import Deployed
from softedge.records import InputSpec

PYTHON = list(blocks("python"))
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, *RESULTS], ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(page: Path):
    for link in _LINK.findall(page.read_text()):
        if re.match(r"https?://", link):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{link} is not there"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{link}: no such heading"


@pytest.mark.parametrize("page", [*PAGES, *RESULTS], ids=lambda page: str(page.relative_to(ROOT)))
def test_a_test_that_a_page_names_is_in_the_file_it_links_to(page: Path):
    for names, file in re.findall(r"\[(test_[a-z0-9_, ]+)\]\(([^)#]+\.py)\)", page.read_text()):
        text = (page.parent / file).read_text()
        assert not [name for name in names.split(", ") if f"def {name}(" not in text]


def test_the_readme_says_where_make_puts_the_command_that_it_goes_on_with():
    venv = re.search(r"^VENV \?= (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    said = (ROOT / "README.md").read_text().partition("softedge deploy")[0]
    assert venv is not None and f"source {venv[1]}/bin/activate" in said


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "README.md").read_text()
    results = (ROOT / "benchmarks" / "results" / "README.md").read_text()
    assert not [
        page.name for page in (ROOT / "docs").glob("*.md") if page.name != "README.md" and page.name not in index
    ]
    assert not [page.name for page in RESULTS if page.name != "README.md" and f"({page.name}" not in results]


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_in_the_documentation_compiles_and_its_imports_exist(block: Block):
    tree = ast.parse(block.text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            for name in node.names:
                if not hasattr(module, name.name):
                    importlib.import_module(f"{node.module}.{name.name}")
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "softedge":
            assert hasattr(softedge, node.attr), node.attr


@pytest.mark.parametrize("block", list(blocks("toml")), ids=str)
def test_toml_in_the_documentation_is_toml(block: Block):
    assert tomllib.loads(block.text)


def test_functions_named_on_the_python_page_exist():
    page = (ROOT / "docs" / "python.md").read_text().partition("## What differs")[0]
    named = {name for row in re.findall(r"^\| (`.+?`) \|", page, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert {"deploy", "check", "gate"} <= named
    assert not [name for name in named if not callable(getattr(softedge, name, None))]


def differences() -> set[tuple[str, str]]:
    """(command, "") without a function of that name, (command, option) without a parameter of that name."""
    found = set()
    for name, command in typer.main.get_command(app).commands.items():
        function = name.replace("-", "_")
        if function not in softedge.__all__:
            found.add((name, ""))
            continue
        known = inspect.signature(softedge._command(function)).parameters
        options = [option for parameter in command.params for option in parameter.opts if option.startswith("--")]
        found |= {(name, option) for option in options if option[2:].replace("-", "_") not in {*known, "help"}}
    return found


def test_the_python_page_says_where_functions_differ_from_commands():
    table = (ROOT / "docs" / "python.md").read_text().partition("## What differs")[2].partition("## Results")[0]
    said = set()
    for cell in re.findall(r"^\| (`.+?) \|", table, re.MULTILINE):
        command = ""
        for span in re.findall(r"`([^`]+)`", cell):
            words = span.split()
            command = command if words[0].startswith("--") else words[0]
            said.add((command, next((word for word in words if word.startswith("--")), "")))
    assert said == differences()


def test_every_function_is_on_the_python_page():
    page = (ROOT / "docs" / "python.md").read_text().partition("## What differs")[0]
    assert not [name for name in softedge.__all__ if f"`{name}`" not in page]


def example(page: str) -> dict[str, object]:
    """The names that the first Python block of a page defines."""
    names: dict[str, object] = {"__name__": "example"}
    block = next(block for block in PYTHON if block.page.name == page)
    exec(compile(block.text, str(block), "exec", dont_inherit=True), names)
    return names


def test_the_example_format_gives_the_outputs_of_pytorch(tmp_path, monkeypatch):
    kind = example("add-a-format.md")["TorchScript"]
    monkeypatch.setitem(sys.modules, "example_format", types.SimpleNamespace(TorchScript=kind))
    monkeypatch.setitem(registry.FORMATS, kind.name, "example_format:TorchScript")
    spec = InputSpec(32, 32, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    backbone = backbones.build(config.Backbone(name="mobilenetv3_small_050"), seed=0)
    deployed = Deployed(backbones.Classifier(backbone, ("a", "b", "c"), spec), spec)
    made = kind()
    assert made.missing() is None
    artifact = made.convert(deployed, "fp32", np.empty((0, 32, 32, 3), np.uint8), tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    assert np.abs(made.load(artifact)(images) - deployed.predict(images)).max() < 1e-5
    assert artifact.labels == ("a", "b", "c")
    assert made.runtime().startswith("torch ")


def test_the_example_device_describes_itself():
    kind = example("add-a-device.md")["Pinned"]
    with kind("pinned:0", "0", {}) as device:
        assert device.describe()["machine"]
    with pytest.raises(softedge.errors.UserError, match="expected a core"):
        kind("pinned:first", "first", {})


def test_the_example_method_has_the_loss_of_its_equation_and_a_gradient():
    names = example("add-a-method.md")
    rng = torch.Generator().manual_seed(0)
    first, second = torch.randn(8, 3, generator=rng), torch.randn(8, 3, generator=rng)
    by_hand = 0.0
    for i in range(3):
        for j in range(3):
            a, b = (z[:, k] for z, k in ((first, i), (second, j)))
            correlation = sum((a - a.mean()) / a.std() * (b - b.mean()) / b.std()) / 8
            by_hand += (1 - correlation) ** 2 if i == j else 0.1 * correlation**2
    assert torch.isclose(names["barlow_twins"](first, second, off_diagonal=0.1), by_hand, atol=1e-4)
    backbone = backbones.build(config.Backbone(name="mobilenetv3_small_050", stem_stride=1), seed=0)
    method = names["BarlowTwins"](names["Settings"](projector=(16, 8)), backbone, seed=0)
    views = torch.randn(4, 3, 32, 32, generator=rng), torch.randn(4, 3, 32, 32, generator=rng)
    method(views, torch.arange(4)).backward()
    assert all(p.grad is not None for p in method.trained_parameters())


_SCRIPT = re.compile(r"python3? (benchmarks/\w+\.py)([^`|·;&]*)")


@pytest.mark.parametrize("page", [*PAGES, *RESULTS], ids=lambda page: str(page.relative_to(ROOT)))
def test_a_benchmark_that_a_page_calls_is_there_and_takes_those_options(page: Path):
    for script, rest in _SCRIPT.findall(page.read_text()):
        source = (ROOT / script).read_text()
        asked = re.findall(r"(?<!\S)--([a-z][a-z0-9-]*)", rest)
        options = [f"--{name}" for name in asked if f'"--{name}"' not in source and f'"{name}"' not in source]
        assert not options, f"{script} does not take {', '.join(options)}"
