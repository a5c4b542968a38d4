"""Published data sets by name: scikit-learn's digits, CIFAR-10/100, STL-10 and ImageNet through torchvision."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from softedge.data import folders
from softedge.data.images import UNLABELLED, ArrayImages, Images, Uint8
from softedge.data.inventory import Inventory, local_root
from softedge.errors import UserError, first_line


def digits() -> Inventory:
    """1,797 real 8 x 8 scans of handwritten digits that come with scikit-learn (test part of UCI's optical digits)."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    array = np.repeat(grey[..., None], 3, axis=3)
    names = [f"digits/{i:04d}" for i in range(len(array))]
    return Inventory("digits", tuple("0123456789"), {"train": ArrayImages(array, bunch.target, names)})


def enlarge(images: Images, side: int) -> Images:
    """Square arrays of fewer than ``side`` pixels, enlarged once (Pillow, bilinear): crops then have whole pixels."""
    if not isinstance(images, ArrayImages) or images.array.shape[1] >= side:
        return images
    larger = np.stack(
        [np.asarray(Image.fromarray(a).resize((side, side), Image.Resampling.BILINEAR)) for a in images.array]
    )
    return ArrayImages(larger, images.labels, images.names)


def cifar10() -> Inventory:
    return _cifar("cifar10", "CIFAR10", "cifar-10-python.tar.gz")


def cifar100() -> Inventory:
    return _cifar("cifar100", "CIFAR100", "cifar-100-python.tar.gz")


def _cifar(name: str, torchvision_name: str, archive: str) -> Inventory:
    with _fetching(name, archive) as (datasets, root):
        train, test = (getattr(datasets, torchvision_name)(root, train=part, download=True) for part in (True, False))
    splits = {
        split: _in_memory(name, split, data.data, np.asarray(data.targets))
        for split, data in (("train", train), ("test", test))
    }
    return Inventory(name, tuple(train.classes), splits)


def stl10() -> Inventory:
    """5,000 + 8,000 labelled 96 x 96 images and 100,000 unlabelled ones (2.8 GB in memory)."""
    with _fetching("stl10", "stl10_binary.tar.gz") as (datasets, root):
        parts = {s: datasets.STL10(root, split=s, download=True) for s in ("train", "test", "unlabeled")}
    splits: dict[str, Images] = {}
    for split, part in parts.items():
        labels = np.full(len(part.data), UNLABELLED) if split == "unlabeled" else np.asarray(part.labels)
        ours = "unlabelled" if split == "unlabeled" else split
        splits[ours] = _in_memory("stl10", ours, np.ascontiguousarray(part.data.transpose(0, 2, 3, 1)), labels)
    return Inventory("stl10", tuple(parts["train"].classes), splits)


def imagenet() -> Inventory:
    """ImageNet-1k from its archives, unpacked on first use; it cannot be downloaded without an account."""
    archives = "ILSVRC2012_devkit_t12.tar.gz, ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar"
    with _fetching("imagenet", archives) as (datasets, root):
        for split in ("train", "val"):
            datasets.ImageNet(root, split=split)
    return folders.find(root, "imagenet", readable_classes(root))


def readable_classes(root: Path) -> dict[str, str]:
    """ImageNet's folder code (n01440764) -> first name ("tench"), where torchvision left its table; else empty."""
    if not (root / "meta.bin").is_file():
        return {}
    from torchvision.datasets.imagenet import load_meta_file

    names: dict[str, tuple[str, ...]] = load_meta_file(str(root))[0]
    readable: dict[str, str] = {}
    for code, synonyms in sorted(names.items()):  # two classes are called "crane", two "maillot"
        readable[code] = synonyms[0] if synonyms[0] not in readable.values() else f"{synonyms[0]} ({code})"
    return readable


LOADERS: dict[str, Callable[[], Inventory]] = {
    "digits": digits,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "stl10": stl10,
    "imagenet": imagenet,
}


def _in_memory(source: str, split: str, array: Uint8, labels: NDArray[Any]) -> ArrayImages:
    return ArrayImages(array, labels, [f"{source}/{split}/{i:06d}" for i in range(len(array))])


@contextlib.contextmanager
def _fetching(name: str, archive: str) -> Iterator[tuple[Any, Path]]:
    """torchvision's data sets and the folder to keep them in; any failure becomes one line that says what to do."""
    root = local_root() / name
    try:
        root.mkdir(parents=True, exist_ok=True)
        from torchvision import datasets

        with contextlib.redirect_stdout(sys.stderr):  # torchvision prints; stdout is for results
            yield datasets, root
    except UserError:
        raise
    except Exception as error:  # URLError, RuntimeError for a wrong checksum, OSError for a full disk, ...
        raise UserError(
            f"{name} is not in {root} and could not be fetched ({first_line(error)}); put {archive} there, "
            "or set SOFTEDGE_DATA to the folder that holds it"
        ) from error
