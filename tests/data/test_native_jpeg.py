"""The package's own JPEG decoder gives the bits of libjpeg-turbo and of torch's resize, or leaves a file to others."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from mutated_jpeg import KINDS, SIDES, check, encoded, generated, mutate, picture, pixels, without_native
from pictures import photo
from PIL import Image
from torch.nn.functional import interpolate

from softedge.config import Augment
from softedge.data import decoding, native_jpeg
from softedge.data.decoding import BadImage, decode
from softedge.data.draws import two_views
from softedge.data.images import FileImages
from softedge.data.loading import ViewMaker
from softedge.data.native_jpeg import Native


@pytest.fixture(params=["vector instructions", "plain"])
def native(request: pytest.FixtureRequest) -> Native:
    found = native_jpeg.load(plain=request.param == "plain")
    if isinstance(found, str):
        pytest.skip(f"the decoder {found}")
    return found


def by_libjpeg(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_size_has_the_bits_of_libjpeg_turbo(native: Native, kind: dict[str, object]) -> None:
    rng = np.random.default_rng(0)
    for height in SIDES:
        for width in SIDES:
            data = encoded(picture(rng, height, width), **kind)  # type: ignore[arg-type]
            image = pixels(native, data)
            if image is None:  # chroma of one or two columns is left to others
                assert width <= 4 and native.head(data) is None
            else:
                assert np.array_equal(image, by_libjpeg(data)), (height, width)


@pytest.mark.parametrize("quality", [1, 10, 50, 97, 100])
def test_every_quality_has_the_bits_of_simplejpeg(native: Native, quality: int) -> None:
    simplejpeg = pytest.importorskip("simplejpeg")
    for subsampling in ("444", "422", "420"):
        for seed in range(8):
            image = picture(np.random.default_rng(seed), 93, 141)
            data = simplejpeg.encode_jpeg(image, quality, colorsubsampling=subsampling)
            assert np.array_equal(pixels(native, data), simplejpeg.decode_jpeg(data, "RGB"))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_part_of_a_picture_is_that_part_of_the_whole(native: Native, kind: dict[str, object]) -> None:
    rng = np.random.default_rng(1)
    data = encoded(picture(rng, 70, 101), **kind)  # type: ignore[arg-type]
    whole = by_libjpeg(data)
    for _ in range(100):
        left, top = int(rng.integers(101)), int(rng.integers(70))
        width, height = int(rng.integers(1, 102 - left)), int(rng.integers(1, 71 - top))
        part = pixels(native, data, (left, top, width, height))
        assert np.array_equal(part, whole[top : top + height, left : left + width])


def test_a_part_beyond_the_picture_is_refused(native: Native) -> None:
    data = encoded(photo(0, 40, 50))
    for box in [(-1, 0, 5, 5), (0, -1, 5, 5), (46, 0, 5, 5), (0, 36, 5, 5), (0, 0, 51, 5), (0, 0, 5, 41)]:
        assert native.decode(data, box) is None
        view = np.empty((8, 8, 3), np.uint8)
        assert not native.crops(data, [box], [False], [view])


def torchs(image: np.ndarray, size: int) -> np.ndarray:
    part = torch.from_numpy(image).permute(2, 0, 1)[None].contiguous(memory_format=torch.channels_last)
    return interpolate(part, (size, size), mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("size", [1, 5, 8, 32, 97, 224])
def test_a_crop_has_the_bits_of_torchs_antialiased_resize(native: Native, size: int) -> None:
    rng = np.random.default_rng(size)
    for _ in range(12):
        height, width = (int(side) for side in rng.integers(1, 400, 2))
        data = encoded(picture(rng, height, width), quality=90, subsampling=0)
        whole = by_libjpeg(data)
        left, top = int(rng.integers(width)), int(rng.integers(height))
        box = (left, top, int(rng.integers(1, width - left + 1)), int(rng.integers(1, height - top + 1)))
        expected = torchs(np.ascontiguousarray(whole[top : top + box[3], left : left + box[2]]), size)
        assert np.array_equal(native.resize(whole, box, False, size), expected)
        assert np.array_equal(native.resize(whole, box, True, size), expected[:, ::-1])
        views = [np.empty((size, size, 3), np.uint8) for _ in range(2)]
        assert native.crops(data, [box, (0, 0, width, height)], [True, False], views)
        assert np.array_equal(views[0], expected[:, ::-1]) and np.array_equal(views[1], torchs(whole, size))


def test_a_very_large_reduction_has_the_bits_of_torch(native: Native) -> None:
    image = picture(np.random.default_rng(0), 700, 1500)
    for size in (1, 3, 20):
        assert np.array_equal(native.resize(image, (0, 0, 1500, 700), False, size), torchs(image, size))


def test_an_image_that_is_not_stored_row_by_row_is_left_to_torch(native: Native) -> None:
    image = photo(0, 40, 50)
    for other in (image[:, ::-1], image[::-1], image.swapaxes(0, 1)):
        assert native.resize(other, (0, 0, 10, 10), False, 8) is None


def test_what_is_not_ordinary_is_left_to_others(native: Native) -> None:
    image = photo(0, 60, 80)
    ordinary = encoded(image, quality=80)
    cmyk = io.BytesIO()
    Image.fromarray(image).convert("CMYK").save(cmyk, "JPEG")
    rgb = io.BytesIO()
    Image.fromarray(image).save(rgb, "JPEG", keep_rgb=True)
    left = {
        "progressive": encoded(image, progressive=True),
        "CMYK": cmyk.getvalue(),
        "RGB": rgb.getvalue(),
        "cut": ordinary[: len(ordinary) // 2],
        "without its end": ordinary[:-2],
        "a byte missing": ordinary[:-3] + ordinary[-2:],
        "a byte too many": ordinary[:-2] + b"\0" + ordinary[-2:],
        "12 bits": ordinary.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c"),
        "arithmetic": ordinary.replace(b"\xff\xc0", b"\xff\xc9"),
        "garbage": b"\xff\xd8\xff" + bytes(range(256)),
        "nothing": b"",
    }
    for what, data in left.items():
        assert pixels(native, data) is None, what
    for what in ("progressive", "CMYK", "RGB", "a byte too many"):
        assert np.array_equal(decode(left[what]), without_native(left[what])), what
    for what in ("cut", "garbage"):
        with pytest.raises(BadImage):
            decode(left[what])


def test_restart_markers_out_of_order_are_left_to_others(native: Native) -> None:
    data = encoded(photo(0, 60, 80), restart_marker_blocks=1)
    assert pixels(native, data) is not None
    assert pixels(native, data.replace(b"\xff\xd1", b"\xff\xd2")) is None


def test_a_file_that_is_damaged_outside_of_the_crops_is_noticed(native: Native) -> None:
    """Else an image would be bad in some epochs only."""
    data = encoded(photo(0, 200, 200), quality=90)
    view = np.empty((32, 32, 3), np.uint8)
    assert native.crops(data, [(0, 0, 40, 40)], [False], [view])
    assert not native.crops(data[:-200] + data[-2:], [(0, 0, 40, 40)], [False], [view])


def test_of_damaged_files_only_those_are_taken_that_others_read_with_the_same_pixels(native: Native) -> None:
    rng, seen = np.random.default_rng(7), set()
    for _ in range(400):
        seen.add(check(native, mutate(generated(rng), rng), rng))
    assert {"taken", "left because of its header", "left because of its scan"} <= seen


def test_threads_decode_at_the_same_time(native: Native) -> None:
    files = [encoded(picture(np.random.default_rng(i), 120, 160), **KINDS[i]) for i in range(8)]  # type: ignore[arg-type]
    expected, wrong = [by_libjpeg(data) for data in files], []

    def work(start: int) -> None:
        for i in range(40):
            at = (start + i) % len(files)
            if not np.array_equal(pixels(native, files[at]), expected[at]):
                wrong.append(at)

    threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def kinds_of_files(folder: Path) -> FileImages:
    """Ordinary, grey, progressive, turned by Exif, PNG, far larger than needed, and small ones."""
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {
        "ordinary.jpg": encoded(photo(0, 300, 400), quality=90),
        "grey.jpg": encoded(photo(1, 200, 180), grey=True),
        "odd.jpg": encoded(photo(2, 111, 333), subsampling=0),
        "progressive.jpg": encoded(photo(3, 130, 150), progressive=True),
        "turned.jpg": encoded(photo(4, 120, 170), exif=exif.tobytes()),
        "large.jpg": encoded(photo(5, 900, 1000)),
        "small.jpg": encoded(photo(6, 20, 30)),
        "sliver.jpg": encoded(photo(7, 30, 3)),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    Image.fromarray(photo(8, 90, 70)).save(folder / "picture.png")
    names = [*files, "picture.png"]
    return FileImages(folder, names, np.arange(len(names)))


@pytest.mark.parametrize("augment", [Augment(), Augment(rotate=20, translate=0.1)], ids=["", "rotated"])
def test_views_are_the_same_bits_with_and_without_it(
    native: Native, tmp_path: Path, augment: Augment, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker, index = ViewMaker(kinds_of_files(tmp_path), two_views(64, augment), seed=1), np.arange(9)
    for epoch in range(4):
        monkeypatch.setattr(native_jpeg, "decoder", lambda: native)
        with_it = maker[epoch, index]
        monkeypatch.setattr(native_jpeg, "decoder", lambda: None)
        without = maker[epoch, index]
        assert all(map(torch.equal, with_it.views, without.views))
    assert not maker.unreadable


def test_an_ordinary_file_is_never_decoded_as_a_whole(
    native: Native, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever breaks the fast path would else notice nothing but time."""
    (tmp_path / "a.jpg").write_bytes(encoded(photo(0, 300, 400)))
    monkeypatch.setattr(native_jpeg, "decoder", lambda: native)
    monkeypatch.setattr("softedge.data.loading.decode", lambda *_: pytest.fail("decoded as a whole"))
    ViewMaker(FileImages(tmp_path, ["a.jpg"], np.zeros(1, np.int64)), two_views(64, Augment()), seed=0)[0, np.arange(1)]


def test_whole_images_are_decoded_by_it(native: Native, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(photo(0, 60, 80))
    monkeypatch.setattr(native_jpeg, "decoder", lambda: native)
    monkeypatch.setattr(decoding, "_jpeg_head", lambda data: pytest.fail("the next decoder was asked"))
    assert np.array_equal(decode(data), by_libjpeg(data))


@pytest.mark.parametrize("switch, said", [("0", "switched off"), ("1", "ready")])
def test_the_switch_decides_and_doctor_tells(switch: str, said: str) -> None:
    if switch == "1" and isinstance(native_jpeg.load(plain=True), str):
        pytest.skip("the decoder was not built")
    code = "from softedge.data import native_jpeg as n; print(n.decoder() is not None, n.status())"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, native_jpeg.SWITCH: switch}, capture_output=True, text=True
    )
    assert done.stdout.startswith(str(switch == "1")) and said in done.stdout


def test_a_library_of_other_sources_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc") or pytest.skip("no C compiler here")
    monkeypatch.setattr(native_jpeg, "__file__", str(tmp_path / "native_jpeg.py"))
    assert "was not built" in str(native_jpeg.load())
    (tmp_path / "old.c").write_text("int softedge_jpeg_abi(void) { return 0; }")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", tmp_path / "_jpeg.abi3.so", tmp_path / "old.c"], check=True)
    assert "other sources" in str(native_jpeg.load())
