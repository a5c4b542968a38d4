"""A run whose data and pretrain stages are done, for the stages that come after them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from softedge import backbones, config
from softedge.data.images import ArrayImages, Data
from softedge.records import InputSpec
from softedge.run import Run

SPEC = InputSpec(32, 32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def coloured_squares(n: int, seed: int) -> ArrayImages:
    """Three classes: a bright square in the red, green or blue channel, on noise."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 120, (n, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(n) % 3
    for image, label in zip(images, labels):
        y, x = rng.integers(4, 16, 2)
        image[y : y + 12, x : x + 12, label] = 255
    return ArrayImages(images, labels, [f"{i}" for i in range(n)])


@pytest.fixture
def toy(tmp_path):
    """toy(name) -> (run, recipe, data): random weights stand for the pretrained ones."""

    def make(name: str) -> tuple[Run, config.Recipe, Data]:
        recipe = config.build(
            {
                "backbone": {"name": "mobilenetv3_small_050", "stem_stride": 1},
                "augment": {"flip": 0.0},
                "finetune": {"epochs": 1, "min_steps": 60, "batch": 16, "lr": 2e-3},
                "labels": {"fractions": [0.1, 1.0], "seeds": 2, "int8": ""},
            }
        )
        run = Run(tmp_path / name)
        for stage in ("data", "pretrain"):
            run.folder(stage).mkdir(parents=True)
            result = {"stage": stage, "name": name, "started": "", "seconds": 0}
            result |= {key: {} for key in ("metrics", "recipe", "inputs", "environment")}
            (run.folder(stage) / "result.json").write_text(json.dumps(result))
        (run.folder("data") / "index.json").write_text("{}")
        backbone = backbones.build(recipe.backbone, seed=3)
        backbones.save(run.folder("pretrain") / "backbone.safetensors", backbone, SPEC)
        train, test = coloured_squares(48, 0), coloured_squares(60, 1)
        return run, recipe, Data("toy", ("red", "green", "blue"), SPEC, train, train, test)

    return make
