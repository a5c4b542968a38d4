"""More than 8 bits: one range for the data set, whatever a single picture holds."""

from __future__ import annotations

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from softedge import config
from softedge.data import describe, load
from softedge.data.decoding import BadImage, decode
from softedge.data.ranges import white_of
from softedge.run import Run
from softedge.stages.data import prepare


def values(seed: int, highest: float) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, highest, (40, 40))


def saved(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def means(tmp_path: Path, folder: Path) -> dict[str, float]:
    """Name -> mean grey level, as the network gets it."""
    recipe = config.build({"data": {"size": 40}})
    prepare(Run(tmp_path / "run"), recipe, str(folder))
    images = load(Run(tmp_path / "run")).pretrain
    return {name: float(images.decode(i).mean()) for i, name in enumerate(images.names)}


def test_floats_from_0_to_1_keep_their_brightness_when_one_pixel_exceeds_1(tmp_path: Path) -> None:
    for number in range(4):
        pixels = values(number, 1.0).astype(np.float32)
        pixels[0, 0] = 1.02 if number == 2 else 0.5
        saved(tmp_path / "set" / f"{number}.tiff", pixels)
    assert all(120 < mean < 135 for mean in means(tmp_path, tmp_path / "set").values())


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_bits_that_are_not_used_are_told_and_do_not_darken(tmp_path: Path, bits: int) -> None:
    for number in range(3):
        pixels = values(number, 2**bits - 1).astype(np.uint16)
        pixels[0, 0] = 2**bits - 1
        saved(tmp_path / "set" / f"{number}.png", pixels)
    saved(tmp_path / "set" / "dark.png", values(9, 2**bits / 8).astype(np.uint16))
    seen = means(tmp_path, tmp_path / "set")
    assert all(120 < seen[f"{number}.png"] < 135 for number in range(3))
    assert seen["dark.png"] == pytest.approx(127.5 / 8, abs=2)  # not brightened on its own
    (notice,) = describe(str(tmp_path / "set"), config.build({"data": {"size": 40}}))["notices"]
    assert "4 pictures have more than 8 bits" in notice and ("not used" in notice) == (bits < 16)


def test_a_16_bit_tiff_whose_zero_is_white_is_no_negative() -> None:
    pixels = np.linspace(0, 65535, 1600).reshape(40, 40).astype(np.uint16)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[262] = 0
    files = {}
    for name, info in (("black is zero", None), ("white is zero", tags)):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "TIFF", **({"tiffinfo": info} if info else {}))
        files[name] = buffer.getvalue()
    with Image.open(io.BytesIO(files["white is zero"])) as image:
        assert image.tag_v2[262] == 0
    assert np.array_equal(decode(files["white is zero"]), 255 - decode(files["black is zero"]))


def test_the_range_covers_the_highest_value_of_all() -> None:
    assert white_of([("I", 900), ("I", 4000), ("F", 0.2)]) == {"I": 4095, "F": 1}
    assert white_of([("F", 200.0)]) == {"F": 255} and white_of([("I", 100_000)]) == {"I": 100_000}
    assert white_of([]) == {}


@pytest.mark.parametrize(("bits", "ending"), [(12, "png"), (12, "tiff"), (16, "png"), (16, "tiff")])
def test_colour_of_16_bits_whose_upper_bits_are_empty_is_told(tmp_path: Path, bits: int, ending: str) -> None:
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 2**bits, (40, 40, 3), dtype=np.uint16)
        pixels[0, 0] = 2**bits - 1
        (tmp_path / "set").mkdir(exist_ok=True)
        assert cv2.imwrite(str(tmp_path / "set" / f"{number}.{ending}"), pixels)
    notices = describe(str(tmp_path / "set"), config.build({"data": {"size": 40}}))["notices"]
    matching = [line for line in notices if "3 pictures in colour have 16 bits a channel, of which they use 12" in line]
    assert bool(matching) == (bits == 12)


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_values_below_0_are_set_aside_with_their_range(kind: type, tmp_path: Path) -> None:
    pixels = np.linspace(-1000, 1550, 1600).reshape(40, 40).astype(kind)
    with pytest.raises(BadImage, match="values from -1000 to 1550; shift them so that black is 0"):
        decode(saved(tmp_path / "ct.tiff", pixels))
    ringing = np.linspace(-0.02, 1.0, 1600).reshape(40, 40).astype(np.float32)
    assert decode(saved(tmp_path / "resampled.tiff", ringing)).max() == 255


def test_a_16_bit_picture_is_one_picture_whatever_its_format(tmp_path: Path) -> None:
    for number in range(16):
        saved(tmp_path / "set" / "ab"[number % 2] / f"{number}.png", values(number, 4095).astype(np.uint16))
    with Image.open(tmp_path / "set" / "a" / "0.png") as image:
        image.save(tmp_path / "set" / "b" / "same.tif")
    prepare(Run(tmp_path / "run"), config.build({"data": {"size": 40}}), str(tmp_path / "set"))
    rows = json.loads((tmp_path / "run" / "data" / "index.json").read_text())["items"]
    assert {r["name"] for r in rows if r["split"] == "contradiction"} == {"a/0.png", "b/same.tif"}


def test_a_tiff_of_signed_bytes_is_set_aside_and_not_read_as_unsigned(tmp_path: Path) -> None:
    path = tmp_path / "signed.tif"
    Image.new("L", (40, 40), 200).save(path, tiffinfo={339: 2})
    with pytest.raises(BadImage, match="has signed 8-bit values"):
        decode(path)
    Image.new("L", (40, 40), 200).save(path)
    assert (decode(path) == 200).all()
