"""A store on disk changes no view, is built once by whoever comes first, and survives whatever cuts it off."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import photo, save
from PIL import Image

from softedge.config import Augment
from softedge.data import pixel_store
from softedge.data.decoding import decode_smaller
from softedge.data.draws import box, draw, two_views
from softedge.data.images import FileImages
from softedge.data.pixel_store import PixelStore, open_store
from softedge.data.views import ViewLoader
from softedge.errors import UserError

SIDE = 48


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SOFTEDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SOFTEDGE_CACHE_GB", raising=False)
    return tmp_path / "cache"


def photos(folder: Path, count: int = 12) -> FileImages:
    """Larger and smaller than ``SIDE``, JPEG and PNG."""
    names = []
    for i in range(count):
        side = (40, 60, 100, 230)[i % 4]
        names.append(save(folder / f"{i:02d}.{'png' if i % 3 == 0 else 'jpg'}", i, height=side, width=side + 30).name)
    return hashed(FileImages(folder, names, np.arange(count)))


def hashed(images: FileImages) -> FileImages:
    images.hashes = [hashlib.sha256(images.read(i)).hexdigest() for i in range(len(images))]
    return images


def opened(images: FileImages, side: int = SIDE) -> PixelStore:
    store = open_store(images, side)
    assert store is not None
    return store


def holds(store: PixelStore, images: FileImages, side: int = SIDE) -> bool:
    """Whether every image is there with the pixels that decoding gives."""
    for i in range(len(images)):
        stored = store.get(i)
        if stored is None or not np.array_equal(stored, decode_smaller(images.read(i), side)):
            return False
    return True


def test_an_image_is_shrunk_to_the_mean_of_what_each_pixel_covers() -> None:
    image = photo(1, 96, 144)
    data = encoded_png(image)
    expected = image.reshape(48, 2, 72, 2, 3).astype(float).mean((1, 3))
    assert np.abs(decode_smaller(data, 48) - expected).max() <= 0.5
    assert np.array_equal(decode_smaller(data, 97), image)  # never enlarged


def encoded_png(image: np.ndarray) -> bytes:
    import io

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def test_images_are_decoded_once_and_then_read_from_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = photos(tmp_path / "a")
    store = opened(images)
    assert len(store) == 12 and holds(store, images)
    expected = [np.array(store.get(i)) for i in range(12)]
    monkeypatch.setattr(pixel_store, "decode_smaller", lambda *_: pytest.fail("decoded again"))
    again = pickle.loads(pickle.dumps(opened(images.subset([7, 3]))))  # another order; in another process
    assert np.array_equal(again.get(0), expected[7]) and np.array_equal(again.get(1), expected[3])
    again.get(0)[:] = 0  # torch wants writable arrays; the file does not change
    assert np.array_equal(opened(images).get(7), expected[7])


def test_only_what_is_new_or_changed_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = photos(tmp_path / "a")
    opened(images)
    save(tmp_path / "a" / "02.jpg", 77, height=90, width=70)
    save(tmp_path / "a" / "new.jpg", 78, height=90, width=70)
    images = hashed(FileImages(tmp_path / "a", [*images.names, "new.jpg"], np.arange(13)))
    seen = []
    real = pixel_store.decode_smaller
    monkeypatch.setattr(pixel_store, "_estimate", lambda *_: 1)
    monkeypatch.setattr(pixel_store, "decode_smaller", lambda *given: seen.append(1) or real(*given))
    assert holds(opened(images), images) and len(seen) == 2


@pytest.mark.parametrize("cut", ["pixels", "rows", "both", "garbage"])
def test_a_build_that_was_cut_off_is_continued(tmp_path: Path, cache: Path, cut: str) -> None:
    images = photos(tmp_path / "a")
    opened(images)
    (folder,) = (cache / "pixels").iterdir()
    pixels, rows = folder / "pixels", folder / "rows"
    if cut in ("pixels", "both"):
        os.truncate(pixels, pixels.stat().st_size // 2)
    if cut in ("rows", "both"):
        os.truncate(rows, rows.stat().st_size // 2 + 5)  # within a record
    if cut == "garbage":
        os.truncate(rows, 48 * 4)
        with open(pixels, "r+b") as file:
            file.seek(-1000, os.SEEK_END)
            file.write(b"\xff" * 5000)
    assert holds(opened(images), images)


def test_a_file_that_has_changed_since_it_was_looked_at_is_not_stored(tmp_path: Path) -> None:
    images = photos(tmp_path / "a", 4)
    save(tmp_path / "a" / "01.jpg", 50)
    store = opened(images)
    assert store.get(1) is None and store.get(0) is not None


def test_the_limit_holds_and_older_stores_make_room(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = photos(tmp_path / "a"), photos(tmp_path / "b")
    opened(first)
    size = sum(file.stat().st_size for file in (cache / "pixels").rglob("*"))
    monkeypatch.setenv("SOFTEDGE_CACHE_GB", str(size * 1.5 / 1e9))
    assert holds(opened(second), second)
    assert len(list((cache / "pixels").iterdir())) == 1  # the first one is gone
    monkeypatch.setenv("SOFTEDGE_CACHE_GB", str(size * 0.6 / 1e9))
    store = opened(first)
    assert 0 < len(store) < 12
    assert sum(file.stat().st_size for file in (cache / "pixels").rglob("*")) <= size * 0.6 + 4096
    assert "the others are decoded every epoch" in capsys.readouterr().err


def test_stores_can_be_turned_off_and_a_wrong_limit_is_one_line(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = photos(tmp_path / "a", 4)
    monkeypatch.setenv("SOFTEDGE_CACHE_GB", "0")
    assert open_store(images, SIDE) is None and not cache.exists()
    for wrong in ("many", "-1", "nan"):
        monkeypatch.setenv("SOFTEDGE_CACHE_GB", wrong)
        with pytest.raises(UserError, match=f"SOFTEDGE_CACHE_GB={wrong} is not a size"):
            open_store(images, SIDE)


def test_a_folder_that_cannot_be_written_costs_only_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SOFTEDGE_CACHE", str(tmp_path / "file"))
    assert open_store(photos(tmp_path / "a", 4), SIDE) is None
    assert "not kept on disk" in capsys.readouterr().err


def test_a_store_that_is_deleted_under_way_is_decoded_around(tmp_path: Path, cache: Path) -> None:
    images = photos(tmp_path / "a", 4)
    mapped, unmapped = opened(images), opened(images)
    assert mapped.get(0) is not None
    shutil.rmtree(cache)
    assert mapped.get(1) is not None and unmapped.get(1) is None


def test_a_store_that_nobody_used_for_long_is_deleted(tmp_path: Path, cache: Path) -> None:
    opened(photos(tmp_path / "a", 4))
    (old,) = (cache / "pixels").iterdir()
    os.utime(old / "about.json", (0, 1))
    opened(photos(tmp_path / "b", 4))
    assert not old.exists() and len(list((cache / "pixels").iterdir())) == 1


def _build(folder: Path, start: object, queue: object) -> None:
    images = hashed(FileImages(folder, sorted(p.name for p in folder.iterdir()), np.arange(12)))
    calls = []
    real = pixel_store.decode_smaller
    pixel_store.decode_smaller = lambda *given: calls.append(1) or real(*given)  # type: ignore[assignment]
    start.wait()  # type: ignore[attr-defined]
    store = opened(images)
    queue.put((len(calls), holds(store, images)))  # type: ignore[attr-defined]


def test_of_processes_that_come_together_one_decodes_and_all_read(tmp_path: Path) -> None:
    photos(tmp_path / "a")
    context = multiprocessing.get_context("fork")
    start, queue = context.Barrier(3), context.Queue()
    ranks = [context.Process(target=_build, args=(tmp_path / "a", start, queue)) for _ in range(3)]
    for rank in ranks:
        rank.start()
    answers = sorted(queue.get(timeout=60) for _ in ranks)
    for rank in ranks:
        rank.join()
    assert [right for _, right in answers] == [True] * 3
    assert [calls > 0 for calls, _ in answers] == [False, False, True]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world", [1, 2])
def test_views_are_the_same_bits_with_and_without_a_store(
    tmp_path: Path, cache: Path, workers: int, world: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("softedge.data.views.CACHE_BYTES", 0)

    def shown(gigabytes: str) -> list[torch.Tensor]:
        monkeypatch.setenv("SOFTEDGE_CACHE_GB", gigabytes)
        images = photos(tmp_path / "a")
        wanted = two_views(32, Augment())
        loaders = [ViewLoader(images, wanted, 4, 1, workers, rank, world) for rank in range(world)]
        steps = [step for each in loaders for epoch in (0, 1) for step in each.epoch(epoch)]
        return [tensor for views, index in steps for tensor in (*views, index)]

    without = shown("0")
    assert not cache.exists()
    with_store = shown("1")
    assert len(list((cache / "pixels").iterdir())) == 1
    assert len(without) == len(with_store) > 0 and all(torch.equal(a, b) for a, b in zip(without, with_store))


def test_the_smallest_crop_of_a_shrunk_photo_looks_like_that_of_the_whole_one(tmp_path: Path) -> None:
    """Against Pillow's resize of the same part of the photo at its full size."""
    from softedge.data import image_views
    from softedge.data.loading import pixels_needed

    coarse = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    large = Image.fromarray(coarse).resize((1200, 900), Image.Resampling.BICUBIC)
    size, augment = 64, Augment(min_area=0.2, flip=0.0)
    side = pixels_needed(size, augment.min_area)
    small = decode_smaller(encoded_png(np.asarray(large)), side)
    assert min(small.shape[:2]) == side < 900
    draws, _ = draw(0, 0, np.arange(20), two_views(size, augment))
    for row in range(20):
        left, top, wide, high = box(draws, row, small.shape[1], small.shape[0])
        assert min(wide, high) >= size - 1  # not enlarged, but for rounding to whole pixels
        x, y = 1200 / small.shape[1], 900 / small.shape[0]
        part = (left * x, top * y, (left + wide) * x, (top + high) * y)
        whole = np.asarray(large.resize((size, size), Image.Resampling.BILINEAR, box=part)).astype(int)
        assert np.abs(image_views.crop(small, draws, row, size) - whole).mean() < 1.5
