"""``softedge map``: the images of a run laid out by their features, for the report."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np

from softedge import backbones
from softedge.config import Recipe
from softedge.data.decoding import BadImage
from softedge.data.images import Data, EncodedImages, Images, Uint8
from softedge.errors import UserError
from softedge.eval.features import extract
from softedge.eval.layout import FEWEST, lay_out, sheet, thumbnail, walk
from softedge.progress import plural, say
from softedge.records import Outcome, Result
from softedge.run import Run, write_bytes, write_json
from softedge.stages.base import BACKBONE, INDEX, Stage, on_run

AT_MOST = 2000  # images: what a page shows and a person looks through
SIDE = 48  # pixels of a thumbnail
SHEET_BYTES = 1_200_000
FILE, SHEET = "map.json", "thumbnails.jpg"


def map(run: str | PathLike[str], set: Sequence[str] = (), force: bool = False) -> Result:
    """Lay out the images of a run by its pretrained features (PCA, t-SNE); ``softedge report`` shows it."""
    return on_run(_stage, run, set, force)


def _work(run: Run, recipe: Recipe, data: Data, folder: Path) -> Outcome:
    total = len(data.pretrain) + len(data.test)
    if total < FEWEST:
        return Outcome(
            {"n": 0, "n_images": total}, skipped={"map": f"{plural(total, 'image is', 'images are')} too few"}
        )
    chosen = np.sort(np.random.default_rng(recipe.seed).permutation(total)[:AT_MOST])
    before = len(data.pretrain)
    parts = [(data.pretrain, chosen[chosen < before]), (data.test, chosen[chosen >= before] - before)]
    backbone = backbones.load(run.root / BACKBONE)
    features = np.concatenate([extract(backbone, i.subset(rows), data.spec) for i, rows in parts if len(rows)])
    positions = lay_out(features, recipe.seed)
    names = [str(images.names[row]) for images, rows in parts for row in rows]
    labels = np.concatenate([images.labels[rows] for images, rows in parts]).tolist()
    tested = [images is data.test for images, rows in parts for _ in rows]
    small = [_thumbnail(images, int(row)) for images, rows in parts for row in rows]
    order = walk(positions)
    picture, columns = sheet([small[i] for i in order], SHEET_BYTES)
    write_bytes(folder / SHEET, picture)
    values = {
        "classes": list(data.classes),
        "side": SIDE,
        "columns": columns,
        "of": total,
        "names": [names[i] for i in order],
        "labels": [labels[i] for i in order],
        "tested": [tested[i] for i in order],
        "x": [round(float(positions[i, 0]), 4) for i in order],
        "y": [round(float(positions[i, 1]), 4) for i in order],
    }
    write_json(folder / FILE, values)
    return Outcome({"n": len(order), "n_images": total})


def _thumbnail(images: Images, row: int) -> Uint8:
    try:
        whole = images.decode_smaller(row, SIDE) if isinstance(images, EncodedImages) else images.decode(row)
        return thumbnail(whole, SIDE)
    except BadImage:  # gone since its features were computed
        return np.zeros((SIDE, SIDE, 3), np.uint8)


_stage = Stage(
    "map",
    settings=lambda recipe: recipe.section("seed"),
    reads=lambda run, recipe: (INDEX, BACKBONE),
    after=("pretrain",),
    work=_work,
    renew=True,
    needs=("pretrain", "test"),
)


def stage(run: Run, recipe: Recipe, data: Data, force: bool = False) -> Result | None:
    """As ``deploy`` calls it: images that are gone cost the map, and not the report."""
    try:
        return _stage(run, recipe, data, force)
    except UserError as error:
        say(f"map: left out: {error}")
        return None
