"""benchmarks/gpu.py and what it trains with run where the export packages are not installed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

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
