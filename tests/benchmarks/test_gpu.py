"""benchmarks/gpu.py and what it trains with run where the export packages are not installed."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import gpu_parts
from gpu_session import Session

from softedge import config
from softedge.ssl.signals import StopRequest

ROOT = Path(__file__).parents[2]
ABSENT = (
    "openvino nncf coremltools executorch torchao onnx onnxruntime onnxscript simplejpeg segno jinja2 typer rich "
    "packaging tomli_w faster_coco_eval pycocotools efficientnet_lite_pytorch sklearn threadpoolctl"
).split()
HIDE = f"import sys\nfor name in {ABSENT}:\n    sys.modules[name] = None\n"


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own in which those packages cannot be imported."""
    return subprocess.run(
        [sys.executable, "-c", HIDE + code, *arguments], capture_output=True, text=True, check=False, cwd=ROOT
    )


def test_the_training_path_needs_no_export_package():
    done = python(
        "import importlib, softedge.registry as registry\n"
        "for entry in registry.METHODS.own.values():\n"
        "    importlib.import_module(entry.partition(':')[0])\n"
        "import softedge.ssl.train, softedge.eval.protocols, softedge.eval.knn, softedge.data.sources\n"
        "print(sorted(name for name in sys.modules if sys.modules[name] and name in sys.argv[1].split()))",
        " ".join(ABSENT),
    )
    assert done.stdout.strip() == "[]", done.stderr[-2000:]


def test_a_missing_package_is_named_in_one_line():
    done = python(
        "sys.argv[0] = 'benchmarks/gpu.py'\n"
        "sys.modules['pydantic'] = None\n"
        "import runpy; runpy.run_path('benchmarks/gpu.py', run_name='__main__')",
        "--dry-run",
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("gpu.py needs pydantic: ")


@pytest.mark.slow
def test_the_dry_run_walks_all_parts_and_a_second_one_measures_nothing_again(tmp_path):
    run = (
        "sys.argv[0] = 'benchmarks/gpu.py'\nimport runpy; runpy.run_path('benchmarks/gpu.py', run_name='__main__')",
        "--dry-run",
        "--out",
        str(tmp_path),
    )
    done = python(*run)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert not [row for row in rows if "unfinished" in row]
    parts = {row["name"].partition(":")[0] for row in rows}
    assert parts == {"environment", "checks", "cifar10", "speed", "additive"}
    again = python(*run)
    kept = [line for line in again.stdout.splitlines() if line.endswith("kept from before")]
    assert len(kept) == len(rows) - 1, again.stderr[-2000:]


def test_a_packed_data_set_holds_the_same_pixels(tmp_path):
    done = python(
        "sys.path[:0] = ['benchmarks', '.', 'tests']\n"
        "from pathlib import Path\n"
        "from pictures import save\n"
        "import cifar, numpy as np\n"
        "root = Path(sys.argv[1])\n"
        "for number, (split, name) in enumerate((s, c) for s in ('train', 'test') for c in 'abb'):\n"
        "    folder = root / 'set' / split / name\n"
        "    folder.mkdir(parents=True, exist_ok=True)\n"
        "    save(folder / f'{number}.jpg', number, height=32, width=32)\n"
        "cifar.pack(str(root / 'set'), root / 'set.npz')\n"
        "files, packed = cifar.read(str(root / 'set')), cifar.read(str(root / 'set.npz'))\n"
        "assert files.classes == packed.classes == ('a', 'b') and len(files.train) == len(files.test) == 3\n"
        "for one, other in ((files.train, packed.train), (files.test, packed.test)):\n"
        "    assert np.array_equal(one.array, other.array) and np.array_equal(one.labels, other.labels)\n"
        "print('equal')",
        str(tmp_path),
    )
    assert done.stdout.strip().endswith("equal"), done.stderr[-2000:]


def test_a_row_that_cannot_go_on_later_is_not_begun_without_its_time(tmp_path, capsys):
    session = Session(tmp_path, time.monotonic() + 50, dry=True)
    session.row("speed", "long", 100, lambda seconds: {"seen": seconds}, whole=True)
    session.row("speed", "short", 30, lambda seconds: {"seen": seconds}, whole=True)
    session.row("cifar10", "long", 100, lambda seconds: {"seen": seconds}, whole=False)  # goes on from its checkpoint
    assert set(session.known) == {"speed: short", "cifar10: long"}
    assert "speed: long: not run, the time is up" in capsys.readouterr().out


def test_a_row_that_was_cut_off_while_it_was_written_is_measured_again(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"name": "speed: a", "pace": 1}\n{"name": "speed: b", "pa')
    session = Session(tmp_path, time.monotonic() + 50, dry=True)
    session.row("speed", "b", 1, lambda seconds: {"pace": 2}, whole=True)
    again = Session(tmp_path, time.monotonic() + 50, dry=True)
    assert [again.known[name]["pace"] for name in ("speed: a", "speed: b")] == [1, 2]


def test_a_training_that_does_not_listen_yet_when_its_time_is_up_is_stopped_all_the_same():
    stop = StopRequest()
    with gpu_parts._stopped_after(0.0):
        time.sleep(1.2)  # the first signal is ignored
        with stop.listening():
            until = time.monotonic() + 10
            while not stop.asked and time.monotonic() < until:
                time.sleep(0.05)
    assert stop.asked


def test_the_pace_of_a_training_that_was_stopped_is_that_of_all_its_starts(tmp_path, monkeypatch):
    recipe = config.build(
        {
            "data": {"size": 32, "workers": 0},
            "backbone": {"name": "mobilenetv3_small_050"},
            "ssl": {"method": "simco", "batch": 32, "epochs": 6, "projector": (16, 8), "knn_every": 0},
            "optim": {"warmup_epochs": 0},
        }
    )
    training, why, _ = gpu_parts.trained(recipe, gpu_parts.generated(128), tmp_path, 60)
    assert not why
    # Nothing is left to a second start: all steps within its instant would be a pace that is far too high.
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line["seconds"] = 10.0
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    training, _, pace = gpu_parts.trained(recipe, gpu_parts.generated(128), tmp_path, 60)
    assert pace == round(training.steps * 32 / (10.0 * 6))


def test_every_row_compiles_although_a_process_compiles_few_networks():
    compiled = []

    class Network(nn.Module):
        def __init__(self, layers: int):
            super().__init__()
            self.net = nn.Sequential(*[nn.Linear(2, 2) for _ in range(layers)])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x)

    def backend(graph, _):
        compiled.append(1)
        return graph.forward

    for layers in range(1, 11):
        gpu_parts._afresh()
        network = Network(layers)
        network.compile(backend=backend)
        network(torch.zeros(1, 2))
    assert len(compiled) == 10


def test_a_machine_without_a_compiler_trains_uncompiled(monkeypatch, capsys):
    def fails(module):
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(torch, "compile", fails)
    gpu_parts._compiles.cache_clear()
    assert not gpu_parts._compiles()
    assert "Failed to find C compiler" in capsys.readouterr().out
    gpu_parts._compiles.cache_clear()
