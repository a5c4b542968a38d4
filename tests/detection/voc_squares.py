"""A generated VOC folder, and the settings of a detector that is trained on it for a moment."""

from __future__ import annotations

import numpy as np
from PIL import Image


def squares(root, counts: dict[str, int], side: int = 96):
    """A VOC folder: red and blue squares on grey noise."""
    rng = np.random.default_rng(0)
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for split, count in counts.items():
        names = [f"{split}{i}" for i in range(count)]
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names))
        for name in names:
            image = rng.integers(90, 130, (side, side, 3), dtype=np.uint8)
            objects = ""
            for kind, x in (("red", 4), ("blue", side // 2)):
                w, y = int(rng.integers(28, 40)), int(rng.integers(4, side - 44))
                image[y : y + w, x : x + w] = (230, 20, 20) if kind == "red" else (20, 20, 230)
                box = f"<xmin>{x + 1}</xmin><ymin>{y + 1}</ymin><xmax>{x + w}</xmax><ymax>{y + w}</ymax>"
                objects += f"<object><name>{kind}</name><bndbox>{box}</bndbox></object>"
            Image.fromarray(image).save(root / "JPEGImages" / f"{name}.png")
            (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{objects}</annotation>")
    return root


def transfer_recipe(recipe, **changes):
    settings = {"head": "ssdlite", "iterations": 60, "batch": 4, "short_sides": (96,), "lr": 0.03, "workers": 0}
    settings |= {"warmup": 10, "clip_norm": 5.0, **changes}
    backbone = recipe.backbone.model_copy(update={"stem_stride": 2})
    return recipe.model_copy(update={"transfer": recipe.transfer.model_copy(update=settings), "backbone": backbone})
