"""From what a source holds to what a run works on: screened, split, measured. Writes nothing."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from softedge.config import IMAGENET_MEAN, IMAGENET_STD, Recipe
from softedge.data import decisions, label_table, near_copies, published, sources
from softedge.data.images import UNLABELLED, ArrayImages, EncodedImages, FileImages, Images
from softedge.data.inventory import Inventory, with_classes
from softedge.data.label_table import FILE
from softedge.data.near_pairs import NearPair, described
from softedge.data.origins import origins_of
from softedge.data.ranges import colour_notice, notice, white_of
from softedge.data.screening import Look, screen
from softedge.data.shards import TarImages
from softedge.data.splitting import Item, TooFew, contradictions, grouped, split
from softedge.errors import UserError, quoted
from softedge.progress import plural
from softedge.records import InputSpec

_MEASURED_IMAGES = 2000  # images that mean and standard deviation are measured on
_GONE = (0, 0, 0)  # of an image that is not in the shards any more: an empty file
_GREY = 0.99  # of the images, from which a set is one without colour: a scan or two may have a tint
_CROP = 0.875  # side of the centre crop / shorter side where the weights do not say: the ImageNet habit
_SMALL = 1.15  # images up to this times the input size are taken whole, without the centre crop's margin


@dataclass(frozen=True)
class Examined:
    """A source after screening and splitting, before anything is written."""

    inventory: Inventory
    items: list[Item]
    bad: list[dict[str, str]]  # name, reason
    longer_side: int  # of the largest image, pixels
    white: dict[str, float]  # the range of pixels with more than 8 bits
    contradictions: list[list[str]]  # names of files that are one picture with two labels
    near: list[NearPair] = field(default_factory=list)  # near-duplicates
    grey: bool = False  # nearly all images are
    untrainable: str = ""  # why no classifier can be trained yet, where that was tolerated

    def counts(self) -> dict[str, int]:
        number = Counter(item.split for item in self.items)
        return {
            "n_pretrain": number["train"] + number["unlabelled"],
            "n_train": number["train"],
            "n_test": number["test"],
            "n_classes": len(self.inventory.classes),
            "n_bad": len(self.bad),
            "n_duplicates": number["duplicate"],
            "n_contradictions": number["contradiction"],
            "n_near": len(self.near),
        }

    def per_class(self) -> dict[str, dict[str, int]]:
        """split -> class name -> images."""
        table: dict[str, dict[str, int]] = {}
        for place in ("train", "test"):
            count = Counter(item.label for item in self.items if item.split == place)
            if count:
                table[place] = {name: count[number] for number, name in enumerate(self.inventory.classes)}
        return table


def examine(source: str, recipe: Recipe, tolerant: bool = False) -> Examined:
    """Find, screen and split; writes nothing. UserError when there is nothing to work on.

    tolerant: of labels that are too few to train and test with; what is looked at or labelled next needs no more.
    """
    inventory = with_classes(sources.find(source), recipe.data.classes)
    bad: list[dict[str, str]] = []
    items: list[Item] = []
    looks: list[Look] = []
    origins = origins_of(inventory)
    for place, images in inventory.splits.items():
        screened = screen(images, f"looking at the {place} images")
        for name, label, look in zip(images.names, images.labels.tolist(), screened):
            if look.bad:
                bad.append({"name": name, "reason": look.bad})
                continue
            looks.append(look)
            where = "unlabelled" if place == "train" and label < 0 else place
            items.append(Item(name, look.sha256, where, label, look.content, origins.get(name, "")))
    if not items:
        first = f"; the first is {bad[0]['name']}: {bad[0]['reason']}" if bad else ""
        raise UserError(f"none of the {len(inventory)} images in {source} can be read{first}")
    given = bool(recipe.data.classes)  # the classes of a network, not all of which need to be in the images
    untrainable: list[str] = []
    if not given:
        _check_readable(inventory, items)
        untrainable = _only_one_class(inventory)
    by_stem = isinstance(next(iter(inventory.splits.values())), FileImages)
    groups = grouped(items, by_stem)
    contrary = [_with_labels_apart([items[i] for i in group]) for group in contradictions(items, groups)]
    if not given:
        _check_contradictions(inventory, items, contrary)
    pairs = near_copies.pairs_among([look.thumbnail for look in looks])
    near = [pair for pair in pairs if groups[pair.first] != groups[pair.second]]
    tied = [(pair.first, pair.second) for pair in near]
    held_out = recipe.data.hold_out
    few: tuple[int, ...] = ()
    try:
        splits = functools.partial(
            split, items, inventory.classes, recipe.data.test_fraction, recipe.seed, by_stem, held_out, tied
        )
        items = splits()
    except TooFew as error:
        untrainable.append(f"{error}; {_more_images(inventory, items, bad)}")
        items, few = splits(tolerant=True), error.classes
    if untrainable and not tolerant:
        raise UserError(untrainable[0])
    if untrainable:
        inventory = replace(inventory, notices=(*inventory.notices, f"not ready for training: {untrainable[0]}"))
    near_pairs = described(near, items, inventory.classes)
    if not any(item.split in ("train", "unlabelled") for item in items):
        raise UserError(f"every training image of {inventory.source} is a copy of a test image; add others")
    if not given:
        _check_left(inventory, items)
        if untested := _untested(inventory, items, few):
            inventory = replace(inventory, notices=(*inventory.notices, untested))
    items.sort(key=lambda item: {"unlabelled": 1, "test": 2}.get(item.split, 0))
    white = white_of(look.wide for look in looks if look.wide)
    if white:
        inventory = replace(
            inventory, notices=(*inventory.notices, notice(white, sum(look.wide is not None for look in looks)))
        )
    if line := colour_notice([look.colour for look in looks if look.colour is not None]):
        inventory = replace(inventory, notices=(*inventory.notices, line))
    longest = max(look.longer_side for look in looks)
    grey = sum(look.grey for look in looks) >= _GREY * len(looks)
    return Examined(inventory, items, bad, longest, white, contrary, near_pairs, grey, "; ".join(untrainable[:1]))


def _only_one_class(inventory: Inventory) -> list[str]:
    """Why no classifier can be trained on the labels of one class; [] where there are others, or none."""
    root = _labelled_root(inventory)
    if root is None or len(inventory.classes) != 1:
        return []
    return [
        f"with {root / FILE} there is only one class ('{inventory.classes[0]}'); label images of another one: "
        f"softedge review {quoted(root)}"
    ]


def _labelled_root(inventory: Inventory) -> Path | None:
    """The folder of the images, if a ``labels.csv`` lies in it."""
    first = next(iter(inventory.splits.values()))
    return first.root if isinstance(first, FileImages) and label_table.is_there(first.root) else None


def _more_images(inventory: Inventory, items: Sequence[Item], bad: Sequence[Mapping[str, str]]) -> str:
    """What to do about a class with too few images."""
    unlabelled = sum(item.split == "unlabelled" for item in items)
    advice = "add images, remove the class, or give a test/ folder"
    if unlabelled:
        images = plural(unlabelled, "unlabelled image")
        advice = f"label more of the {images} (softedge label-next {quoted(inventory.source)}), {advice}"
    first = f"; set aside are {len(bad)}, first {bad[0]['name']}: {bad[0]['reason']}" if bad else ""
    return f"{advice}{first}"  # perhaps the images are too few because others cannot be read


def _with_labels_apart(group: Sequence[Item]) -> list[str]:
    """The names of one picture's files, the first of each label first: no more than two may be shown."""
    first = {item.label: item for item in reversed(group)}
    return [item.name for item in sorted(group, key=lambda item: item is not first[item.label])]


def _check_readable(inventory: Inventory, items: Sequence[Item]) -> None:
    """UserError when a given test split, or the training images of a class, cannot be read at all."""
    source = inventory.source
    _require_images(
        inventory,
        items,
        lambda name: f"class '{name}' of {source} has no readable training image; add some or remove it",
        f"no image in the test split of {source} can be read; add some or remove the split",
    )


def _check_left(inventory: Inventory, items: Sequence[Item]) -> None:
    """UserError when copies and contradictory labels leave a test split, or a class to train on, without images."""
    source = inventory.source
    _require_images(
        inventory,
        items,
        lambda name: (
            f"every training image of class '{name}' of {source} is a copy of a test image, or has two labels; "
            "add others"
        ),
        f"every test image of {source} has two labels; fix the labels or remove the split",
    )


def _untested(inventory: Inventory, items: Sequence[Item], few: Sequence[int]) -> str:
    """The classes that are trained and have no test image, when others have; those that the source's own test split
    lacks were named with the source, and those with too few images (``few``) as such."""
    tested = {item.label for item in items if item.split == "test"}
    known = {item.label for item in items if item.split == "train" and item.label >= 0}
    given = inventory.splits.get("test")
    named = known - set(given.labels.tolist()) if given is not None else set()
    missing = sorted(known - tested - named - {*few}) if tested else []
    if not missing:
        return ""
    shown = ", ".join(f"'{inventory.classes[label]}'" for label in missing[:5]) + (", ..." if len(missing) > 5 else "")
    have = plural(len(missing), "class has", "classes have")
    return f"{have} no test image that can be used ({shown}): no accuracy says how good they are"


def _require_images(
    inventory: Inventory, items: Sequence[Item], untrained: Callable[[str], str], untested: str
) -> None:
    """UserError where a test split was given, and it or the training split of a class is empty.

    untrained: what to say of a class.  untested: of the split.
    """
    if "test" not in inventory.splits:
        return
    trained = {item.label for item in items if item.split == "train"}
    for number, name in enumerate(inventory.classes):
        if number not in trained:
            raise UserError(untrained(name))
    if not any(item.split == "test" for item in items):
        raise UserError(untested)


def _check_contradictions(inventory: Inventory, items: Sequence[Item], contrary: Sequence[Sequence[str]]) -> None:
    """UserError when nothing of a class is left: a folder that is a copy of another, or a link to it."""
    out = {name for names in contrary for name in names}
    for number, name in enumerate(inventory.classes):
        if out and not any(i.label == number and i.split == "train" and i.name not in out for i in items):
            first = next(names for names in contrary if any(i.name in names for i in items if i.label == number))
            root = _labelled_root(inventory)
            by_hand = root is not None and not decisions.read(root).keys().isdisjoint(first)
            advice = (
                f"correct the labels in {FILE}: softedge review {quoted(root)}"
                if by_hand
                else "remove one of the folders"
            )
            raise UserError(
                f"every picture of class '{name}' is in another class, too ({' and '.join(first[:2])}, "
                f"{len(contrary)} in all); {advice}"
            )


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
    first = next(iter(examined.inventory.splits.values()))
    images: Images
    if isinstance(first, FileImages):
        images = FileImages(first.root, names, np.full(len(names), UNLABELLED))
    else:
        images = named(examined.inventory, names, spec)
    if isinstance(images, EncodedImages):
        images.white = examined.white
    total, squares, pixels = np.zeros(3), np.zeros(3), 0
    for start in range(0, len(images), 64):
        batch = images.subset(range(start, min(start + 64, len(images)))).prepared(spec).reshape(-1, 3) / 255.0
        total, squares, pixels = total + batch.sum(0), squares + (batch**2).sum(0), pixels + len(batch)
    mean = total / pixels
    std = np.sqrt(np.maximum(squares / pixels - mean**2, (1 / 255) ** 2))
    return tuple(round(float(m), 4) for m in mean), tuple(round(float(s), 4) for s in std)  # type: ignore[return-value]


def named(inventory: Inventory, names: list[str], spec: InputSpec) -> Images:
    """The images of these names, in this order, of tar shards or of a data set that lives in memory (as one array)."""
    if tars := [images for images in inventory.splits.values() if isinstance(images, TarImages)]:
        shards = TarImages.joined(tars)
        position = {name: i for i, name in enumerate(shards.names)}
        places = [shards.places[position[name]] if name in position else _GONE for name in names]
        return TarImages(
            shards.shards, names, np.array(places, np.int64).reshape(-1, 3), np.full(len(names), UNLABELLED)
        )
    parts = [images for images in inventory.splits.values() if isinstance(images, ArrayImages)]
    whole = ArrayImages(
        np.concatenate([part.array for part in parts]) if len(parts) > 1 else parts[0].array,
        np.concatenate([part.labels for part in parts]),
        [name for part in parts for name in part.names],
    )
    position = {name: i for i, name in enumerate(whole.names)}
    chosen = whole.subset([position[name] for name in names])
    return published.enlarge(chosen, spec.resize) if inventory.source == "digits" else chosen
