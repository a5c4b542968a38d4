"""Smaller copies of large photos, for sets whose decoded images do not fit into memory.

Most of the time that goes into a photo of a telephone is decoding pixels that no crop shows: training at 224 pixels
cannot tell 4000 x 3000 pixels from 771 x 578. Sets that do fit are decoded once and need no copies.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from softedge.config import Recipe
from softedge.data.decoding import BadImage, decode
from softedge.data.folders import scan
from softedge.data.loading import pixels_needed
from softedge.errors import UserError
from softedge.progress import track
from softedge.run import atomic_path
from softedge.threads import cores

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

    def text(self) -> str:
        """For a terminal."""
        lines = [
            f"{self.smaller} images made smaller (shorter side {self.side} pixels), {self.copied} copied as they are: "
            f"{self.bytes_before / 1e6:.1f} MB -> {self.bytes_after / 1e6:.1f} MB in {self.out}"
        ]
        lines += [f"left out: {name}: {reason}" for name, reason in self.bad]
        return "\n".join([*lines, f"train on them: softedge deploy --data {self.out}"])


def shrink(source: str, out: Path, recipe: Recipe) -> Shrunk:
    """Copy the folder ``source`` to ``out`` with its names, JPEG and PNG files no larger than the recipe needs.

    The shorter side becomes what the smallest crop at ``data.size`` needs not to be enlarged, or the size of the
    evaluation's resize where that is more. What is there already is left: an interrupted copy goes on.
    """
    root = Path(source).expanduser().resolve()
    if not root.is_dir():
        raise UserError(f"--shrink copies a folder of images; '{source}' is none")
    out = out.expanduser().resolve()
    if out == root or root in out.parents or out in root.parents:
        raise UserError(f"--shrink {out} and {root} lie within each other; name a folder of its own")
    size = recipe.data.size
    side = max(pixels_needed(size, recipe.augment.min_area), recipe.data.resize or round(size / 0.875))
    names = scan(root).names
    if not names:
        raise UserError(f"no images in {root}; give a folder of images")

    def copies() -> Iterator[tuple[str, str]]:
        with ThreadPoolExecutor(cores()) as pool:
            yield from pool.map(lambda name: _copy(root / name, out / name, side), names)

    done = list(track(zip(names, copies()), "shrinking", total=len(names)))
    kinds = [kind for _, (kind, _) in done]
    kept = [name for name, (kind, _) in done if kind != "bad"]
    return Shrunk(
        out,
        side,
        kinds.count("smaller"),
        kinds.count("copied"),
        sum((root / name).stat().st_size for name in kept),
        sum((out / name).stat().st_size for name in kept),
        tuple((name, reason) for name, (kind, reason) in done if kind == "bad"),
    )


def _copy(source: Path, target: Path, side: int) -> tuple[str, str]:
    """("smaller" or "copied", "") or ("bad", reason)."""
    try:
        image = decode(source)
    except BadImage as error:
        return "bad", str(error)
    height, width = image.shape[:2]
    shrinks = min(height, width) > side and source.suffix.lower() in _SAVED
    if not target.exists():
        with atomic_path(target) as temporary:
            if shrinks:
                factor = side / min(height, width)
                smaller = Image.fromarray(image).resize(
                    (round(width * factor), round(height * factor)), Image.Resampling.LANCZOS
                )
                smaller.save(temporary, **_SAVED[source.suffix.lower()])  # type: ignore[arg-type]
            else:
                shutil.copyfile(source, temporary)
    return ("smaller" if shrinks else "copied"), ""
