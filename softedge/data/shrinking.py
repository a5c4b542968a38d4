"""Smaller copies of large photos, for sets whose decoded images do not fit into memory.

Most of the time spent on a phone's photo is decoding pixels that no crop shows: training at 224 pixels
cannot distinguish 4000 x 3000 pixels from 771 x 578. Sets that do fit are decoded once and need no copies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from softedge.config import Recipe
from softedge.data import label_table, origins
from softedge.data.decoding import BadImage, decode, read
from softedge.data.folders import scan
from softedge.data.images import FileImages
from softedge.data.inventory import printable
from softedge.data.loading import pixels_needed
from softedge.data.origins import Origin
from softedge.errors import UserError, quoted
from softedge.files import expanded, make_folder
from softedge.machine.threads import cores
from softedge.progress import plural, track
from softedge.run import atomic_path, write_bytes, write_text

_SAVED = {".jpg": {"quality": 95}, ".jpeg": {"quality": 95}, ".png": {}}  # suffix -> how Pillow writes it


@dataclass(frozen=True)
class Shrunk:
    """What was done.  bad: names of files that cannot be read and are left out, with the reason."""

    out: Path
    side: int
    smaller: int
    copied: int
    bytes_before: int
    bytes_after: int
    bad: tuple[tuple[str, str], ...]
    removed: int = 0  # copies of files that are not in the folder any more

    def text(self) -> str:
        """For a terminal."""
        lines = [
            f"{plural(self.smaller, 'image')} made smaller (shorter side {self.side} pixels), {self.copied} copied as "
            f"they are: {self.bytes_before / 1e6:.1f} MB -> {self.bytes_after / 1e6:.1f} MB in {self.out}"
        ]
        if self.removed:
            gone = plural(self.removed, "copy of an original that is gone", "copies of originals that are gone")
            lines.append(f"{gone} removed")
        lines += [f"left out: {name}: {reason}" for name, reason in self.bad]
        return "\n".join([*lines, f"train on them: softedge deploy --data {quoted(self.out)}"])


def shrink(source: str, out: Path, recipe: Recipe) -> Shrunk:
    """Copy the folder ``source`` to ``out`` with its names, JPEG and PNG files no larger than the recipe needs.

    The shorter side becomes what the smallest crop at ``data.size`` needs not to be enlarged, or the size of the
    evaluation's resize where that is more. A copy that was made from the same file is left: an interrupted run resumes.
    Copies of files that are gone or have changed go or are made again. Copies are split as their originals are.
    """
    root = expanded(source).resolve()
    if not root.is_dir():
        raise UserError(f"--shrink copies a folder of images; '{source}' is not one")
    out = expanded(out).resolve()
    if out == root or root in out.parents or out in root.parents:
        raise UserError(f"--shrink {out} and {root} overlap; choose a separate folder")
    size = recipe.data.size
    side = max(pixels_needed(size, recipe.augment.min_area), recipe.data.resize or round(size / 0.875))
    paths = {printable(name): name for name in scan(root).names}  # as they are shown, and as they are on the disk
    names = list(paths)
    if not names:
        raise UserError(f"no images in {root}; give a folder of images")

    before, earlier = origins.read(out), origins.read(root)
    gone = sorted(before.keys() - set(names))
    for name in gone:
        FileImages(out, [name], np.zeros(1, np.int64)).path(0).unlink(missing_ok=True)

    def one(name: str) -> _Copy:
        return _copy(root / paths[name], out / paths[name], name, side, before.get(name), earlier.get(name))

    def copies() -> Iterator[_Copy]:
        with ThreadPoolExecutor(cores()) as pool:
            yield from pool.map(one, names)

    done = []
    make_folder(out)
    with open(out / origins.FILE, "a") as manifest:
        for copy in track(copies(), "shrinking", total=len(names)):
            done.append(copy)
            if copy.origin is not None and copy.origin != before.get(copy.origin.name):
                manifest.write(origins.line(copy.origin))
                manifest.flush()  # a copy without its line is made again
    kept = {copy.origin.name: copy.origin for copy in done if copy.origin is not None}
    write_text(out / origins.FILE, "".join(origins.line(origin) for origin in kept.values()))
    if (root / label_table.FILE).is_file():  # the copies have the names of their originals
        write_bytes(out / label_table.FILE, (root / label_table.FILE).read_bytes())
    kinds = [copy.kind for copy in done]
    return Shrunk(
        out,
        side,
        kinds.count("smaller"),
        kinds.count("copied"),
        sum(copy.bytes_before for copy in done),
        sum(copy.bytes_after for copy in done),
        tuple((name, copy.reason) for name, copy in zip(names, done) if copy.kind == "bad"),
        len(gone),
    )


@dataclass(frozen=True)
class _Copy:
    """kind: "smaller", "copied" or "bad"."""

    kind: str
    reason: str = ""
    origin: Origin | None = None
    bytes_before: int = 0
    bytes_after: int = 0


def _copy(
    source: Path, target: Path, name: str, side: int, before: Origin | None, earlier: Origin | None = None
) -> _Copy:
    """Make a copy, unless the one that is there was made from the same bytes for the same side.

    earlier: what the source itself is a copy of; the split is that of the first original.
    """
    try:
        data = read(source)
        image = decode(data)
    except BadImage as error:
        if before is not None:
            target.unlink(missing_ok=True)
        return _Copy("bad", str(error))
    origin = Origin(name, earlier.sha256 if earlier else hashlib.sha256(data).hexdigest(), side)
    height, width = image.shape[:2]
    shrinks = min(height, width) > side and source.suffix.lower() in _SAVED
    if before != origin or not target.exists():
        with atomic_path(target) as temporary:
            if shrinks:
                factor = side / min(height, width)
                smaller = Image.fromarray(image).resize(
                    (round(width * factor), round(height * factor)), Image.Resampling.LANCZOS
                )
                smaller.save(temporary, **_SAVED[source.suffix.lower()])  # type: ignore[arg-type]
            else:
                temporary.write_bytes(data)
    return _Copy("smaller" if shrinks else "copied", "", origin, len(data), target.stat().st_size)
