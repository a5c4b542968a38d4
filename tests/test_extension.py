"""A format, a device and a method are added without touching anything: from a module, and from an installed package."""

from __future__ import annotations

import ast
import importlib
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_format
from PIL import Image

import softedge
from softedge import config, registry
from softedge.bench.base import PRESETS, Preset, open_device
from softedge.errors import UserError, quoted
from softedge.export import contract
from softedge.export.base import Format, open_format
from softedge.records import Precision
from softedge.run import read_json

PACKAGE = Path(softedge.__file__).parent
PLUGIN = Path(__file__).parent / "example_plugin"
RECIPE = [
    "data.size=32",
    "data.workers=0",
    "backbone.name=resnet_toy",
    "ssl.epochs=1",
    "ssl.batch=16",
    "ssl.queue=32",
    "ssl.neighbors=4",
    "ssl.projector=[16, 8]",
    "ssl.knn_every=0",
    "optim.lr=0.03",
    "optim.warmup_epochs=0",
    "probe.few_labels=3",
    "finetune.epochs=1",
    "finetune.min_steps=60",
    "export.calibration_images=24",
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of noise on a red, green or blue ground."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for channel, name in enumerate(("red", "green", "blue")):
        (folder / name).mkdir()
        for index in range(24):
            array = rng.integers(0, 120, (36, 40, 3), dtype=np.uint8)
            array[..., channel] += 100
            Image.fromarray(array).save(folder / name / f"{index:02d}.png")
    return folder


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "quick", Preset(8, 0.0, 30))


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.FORMATS, "toy", f"{toy_format.__name__}:Toy")
    monkeypatch.setitem(registry.DEVICES, "abacus", f"{toy_format.__name__}:Abacus")


def deploy(photos: Path, out: Path, targets: list[str], devices: list[str]) -> Path:
    return softedge.deploy(
        data=str(photos),
        recipe="light-moco",
        out=out,
        targets=targets,
        precisions=["fp32", "int8"],
        devices=devices,
        set=RECIPE,
    ).root


def test_a_toy_format_and_a_toy_device_go_through_the_whole_chain(
    photos: Path, tmp_path: Path, toy: None, quick: None
) -> None:
    run = deploy(photos, tmp_path / "run", ["toy", "onnx"], ["abacus", "local"])

    # Export: both files are in the contract, and either of them makes the hash.
    folder = run / "export" / "toy-int8"
    values = contract.describe(folder)
    assert values["files"] == ["model.toy", "weights.npz"] and values["bits"] == {"weights": 8, "activations": 32}
    assert values["size_bytes"] == sum((folder / name).stat().st_size for name in values["files"])
    assert softedge.verify(folder)["passed"]

    # Check: computed by the format's own runtime, counted by the format itself.
    rows = {row["artifact"]: row for row in read_json(run / "check" / "result.json")["details"]["rows"]}
    assert rows["toy-fp32"]["passed"] and rows["toy-fp32"]["max_abs_diff"] < 1e-5
    assert rows["toy-int8"]["passed"] and 0 < rows["toy-int8"]["max_abs_diff"] < 0.05
    assert rows["toy-int8"]["runtime"] == f"NumPy {np.__version__}"
    assert rows["toy-int8"]["quantized_ops"] == {"conv_weights": 1, "linear_weights": 1}
    assert rows["toy-int8"]["size_ratio"] < 1

    # Bench: the toy device runs what it says it runs, and softedge's own device takes the runtime along.
    for device in ("abacus", "local"):
        measured = read_json(run / "bench" / f"toy-int8@{device}" / "result.json")
        assert measured["metrics"]["n"] >= 8 and measured["metrics"]["p90_ms"] > 0
        assert measured["metrics"]["top1"] == pytest.approx(rows["toy-int8"]["top1"])
        assert measured["details"]["runtime"] == f"NumPy {np.__version__}"
    refused = read_json(run / "bench" / "onnx-fp32@abacus" / "result.json")["skipped"]["latency"]
    assert refused == "not run: an abacus runs Toy format files; export one with: softedge export --targets toy"

    # Report: named as the format names itself, int8 and coloured like any other.
    page = (run / "report.html").read_text()
    assert "Toy format int8" in page and "Abacus" in page
    assert f'<span class="chip format-{len(registry.FORMATS.own)}"' in page
    (reported,) = json.loads((run / "report.json").read_text())["runs"]
    table = {row["artifact"]: row for row in reported["files"]}
    assert table["toy-int8"]["gate"] == "passed" and set(table["toy-int8"]["devices"]) == {"abacus", "local"}


def test_a_change_in_the_second_file_is_found(photos: Path, tmp_path: Path, toy: None, quick: None) -> None:
    run = deploy(photos, tmp_path / "run", ["toy"], ["abacus"])
    folder = run / "export" / "toy-fp32"
    weights = folder / "weights.npz"
    weights.write_bytes(weights.read_bytes() + b"x")
    with pytest.raises(UserError, match="was changed after the export"):
        contract.read(folder)
    weights.unlink()
    with pytest.raises(UserError, match=r"weights\.npz does not exist"):
        softedge.verify(folder)


def test_a_format_of_another_name_is_refused_before_anything_is_trained(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown target 'toy'"):
        deploy(photos, tmp_path / "run", ["toy"], ["local"])
    assert not (tmp_path / "run").exists()


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The example package as pip installs it, in a folder of its own on the path."""
    source, site = tmp_path / "source", tmp_path / "site"
    shutil.copytree(PLUGIN, source)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    command += ["--no-deps", "--no-build-isolation", "--target", str(site), str(source)]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    for name in ("FORMATS", "DEVICES", "METHODS"):  # read once in a process: this one has read them already
        before = getattr(registry, name)
        monkeypatch.setattr(registry, name, registry.Table(before.group, before.own))
    yield site
    for name in [name for name in sys.modules if name.startswith("softedge_labelled")]:
        del sys.modules[name]


def test_an_installed_package_adds_a_format_and_a_device(
    photos: Path, tmp_path: Path, installed: Path, quick: None
) -> None:
    assert list(registry.FORMATS)[-1] == "labelled" and list(registry.DEVICES)[-1] == "bench_top"
    run = deploy(photos, tmp_path / "run", ["labelled"], ["bench_top"])
    folder = run / "export" / "labelled-int8"
    assert (folder / "labels.txt").read_text() == "blue\ngreen\nred\n"
    assert contract.describe(folder)["files"] == ["model.onnx", "labels.txt"]
    assert (folder / "snippets" / "run.py").is_file()  # those of the format that it derives from
    measured = read_json(run / "bench" / "labelled-int8@bench_top" / "result.json")
    assert measured["details"]["device"]["name"] == "Bench top" and measured["metrics"]["p90_ms"] > 0
    assert "Labelled ONNX int8" in (run / "report.html").read_text()
    (reported,) = json.loads((run / "report.json").read_text())["runs"]
    assert reported["devices"]["bench_top"]["kind"] == "this computer"  # as the device that it derives from
    environment = {"PYTHONPATH": f"{installed}:{PACKAGE.parent}", "PATH": ""}
    completed = subprocess.run(
        [sys.executable, "-m", "softedge", "doctor"], env=environment, capture_output=True, text=True, check=True
    )
    rows = dict(re.split(" {2,}", line, maxsplit=1) for line in completed.stdout.splitlines())
    package = "ready, from softedge-labelled 1.0"
    assert rows["target labelled"] == f"{package}; runtime: onnxruntime {metadata.version('onnxruntime')}"
    assert rows["device bench_top"] == rows["method three-views"] == package


def test_an_installed_package_adds_a_method_with_settings_and_views_of_its_own(
    photos: Path, tmp_path: Path, installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(registry.METHODS)[-1] == "three-views"
    shown: list[list[int]] = []
    method = registry.lookup(registry.METHODS, "three-views", "method")
    forward = method.forward

    def noted(self: object, views: list[torch.Tensor], index: torch.Tensor) -> torch.Tensor:
        shown.append([view.shape[-1] for view in views])
        return forward(self, views, index)  # type: ignore[no-any-return]

    monkeypatch.setattr(method, "forward", noted)
    recipe = tmp_path / "mine.toml"
    recipe.write_text('[ssl]\nmethod = "three-views"\nstrength = 2.0\n')
    settings = [each for each in RECIPE if not each.startswith(("ssl.queue", "ssl.neighbors"))]
    softedge.pretrain(data=str(photos), recipe=str(recipe), out=tmp_path / "run", set=settings)
    kept = tomllib.loads((tmp_path / "run" / "recipe.toml").read_text())["ssl"]
    assert kept["method"] == "three-views" and kept["strength"] == 2.0 and "queue" not in kept
    assert shown and all(sizes == [32, 32, 16] for sizes in shown)
    with pytest.raises(UserError, match=r"unknown key 'ssl\.strenght'.*did you mean 'ssl\.strength'"):
        config.load(str(recipe), ["ssl.strenght=1"])


class Entries:
    """Stands for importlib.metadata: one package with entry points."""

    def __init__(self, **entries: str):
        self.entries = entries

    def __call__(self, group: str) -> list[metadata.EntryPoint]:
        return [metadata.EntryPoint(name, value, group) for name, value in self.entries.items()]


def table_with(monkeypatch: pytest.MonkeyPatch, **entries: str) -> registry.Table:
    monkeypatch.setattr(metadata, "entry_points", Entries(**entries))
    return registry.Table("softedge.formats", {"own": "softedge.own:Own"})


def test_a_package_cannot_replace_what_is_there_already(monkeypatch: pytest.MonkeyPatch) -> None:
    table = table_with(monkeypatch, own="other.module:Thing")
    with pytest.raises(UserError, match="adds 'own' to softedge.formats, but softedge itself has that name already"):
        list(table)


def test_a_package_that_cannot_be_imported_is_one_line_and_the_others_are_still_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = table_with(monkeypatch, torn="no_such_module:Thing")
    assert list(table) == ["own", "torn"]
    with pytest.raises(UserError, match="format 'torn' of another package cannot be imported from no_such_module:"):
        registry.lookup(table, "torn", "format")
    monkeypatch.setitem(registry.FORMATS, "torn", "no_such_module:Thing")
    assert [kind.name for kind in registry.formats()] == list(registry.FORMATS)[:-1]


@pytest.mark.parametrize("name", list(registry.FORMATS.own))
def test_a_format_is_complete_and_its_class_needs_no_torch(name: str) -> None:
    made = open_format(name)
    assert made.name == name and made.title and made.suffix.startswith(".")
    assert all(Precision.named(key).is_int8 == bits.is_int8 for key, bits in made.precisions.items())
    module = type(made).__module__
    code = f"import sys, {module}; print([name for name in sys.modules if name.split('.')[0] == 'torch'])"
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert completed.stdout.strip() == "[]"


def test_a_misleading_name_of_a_precision_or_a_hyphen_in_that_of_a_format_is_refused() -> None:
    with pytest.raises(TypeError, match="misleading"):
        type("Odd", (Format,), {"name": "odd", "precisions": {"int8": Precision(4, 8)}})
    with pytest.raises(TypeError, match="hyphen"):
        type("Odd", (Format,), {"name": "od-d", "precisions": {}})


def test_every_runtime_for_boards_is_python_3_8_and_imports_nothing_of_softedge() -> None:
    files = [path for name in registry.FORMATS.own if (path := open_format(name).board_runtime())]
    files += sorted((PACKAGE / "bench" / "board").glob("*.py"))
    assert len(files) >= 4 + 6
    for path in files:
        tree = ast.parse(path.read_text(), feature_version=(3, 8))
        names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        assert "softedge" not in {name.split(".")[0] for name in names}
        assert "itertools.pairwise" not in path.read_text()  # of Python 3.10


def test_only_the_formats_themselves_and_those_who_run_them_know_their_names() -> None:
    """A name in quotes, alone or with a precision (onnx-int8), outside comments and docstrings."""
    names = "|".join(registry.FORMATS.own)
    known = re.compile(rf"({names})(-(fp|int|w)\d\w*)?")
    found: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        place = path.relative_to(PACKAGE).as_posix()
        if re.match(rf"export/({names})/|registry\.py|configs/", place):
            continue
        texts = [t for t in _strings(path) if known.fullmatch(t)]
        if texts:
            found[place] = texts
    one_place = {
        "bench/android/device.py",
        "bench/browser/device.py",
        "bench/macos/device.py",
    }
    assert not {place: texts for place, texts in found.items() if place not in one_place}


# Behind "softedge COMMAND " in messages, and no path as the user named it: names without spaces, or quoted before.
PLAIN = {"where", "root", "format_.name", "SCHEMA", "expected"}


def test_a_path_in_a_command_of_a_message_is_quoted() -> None:
    bare = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        place = path.relative_to(PACKAGE).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            before = ""
            for part in node.values if isinstance(node, ast.JoinedStr) else ():
                value = ast.unparse(part.value) if isinstance(part, ast.FormattedValue) else ""
                follows = value and re.search(r"softedge ([a-z-]+|<>)( --data| --out)? $", before)
                if follows and not value.startswith("quoted(") and value not in PLAIN:
                    bare[place] = value
                before += part.value if isinstance(part, ast.Constant) else "<>"
    assert not bare
    folder = 'my photos/it\'s "new"'
    assert shlex.split(f"softedge review {quoted(folder)}") == ["softedge", "review", folder]
    assert quoted("runs/mine") == "runs/mine"


def _strings(path: Path) -> Iterator[str]:
    """The constants of a module that are text, docstrings left out."""
    tree = ast.parse(path.read_text())
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def test_a_device_that_nobody_registered_is_one_line() -> None:
    with pytest.raises(UserError, match="unknown device 'abacus'"):
        open_device("abacus")
