"""From what a source holds to what a run works on: screened, split, measured. Writes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from softedge.config import IMAGENET_MEAN, IMAGENET_STD, Recipe
from softedge.data import published, sources
from softedge.data.images import UNLABELLED, ArrayImages, FileImages, Images
from softedge.data.inventory import Inventory
from softedge.data.screening import DECODE_AT_MOST, Look, screen
from softedge.data.shards import TarImages
from softedge.data.splitting import hold_out, leaks
from softedge.errors import UserError
from softedge.records import InputSpec

_MEASURED_IMAGES = 2000  # images that mean and standard deviation are measured on
_CROP = 0.875  # side of the centre crop / shorter side where the weights do not say: the ImageNet habit
_SMALL = 1.15  # images up to this times the input size are taken whole, without the centre crop's margin


@dataclass(frozen=True)
class Item:
    """One image of the index. split: "train", "test", "unlabelled", or "duplicate" of a test image, set aside."""

    name: str
    sha256: str
    split: str
    label: int


@dataclass(frozen=True)
class Examined:
    """A source after screening and splitting, before anything is written."""

    found: Inventory
    items: list[Item]
    bad: list[dict[str, str]]  # name, reason
    longer_side: int  # of the largest image, pixels
    verified: bool  # every file was decoded; else only headers were checked

    def counts(self) -> dict[str, int]:
        split = Counter(item.split for item in self.items)
        return {
            "n_pretrain": split["train"] + split["unlabelled"],
            "n_train": split["train"],
            "n_test": split["test"],
            "n_classes": len(self.found.classes),
            "n_bad": len(self.bad),
            "n_duplicates": split["duplicate"],
        }

    def per_class(self) -> dict[str, dict[str, int]]:
        """split -> class name -> images."""
        table: dict[str, dict[str, int]] = {}
        for split in ("train", "test"):
            count = Counter(item.label for item in self.items if item.split == split)
            if count:
                table[split] = {name: count[number] for number, name in enumerate(self.found.classes)}
        return table


def examine(source: str, recipe: Recipe) -> Examined:
    """Find, screen and split; writes nothing. UserError when there is nothing to work on."""
    found = sources.find(source)
    thorough = len(found) <= DECODE_AT_MOST
    bad: list[dict[str, str]] = []
    good: dict[str, list[tuple[str, int, Look]]] = {}
    for split, images in found.splits.items():
        looks = screen(images, f"looking at the {split} images", thorough)
        good[split] = []
        for name, label, look in zip(images.names, images.labels.tolist(), looks):
            if look.bad:
                bad.append({"name": name, "reason": look.bad})
            else:
                good[split].append((name, label, look))
    if not any(good.values()):
        first = f"; the first is {bad[0]['name']}: {bad[0]['reason']}" if bad else ""
        raise UserError(f"none of the {len(found)} images in {source} can be read{first}")
    items = _split(found, good, recipe)
    longer_side = max(look.longer_side for rows in good.values() for _, _, look in rows)
    return Examined(found, items, bad, longer_side, thorough or not found.in_files)


def _split(found: Inventory, good: Mapping[str, list[tuple[str, int, Look]]], recipe: Recipe) -> list[Item]:
    """Give every readable image its split; nothing with the bytes of a test image stays in training."""
    rows = {split: [Item(name, look.sha256, split, label) for name, label, look in good[split]] for split in good}
    train = rows.get("train", [])
    if train and "test" not in rows:
        labels = [item.label for item in train]
        held = hold_out([item.sha256 for item in train], labels, found.classes, recipe.data.test_fraction, recipe.seed)
        rows["test"] = [_moved(item, "test") for item, out in zip(train, held) if out]
        rows["train"] = [item for item, out in zip(train, held) if not out]
    elif found.classes:
        trained = {item.label for item in train}
        for number, name in enumerate(found.classes):
            if number not in trained:
                raise UserError(
                    f"class '{name}' of {found.source} has no readable training image; add some or remove it"
                )
        if not rows["test"]:
            raise UserError(f"no image in the test split of {found.source} can be read; add some or remove the split")
    tested = {item.sha256 for item in rows.get("test", [])}
    for split in ("train", "unlabelled"):
        if split in rows:
            same = leaks([item.sha256 for item in rows[split]], tested)
            rows[split] = [_moved(item, "duplicate") if out else item for item, out in zip(rows[split], same)]
    return [item for split in ("train", "unlabelled", "test") for item in rows.get(split, [])]


def _moved(item: Item, split: str) -> Item:
    return Item(item.name, item.sha256, split, item.label)


def input_spec(examined: Examined, recipe: Recipe) -> InputSpec:
    """The preprocessing of this run: what the recipe says, else that of the weights that training starts from."""
    from softedge.weights import starting

    settings, given = recipe.data, starting.preprocessing_of(recipe.backbone)
    resize = settings.resize
    if resize == 0:
        whole = examined.longer_side <= _SMALL * settings.size
        resize = settings.size if whole else round(settings.size / (given.crop if given else _CROP))
    if resize < settings.size:
        raise UserError(
            f"data.resize = {resize} is smaller than data.size = {settings.size}; use 0, or {settings.size} and more"
        )
    interpolation = settings.interpolation
    if interpolation == "weights":
        interpolation = given.interpolation if given else "bilinear"
    mean, std = settings.mean, settings.std
    if given is not None:
        mean, std = (given.mean if isinstance(mean, str) else mean), (given.std if isinstance(std, str) else std)
    if mean == "auto" or std == "auto":
        fixed = InputSpec(settings.size, resize, (0.0,) * 3, (1.0,) * 3, interpolation)  # type: ignore[arg-type]
        measured = measure(examined, fixed)
        mean, std = (measured[0] if mean == "auto" else mean), (measured[1] if std == "auto" else std)
    mean, std = (IMAGENET_MEAN if mean == "weights" else mean), (IMAGENET_STD if std == "weights" else std)
    return InputSpec(settings.size, resize, mean, std, interpolation)


def preprocessing_origin(recipe: Recipe) -> str:
    """Where mean, std and interpolation come from, in one line."""
    from softedge.weights import starting

    given, settings = starting.preprocessing_of(recipe.backbone), recipe.data
    if given is not None and all(isinstance(v, str) for v in (settings.mean, settings.std)):
        return str(given)
    if not isinstance(settings.mean, str) or not isinstance(settings.std, str):
        return "normalisation from the recipe"
    if "auto" in (settings.mean, settings.std):
        return "normalisation measured on the training images"
    return "ImageNet's normalisation, before random weights"


def measure(examined: Examined, spec: InputSpec) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation per channel of x / 255 over (at most 2,000 of) the prepared pretraining images."""
    chosen = sorted((i for i in examined.items if i.split in ("train", "unlabelled")), key=lambda item: item.sha256)
    names = [item.name for item in chosen[:_MEASURED_IMAGES]]
    first = next(iter(examined.found.splits.values()))
    images: Images
    if isinstance(first, FileImages):
        images = FileImages(first.root, names, np.full(len(names), UNLABELLED))
    else:
        images = named(examined.found, names, spec)
    total, squares, pixels = np.zeros(3), np.zeros(3), 0
    for start in range(0, len(images), 64):
        batch = images.subset(range(start, min(start + 64, len(images)))).prepared(spec).reshape(-1, 3) / 255.0
        total, squares, pixels = total + batch.sum(0), squares + (batch**2).sum(0), pixels + len(batch)
    mean = total / pixels
    std = np.sqrt(np.maximum(squares / pixels - mean**2, (1 / 255) ** 2))
    return tuple(round(float(m), 4) for m in mean), tuple(round(float(s), 4) for s in std)  # type: ignore[return-value]


def named(found: Inventory, names: list[str], spec: InputSpec) -> Images:
    """The images of these names, in this order, of tar shards or of a data set that lives in memory (as one array)."""
    if tars := [images for images in found.splits.values() if isinstance(images, TarImages)]:
        shards = TarImages.joined(tars)
        position = {name: i for i, name in enumerate(shards.names)}
        return shards.subset([position[name] for name in names])
    parts = [images for images in found.splits.values() if isinstance(images, ArrayImages)]
    whole = ArrayImages(
        np.concatenate([part.array for part in parts]) if len(parts) > 1 else parts[0].array,
        np.concatenate([part.labels for part in parts]),
        [name for part in parts for name in part.names],
    )
    position = {name: i for i, name in enumerate(whole.names)}
    chosen = whole.subset([position[name] for name in names])
    return published.enlarge(chosen, spec.resize) if found.source == "digits" else chosen
