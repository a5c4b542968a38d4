"""CIFAR-10 in memory for the benchmarks, and how its features are measured: k-NN and Ang's linear protocol."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from softedge import backbones
from softedge.config import Augment
from softedge.data import decoding
from softedge.data.draws import View
from softedge.data.images import ArrayImages, Data, EncodedImages, Images
from softedge.data.views import ViewLoader
from softedge.eval.features import extract
from softedge.eval.knn import PRESETS, knn_predict, top1
from softedge.eval.protocols import PROTOCOLS, evaluate, fit
from softedge.records import InputSpec
from softedge.ssl import cpu_layers

PLACE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def read(source: str) -> Data:
    """CIFAR-10 in memory: class folders, a name, or a file that ``pack`` wrote."""
    if source.endswith(".npz"):
        packed = np.load(source)
        ends = np.cumsum(packed["sizes"])
        array = np.stack([decoding.decode(packed["bytes"][a - n : a].tobytes()) for a, n in zip(ends, packed["sizes"])])
        labels, tested, classes = packed["labels"], packed["tested"], tuple(packed["classes"].tolist())
        names = [f"{index:06d}" for index in range(len(array))]
        everything = ArrayImages(array, labels, names)
        return in_memory(
            source, classes, everything.subset(np.flatnonzero(~tested)), everything.subset(tested.nonzero()[0])
        )
    from softedge.data import sources

    inventory = sources.find(source)
    train, test = (_decoded(inventory.splits[split]) for split in ("train", "test"))
    return in_memory(source, inventory.classes, train, test)


def pack(source: str, path: Path) -> None:
    """Write the JPEGs of both splits as one file."""
    from softedge.data import sources

    inventory = sources.find(source)
    splits = [inventory.splits[split] for split in ("train", "test")]
    if not all(isinstance(images, EncodedImages) for images in splits):
        raise SystemExit(f"{source} is not in image files: nothing to pack")
    files = [images.read(i) for images in splits if isinstance(images, EncodedImages) for i in range(len(images))]
    np.savez(
        path,
        bytes=np.frombuffer(b"".join(files), np.uint8),
        sizes=np.array([len(file) for file in files]),
        labels=np.concatenate([images.labels for images in splits]),
        tested=np.repeat([False, True], [len(images) for images in splits]),
        classes=np.array(inventory.classes),
    )
    print(f"{len(files)} files, {path.stat().st_size / 2**20:.0f} MiB in {path}")


def generated(count: int = 128, side: int = 32, classes: int = 4) -> Data:
    """A stand-in: noise with a tint for each class."""
    rng, labels = np.random.default_rng(0), np.arange(count) % classes
    tint = rng.integers(0, 120, (classes, 3))
    array = (rng.integers(0, 120, (count, side, side, 3)) + tint[labels][:, None, None]).astype(np.uint8)
    images = ArrayImages(array, labels, [str(i) for i in range(count)])
    return in_memory("generated", tuple("abcd"), images, images.subset(np.arange(count // 4)))


def _decoded(images: Images) -> ArrayImages:
    array = np.stack([images.decode(index) for index in range(len(images))])
    return ArrayImages(array, images.labels, images.names)


def in_memory(source: str, classes: tuple[str, ...], train: ArrayImages, test: ArrayImages) -> Data:
    side = train.array.shape[1]
    sample = train.array / 255
    spec = InputSpec(side, side, tuple(sample.mean((0, 1, 2)).tolist()), tuple(sample.std((0, 1, 2)).tolist()))
    return Data(source, classes, spec, train, train, test)


def knn(backbone: backbones.Backbone, data: Data) -> float:
    """Top-1 of weighted k-NN, k = 200, on the test images of ``data``."""
    train, test = (extract(backbone, images, data.spec) for images in (data.train, data.test))
    votes = knn_predict(train, data.train.labels, test, len(data.classes), **PRESETS["ang-2022"])
    return round(top1(votes, data.test.labels), 4)


def probed(backbone: backbones.Backbone, data: Data, epochs: int = 100, views: int = 20) -> dict[str, float]:
    """k-NN, and Ang's linear protocol over ``views`` augmented passes in turn, whose features are computed once."""
    backbone.eval()
    if PLACE.type == "cpu":
        cpu_layers.put_on(backbone, torch.float32)
    protocol = PROTOCOLS["ang-2022"]
    batch = min(protocol.batch, len(data.train))
    kept = list(_augmented(backbone, data, protocol.min_area, views))

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        features, labels = kept[epoch % views]
        order = torch.from_numpy(np.random.default_rng([0, epoch]).permutation(len(labels))).to(PLACE)
        for chosen in order.split(batch)[: len(labels) // batch]:
            yield features[chosen], labels[chosen]

    head, _ = fit(protocol, batches, (backbone.num_features, len(data.classes)), epochs, batch, 0)
    linear = top1(evaluate(protocol, backbone, head, data.test, data.spec), data.test.labels)
    return {"linear_top1": round(linear, 4), "knn_top1": knn(backbone, data)}


@torch.no_grad()
def _augmented(
    backbone: backbones.Backbone, data: Data, min_area: float, passes: int
) -> Iterator[tuple[Tensor, Tensor]]:
    crops = View(data.spec.size, Augment(min_area=min_area, jitter=0.0, grey=0.0, blur=0.0))
    batch = min(500, len(data.train))
    loader = ViewLoader(data.train, (crops,), batch, 0, 0, drop_last=False, device=PLACE)
    labels = torch.from_numpy(data.train.labels)
    for epoch in range(passes):
        found = [(backbone(backbones.normalise(views[0], data.spec)), index) for views, index in loader.epoch(epoch)]
        yield torch.cat([part for part, _ in found]), torch.cat([labels[index.cpu()] for _, index in found]).to(PLACE)
