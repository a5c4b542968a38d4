"""What other ways to a classifier reach on the photos of a run, from the same split and the same processor minutes.

    python benchmarks/peers.py RUN --peers timm timm-scratch --minutes 16
    pip install ultralytics && python benchmarks/peers.py RUN --peers ultralytics --minutes 16

RUN: of ``softedge deploy``; its training and test photos are used as they are on disk.  --minutes: of processor time,
for the training alone, on one thread.  A peer that is not installed is named and left out.

timm: a plain fine-tuning script, EfficientNet-Lite0 from the same ImageNet weights at 224 pixels, AdamW, cosine, random
resized crops of at least 0.08 of the area and mirroring, batch 32, label smoothing 0.1, no averaging.
timm-scratch: the same from random weights.  ultralytics: YOLO11n-cls from its .yaml file (its weights are a download),
its defaults, 224 pixels.  Neither chooses on the test photos; both are asked once, at the end.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

from softedge import backbones, config
from softedge import data as data_module
from softedge import memory as own_memory
from softedge.data.images import Data
from softedge.stages.opening import reopen
from softedge.weights import starting

SIZE = 224
BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--minutes", type=float, default=16.0)
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
        torch.manual_seed(given.seed)
        start = time.process_time()
        top1, epochs = PEERS[name](data, given)
        row = {"peer": name, "top1": round(top1, 4), "n_test": len(data.test), "epochs": round(epochs, 1)}
        print(json.dumps(row | {"minutes": round((time.process_time() - start) / 60, 1)}), flush=True)


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
        for part, images in (("train", data.train), ("val", data.test)):
            for row, label in enumerate(images.labels):
                file = images.file(row).resolve()  # type: ignore[attr-defined]
                place = root / "photos" / part / data.classes[label]
                place.mkdir(parents=True, exist_ok=True)
                (place / f"{row}{file.suffix}").symlink_to(file)
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


PEERS: dict[str, Callable[[Data, argparse.Namespace], tuple[float, float]]] = {
    "timm": lambda data, given: plain(data, given, "package"),
    "timm-scratch": lambda data, given: plain(data, given, "random"),
    "ultralytics": ultralytics,
}


if __name__ == "__main__":
    main()
