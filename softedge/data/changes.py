"""What became of the images since a run was made on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from softedge.data.inventory import Inventory
from softedge.errors import UserError, quoted
from softedge.files import expanded
from softedge.run import read_json

_SHOWN = 3


@dataclass(frozen=True)
class Changes:
    """Names of images.  new: not among those that the run knows.  gone: no longer there.  changed: with other content,
    label or class names.  left_out: still there, and no part of the data any more, as those marked wrong in labels.csv.
    """

    new: tuple[str, ...]
    gone: tuple[str, ...]
    changed: tuple[str, ...]
    left_out: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.new or self.of_before)

    @property
    def of_before(self) -> tuple[str, ...]:
        """Those among the images that the run knows."""
        return (*self.gone, *self.left_out, *self.changed)

    def __str__(self) -> str:
        """ "3 new, 1 gone (cat/7.jpg)"."""
        parts = [f"{len(self.new)} new"] if self.new else []
        for what, names in (("gone", self.gone), ("left out now", self.left_out), ("changed", self.changed)):
            if names:
                more = ", ..." if len(names) > _SHOWN else ""
                parts.append(f"{len(names)} {what} ({', '.join(names[:_SHOWN])}{more})")
        return ", ".join(parts)


def since(index: Path, inventory: Inventory, hashes: Mapping[str, Sequence[str]]) -> Changes:
    """Compare a run's data/index.json with what is found now."""
    try:
        before = read_json(index)
        items = {row["name"]: (row["sha256"], row["label"]) for row in before["items"]}
        bad = {row["name"] for row in before["bad"]}
        classes = dict(enumerate(before["classes"]))
    except (UserError, KeyError, TypeError) as error:
        what = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        raise UserError(
            f"{index} is damaged ({what}); bring it back, or make it again: softedge pretrain --out "
            f"{quoted(index.parent.parent)} --force"
        ) from error
    new, changed, seen = [], [], set()
    for split, images in inventory.splits.items():
        for name, label, digest in zip(images.names, images.labels.tolist(), hashes[split]):
            seen.add(name)
            known = items.get(name)
            if known is None:
                new += [name] if name not in bad else []
                continue
            label_now = inventory.classes[label] if label >= 0 else None
            if known[0] != digest or classes.get(known[1]) != label_now:
                changed.append(name)
    absent = [name for name in items if name not in seen]
    there = [(expanded(inventory.source) / name).is_file() for name in absent]
    gone, left_out = (
        tuple(name for name, is_there in zip(absent, there) if is_there == kept) for kept in (False, True)
    )
    return Changes(tuple(new), gone, tuple(changed), left_out)
