"""The whole training step, from files to the update: softedge's MoCo-v2 against lightly's MoCo example.

    python benchmarks/train_step.py FOLDER --size 32       small images (the loop of both over files, one process each)
    python benchmarks/train_step.py FOLDER --size 224      photos

Same images, timm backbone, batch, queue, projector and one-sided loss; one process and one thread each, no loader
processes, taking turns step by step; what is counted is processor time per image, the speed is the median of the turns'
ratios. lightly's side follows its examples/pytorch/moco.py. Keeping decoded photos in memory is switched off, since
that would not work for a data set of ImageNet's size; small images live in memory, as they do in any softedge run.
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

WIDTHS = (1024, 128)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def files(folder: Path, count: int) -> list[Path]:
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))[:count]
    return found if len(found) >= count else (found * (count // len(found) + 1))[:count]


def ours(paths: list[Path], asked: argparse.Namespace, plain: bool = False) -> Callable[[], None]:
    """softedge's loop; plain: its method without channels_last memory."""
    import numpy as np
    import torch

    from softedge import config
    from softedge.data import views
    from softedge.data.images import Data, FileImages
    from softedge.records import InputSpec
    from softedge.run import Run
    from softedge.ssl.train import Training

    views.CACHE_BYTES = 0
    recipe = config.build(
        {
            "data": {"size": asked.size, "workers": 0},
            "backbone": {"name": asked.backbone},
            "augment": {"blur": 0.0 if asked.size <= 64 else 0.5},
            "ssl": {
                "method": "moco-v2",
                "batch": asked.batch,
                "queue": asked.queue,
                "projector": list(WIDTHS),
                "key_norm": "batch",
                "epochs": 1000,
                "knn_every": 0,
            },
            "optim": {"lr": 0.06, "weight_decay": 1e-4},
        }
    )
    images = FileImages(Path("/"), [str(p.resolve()).lstrip("/") for p in paths], np.full(len(paths), -1))
    spec = InputSpec(asked.size, asked.size, MEAN, STD)
    training = Training(Run(asked.scratch), recipe, Data("files", (), spec, images, images, images), asked.scratch)
    if plain:
        training.method.to(memory_format=torch.contiguous_format)

    def batches() -> Iterator:
        for epoch in range(10**6):
            yield from training.views.epoch(epoch)

    stream = batches()

    def step() -> None:
        training.update(*next(stream))

    return step


def lightlys(paths: list[Path], asked: argparse.Namespace) -> Callable[[], None]:
    """lightly's examples/pytorch/moco.py with a timm backbone."""
    import timm
    import torch
    from lightly.loss import NTXentLoss
    from lightly.models.modules import MoCoProjectionHead
    from lightly.models.utils import deactivate_requires_grad, update_momentum
    from lightly.transforms.moco_transform import MoCoV2Transform
    from PIL import Image
    from torch import nn

    class Files(torch.utils.data.Dataset):
        def __init__(self, transform: nn.Module):
            self.transform = transform

        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, index: int) -> list:
            return self.transform(Image.open(paths[index]).convert("RGB"))

    class MoCo(nn.Module):
        def __init__(self, backbone: nn.Module, features: int):
            super().__init__()
            self.backbone = backbone
            self.projection_head = MoCoProjectionHead(features, *WIDTHS)
            self.backbone_momentum = copy.deepcopy(self.backbone)
            self.projection_head_momentum = copy.deepcopy(self.projection_head)
            deactivate_requires_grad(self.backbone_momentum)
            deactivate_requires_grad(self.projection_head_momentum)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.projection_head(self.backbone(x).flatten(start_dim=1))

        def forward_momentum(self, x: torch.Tensor) -> torch.Tensor:
            return self.projection_head_momentum(self.backbone_momentum(x).flatten(start_dim=1)).detach()

    backbone = timm.create_model(asked.backbone, num_classes=0)
    features = backbone.eval()(torch.zeros(1, 3, 64, 64)).shape[1]
    model = MoCo(backbone, features).train()
    transform = MoCoV2Transform(input_size=asked.size, gaussian_blur=0.0 if asked.size <= 64 else 0.5)
    loader = torch.utils.data.DataLoader(Files(transform), batch_size=asked.batch, shuffle=True, drop_last=True)
    criterion = NTXentLoss(memory_bank_size=(asked.queue, WIDTHS[-1]))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.06)

    def batches() -> Iterator:
        while True:
            yield from loader

    stream = batches()

    def step() -> None:
        x_query, x_key = next(stream)
        update_momentum(model.backbone, model.backbone_momentum, m=0.996)
        update_momentum(model.projection_head, model.projection_head_momentum, m=0.996)
        query = model(x_query)
        key = model.forward_momentum(x_key)
        loss = criterion(query, key)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


CONTENDERS: dict[str, Callable[[list[Path], argparse.Namespace], Callable[[], None]]] = {
    "lightly": lightlys,
    "softedge": ours,
}


def contend(name: str, paths: list[Path], asked: argparse.Namespace, pipe: Connection) -> None:
    """Child process: "ready" or why not, then processor seconds per image for each "go"."""
    import torch

    torch.set_num_threads(1)
    try:
        step = CONTENDERS[name](paths, asked)
    except ImportError as error:
        pipe.send(f"{error}")
        return
    for _ in range(2):
        step()
    pipe.send("ready")
    while pipe.recv() == "go":
        began = time.process_time()
        step()
        pipe.send((time.process_time() - began) / asked.batch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--backbone", default="mobilenetv3_small_100")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--queue", type=int, default=4096)
    parser.add_argument("--count", type=int, default=1024, help="images")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()) / "softedge-train-step")
    asked = parser.parse_args()
    paths = files(asked.folder, asked.count)
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    for name in CONTENDERS:
        here, there = context.Pipe()
        context.Process(target=contend, args=(name, paths, asked, there), daemon=True).start()
        answer = here.recv()
        if answer == "ready":
            pipes[name] = here
        else:
            print(f"{name} is left out: {answer}")
    seconds: dict[str, list[float]] = {name: [] for name in pipes}
    for _ in range(asked.turns):
        for name, pipe in pipes.items():
            pipe.send("go")
            seconds[name].append(pipe.recv())
    for pipe in pipes.values():
        pipe.send("stop")
    print(
        f"{asked.backbone}, {asked.size} pixels, batch {asked.batch}, queue {asked.queue}, {asked.turns} turns; ",
        end="",
    )
    print(
        ", ".join(f"{p} {_version(p)}" for p in ("torch", "timm", "lightly", "pillow", "opencv-python-headless")), "\n"
    )
    print("| loop | ms per image and core | images/s and core | speed |\n|---|---|---|---|")
    first = next(iter(seconds))
    for name, values in seconds.items():
        middle = statistics.median(values)
        ratio = statistics.median(a / b for a, b in zip(seconds[first], values))
        spread = f"{min(values) * 1e3:.2f}-{max(values) * 1e3:.2f}"
        print(f"| {name} | {middle * 1e3:.2f} ({spread}) | {1 / middle:.0f} | {ratio:.2f}× |")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    main()
