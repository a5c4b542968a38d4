"""Whatever a file holds, a reader answers with pixels or with its one kind of error."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures import class_folders, photo
from PIL import Image

from softedge import config
from softedge.data import load, origins, shards
from softedge.data.decoding import BadImage, decode, wide_pixels
from softedge.data.sources import find
from softedge.data.stamps import content_hashes
from softedge.errors import UserError
from softedge.run import Run
from softedge.stages.data import prepare

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "TGA")


def encoded(image_format: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(photo(3, 24, 20)).save(buffer, image_format)
    return buffer.getvalue()


def deep_tiff() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(480, dtype=np.uint16).reshape(24, 20)).save(buffer, "TIFF")
    return buffer.getvalue()


SEEDS = [*(encoded(image_format) for image_format in FORMATS), deep_tiff()]


@st.composite
def damaged(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A good file with bytes exchanged, cut off or repeated."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 8))):
        at = draw(st.integers(0, len(data) - 1))
        data[at] = draw(st.integers(0, 255))
    start, stop = sorted((draw(st.integers(0, len(data))), draw(st.integers(0, len(data)))))
    kind = draw(st.sampled_from(["whole", "cut", "hole", "twice"]))
    if kind == "cut":
        return bytes(data[:stop])
    if kind == "hole":
        return bytes(data[:start] + data[stop:])
    return bytes(data[:stop] + data[start:]) if kind == "twice" else bytes(data)


def read_picture(data: bytes) -> None:
    for reader in (decode, wide_pixels):
        try:
            result = reader(data)
        except BadImage as error:
            assert str(error) and "\n" not in str(error)
        else:
            assert reader is wide_pixels or (result.ndim == 3 and result.shape[2] == 3 and result.dtype == np.uint8)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(damaged(SEEDS))
def test_a_damaged_picture_is_pixels_or_a_bad_image(data: bytes) -> None:
    read_picture(data)


@pytest.mark.slow
@settings(max_examples=20_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(damaged(SEEDS))
def test_many_damaged_pictures_are_pixels_or_bad_images(data: bytes) -> None:
    read_picture(data)


def small_tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in (("a.png", SEEDS[1]), ("a.cls", b"cat"), ("ü" * 60 + ".png", SEEDS[1]), ("b.cls", b"dog")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def read_shard(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    try:
        inventory = shards.find({"train": [path]}, "source")
    except UserError as error:
        assert "\n" not in str(error)
        return
    for images in inventory.splits.values():
        for index in range(len(images)):
            try:
                images.decode(index)
            except BadImage:
                continue


@settings(
    max_examples=100, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=damaged([small_tar()]))
def test_a_damaged_shard_is_images_or_one_line(tmp_path: Path, data: bytes) -> None:
    read_shard(tmp_path / "a.tar", data)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=damaged([small_tar()]))
def test_many_damaged_shards_are_images_or_one_line(tmp_path: Path, data: bytes) -> None:
    read_shard(tmp_path / "a.tar", data)


@pytest.mark.parametrize("text", ["{}", "[]", "null", '{"items": 3}', '{"items": [{}], "bad": []}', ""])
def test_a_damaged_index_is_one_line(tmp_path: Path, text: str) -> None:
    run, recipe = Run(tmp_path / "run"), config.build({"data": {"size": 32}})
    source = str(class_folders(tmp_path / "set", {"a": 2, "b": 2}))
    prepare(run, recipe, source)
    (run.folder("data") / "index.json").write_text(text)
    for use in (lambda: load(run), lambda: prepare(run, recipe, source)):
        with pytest.raises(UserError, match=r"index\.json.*(damaged|cannot be read)"):
            use()


@pytest.mark.parametrize("text", ["{}", "[]", "null", '{"a/0.jpg": 3}', '{"a/0.jpg": [[1], 2]}', "\x00", "[" * 100_000])
def test_damaged_stamps_and_lists_of_copies_cost_only_time(tmp_path: Path, text: str) -> None:
    inventory = find(str(class_folders(tmp_path / "set", {"a": 2, "b": 2})))
    expected = content_hashes(inventory.splits)
    (tmp_path / "stamps").write_text(text)
    assert content_hashes(inventory.splits, tmp_path / "stamps") == expected
    (tmp_path / "set" / origins.FILE).write_text(text)
    assert origins.read(tmp_path / "set") == {}
