"""One tiny run, and every command of softedge on it: what they print is kept in ``golden/``.

``play`` writes the images and performs the commands of ``SCRIPT`` in order, in this process.
"""

from __future__ import annotations

import contextlib
import io
import json
import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from masking import masked
from pictures import stripes
from voc_squares import squares

RECIPE = """\
# A network and trainings of a second, on 58 images of stripes.
base = "light-moco"

[data]
size = 32
workers = 0

[backbone]
name = "mobilenetv3_small_050"

[ssl]
epochs = 2
batch = 16
queue = 32
neighbors = 4
projector = [32, 16]
knn_every = 1

[optim]
lr = 0.03
warmup_epochs = 0

[probe]
few_labels = 3

[finetune]
epochs = 1
min_steps = 4
batch = 16

[distill]
epochs = 1
min_steps = 4
batch = 16

[labels]
fractions = [1.0]
seeds = 2
int8 = ""

[linear]
epochs = 1
batch = 16

[export]
targets = ["onnx"]
precisions = ["fp32", "int8"]
calibration_images = 24

[quantize]
search = false

[check]
max_drop = 1.0
min_agreement = 0.0

[transfer]
head = "ssdlite"
iterations = 4
batch = 2
short_sides = [64]
workers = 0
"""

# A file a command: its first start, a second one where that is told as "done before", and a refusal.
SCRIPT: dict[str, tuple[str, ...]] = {
    "softedge": ("--version", "deploi", "deploy --datta photos"),
    "recipes": (
        "recipes list",
        "recipes show tiny.toml --set ssl.epochs=7",
        "recipes show ligth-moco",
        "recipes suggest --data photos --minutes 5",
        "recipes suggest --data nowhere",
    ),
    "doctor": ("doctor",),
    "data": (
        "data photos",
        "data photos --pairs pairs.csv",
        "data photos --shrink small",
        "data photos --pairs pairs.csv --shrink small",
        "data nowhere",
    ),
    "plan": ("plan --data photos --minutes 5", "plan --data photos --minutes 0.01", "plan --data digits"),
    "pretrain": (
        "pretrain --data photos --recipe tiny.toml --out runs/mine",
        "pretrain --data photos --recipe tiny.toml --out runs/mine",
        "pretrain --data photos --recipe tiny.toml --out runs/mine --set ssl.epochs=5",
    ),
    "knn": ("knn runs/mine", "knn runs/mine", "knn runs/mine --preset nonsense"),
    "probe": ("probe runs/mine", "probe runs/mine", "probe runs/mine --labels 0"),
    "map": ("map runs/mine", "map runs/mine", "map nowhere"),
    "linear": ("linear runs/mine", "linear runs/mine", "linear runs/mine --protocol nonsense"),
    "finetune": ("finetune runs/mine", "finetune runs/mine", "finetune runs/mine --init nonsense"),
    "distill": ("distill runs/mine", "distill runs/mine", "distill runs/mine --teacher nonsense"),
    "scratch": ("scratch runs/mine", "scratch runs/mine", "scratch photos"),
    "baselines": ("baselines runs/mine", "baselines runs/mine", "baselines photos"),
    "labels": ("labels runs/mine", "labels runs/mine", "labels runs/mine --set labels.seeds=1"),
    "backbone": ("backbone runs/mine", "backbone runs/mine --for torchvision", "backbone runs/mine --for nonsense"),
    "export": ("export runs/mine", "export runs/mine", "export runs/mine --targets onyx"),
    "quantize": (
        "quantize runs/mine",
        "quantize runs/mine",
        "quantize runs/mine/export/onnx-fp32/model.onnx --images photos --out runs/quantized --min-agreement 0",
        "quantize nowhere.onnx",
    ),
    "check": (
        "check runs/mine",
        "check runs/mine",
        "check runs/mine --max-size 1000 --force",
        "check runs/mine --min-agreement 2",
    ),
    "verify": ("verify runs/mine/export/onnx-fp32", "verify nowhere"),
    "bench": ("bench runs/mine", "bench runs/mine", "bench runs/mine --devices lokal"),
    "import": (
        "import runs/mine measured.json --artifact onnx-fp32 --device 'A board'",
        "import runs/mine measured.json --artifact onnx-fp32 --device 'A board'",
        "import runs/mine measured.json --artifact onnx-fp64 --device 'A board'",
        "import runs/mine tiny.toml --artifact onnx-fp32 --device 'A board'",
    ),
    "export-file": (
        "export-file runs/mine/finetune/classifier.safetensors --images photos --out runs/given --targets onnx "
        "--precisions fp32",
        "export-file runs/mine/finetune/classifier.safetensors --images photos --out runs/given --targets onnx "
        "--precisions fp32",
        "export-file runs/mine/finetune/classifier.safetensors --images nowhere --out runs/given",
        "export-file runs/mine/finetune/classifier.safetensors --images runs/mine --out runs/given",
    ),
    "label-issues": ("label-issues runs/mine", "label-issues runs/mine", "label-issues nowhere"),
    "label-next": ("label-next runs/mine --number 3", "label-next runs/mine --number 3", "label-next nowhere"),
    "transfer": (
        "transfer runs/mine --task voc --data boxes",
        "transfer runs/mine --task voc --data boxes",
        "transfer runs/mine --task vok --data boxes",
        "transfer runs/mine --task voc --data runs/mine",
        "export runs/mine/transfer/voc --targets onnx --precisions fp32",
        "check runs/mine/transfer/voc",
        "bench runs/mine/transfer/voc",
        "verify runs/mine/transfer/voc/export/onnx-fp32",
        "try runs/mine/transfer/voc",
    ),
    "deploy": (
        "deploy --data photos --recipe tiny.toml --out runs/whole --precisions fp32",
        "deploy --data photos --recipe tiny.toml --out runs/whole --precisions fp32",
        "deploy --data photos --recipe tiny.toml --out runs/whole --precisions fp32 --min-accuracy 1",
        "deploy --data photos --targets onyx",
    ),
    "report": (
        "report runs/mine",
        "report runs/mine runs/whole",
        "report --compare runs/mine runs/whole",
        "report --compare runs/mine",
        "report nowhere",
    ),
    "review": ("review photos", "review nowhere", "review runs/mine"),
    "try": ("try runs/mine", "try runs/mine --app web", "try runs/mine --file onnx-fp64", "try nowhere"),
    "setup": ("setup", "setup litert", "setup onnx", "setup litter"),
}


def prepare(folder: Path) -> None:
    """Photos in three classes and some without, one of them cut short; boxes; a recipe; another tool's numbers."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(("horizontal", "vertical", "diagonal", "unlabeled")):
        (folder / "photos" / name).mkdir(parents=True)
        for index in range(16 if label < 3 else 9):
            stripes(rng, label if label < 3 else index % 3).save(folder / "photos" / name / f"{index:02d}.png")
    whole = (folder / "photos/vertical/00.png").read_bytes()
    (folder / "photos/vertical/broken.png").write_bytes(whole[:60])
    squares(folder / "boxes", {"train": 6, "val": 3})
    (folder / "tiny.toml").write_text(RECIPE)
    times = {"latency (ms)": "0.18", "avg latency": "0.73", "min latency": "0.16", "total number of iterations": "3862"}
    (folder / "measured.json").write_text(json.dumps({"execution_results": times}))


@dataclass(frozen=True)
class Spoken:
    """A command line, and what it printed."""

    line: str
    code: int
    out: str
    err: str

    def text(self, folder: Path) -> str:
        """As ``golden/`` keeps it."""
        parts = [f"$ softedge {self.line}\n"]
        for title, words in (("stdout", self.out), ("stderr", self.err)):
            if kept := masked(words, folder):
                parts.append(f"--- {title}\n{kept}")
        return "".join([*parts, f"--- exit {self.code}\n"])


def play(folder: Path) -> dict[str, list[Spoken]]:
    """What every command prints; ``folder`` is the working directory."""
    prepare(folder)
    return {name: [_performed(line) for line in lines] for name, lines in SCRIPT.items()}


def _performed(line: str) -> Spoken:
    from softedge.cli import main

    out, err, code = io.StringIO(), io.StringIO(), None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(shlex.split(line))
        except SystemExit as left:
            code = left.code
    assert code is None or isinstance(code, int)
    return Spoken(line, code or 0, out.getvalue(), err.getvalue())
