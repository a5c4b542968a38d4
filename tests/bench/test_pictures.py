from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from softedge.bench.board import pictures
from softedge.data.decoding import prepare
from softedge.records import InputSpec


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape", [(40, 60), (61, 40), (36, 36), (33, 97), (200, 301)])
def test_a_photo_becomes_the_very_pixels_that_training_saw(shape: tuple[int, int], interpolation: str) -> None:
    spec = InputSpec(32, 36, (0.5,) * 3, (0.5,) * 3, interpolation)  # type: ignore[arg-type]
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    decode, resize, with_what = pictures.preparation(spec.to_dict())
    np.testing.assert_array_equal(resize(decode(file.getvalue()))[0], prepare(image, spec))
    assert with_what.startswith("Pillow")


def test_without_pillow_opencv_gives_nearly_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = InputSpec(32, 36, (0.5,) * 3, (0.5,) * 3)
    y, x = np.mgrid[:200, :300]
    image = np.stack([y % 256, x % 256, (x + y) % 200], axis=-1).astype(np.uint8)
    image = np.asarray(Image.fromarray(image).resize((150, 100)).resize((300, 200)))  # smooth, as photos are
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    monkeypatch.setitem(sys.modules, "PIL", None)
    decode, resize, with_what = pictures.preparation(spec.to_dict())
    assert with_what.startswith("OpenCV")
    found = resize(decode(file.getvalue()))[0].astype(int)
    monkeypatch.undo()
    assert np.abs(found - prepare(image, spec)).mean() < 4


def test_images_are_read_row_by_row(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", array)
    images = pictures.RowReader(str(tmp_path / "images.npy"))
    assert len(images) == 5
    for index in range(5):
        np.testing.assert_array_equal(images[index][0], array[index])
        assert images[index].flags.writeable  # OpenVINO shares the memory
