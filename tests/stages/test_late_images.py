"""A run whose pictures are damaged between its stages."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pictures import class_folders, stripes
from PIL import Image

from softedge import cli
from softedge.data import load
from softedge.export import calibration
from softedge.files import read_arrays
from softedge.report import gather
from softedge.run import Run
from softedge.stages import scratch
from softedge.stages.opening import reopen

SMALL = ["--set", "data.size=32", "--set", "ssl.epochs=0", "--set", "backbone.name=mobilenetv3_small_050"]
FEW = ["--set", "backbone.stem_stride=1", "--set", "export.calibration_images=10", "--set", "check.optional=['int8']"]


def command(*words: object) -> int:
    return cli.main([str(word) for word in words])


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 3])


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `images` and a `run` of them that has a backbone and no copies."""
    folder = tmp_path_factory.mktemp("late")
    rng = np.random.default_rng(0)
    for label in range(3):
        for number in range(40):
            path = folder / "images" / str(label) / f"{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            stripes(rng, label).save(path)
    assert command("pretrain", "--data", folder / "images", "--out", folder / "run", *SMALL, *FEW) == 0
    for copy in (folder / "run/data/images").iterdir():
        copy.unlink()
    return folder
