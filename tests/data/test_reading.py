"""What is no ordinary file is left alone before it costs time or memory."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from pictures import photo
from PIL import Image

from softedge.data import decoding
from softedge.data.decoding import BadImage, decode
from softedge.errors import UserError


@pytest.fixture(autouse=True)
def limits() -> None:
    decoding.max_bytes.cache_clear()
    decoding.max_pixels.cache_clear()


@pytest.mark.skipif(os.name == "nt", reason="no pipes in folders there")
def test_a_pipe_and_a_device_are_bad_and_do_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    for name in ("x.jpg", "zero.jpg"):
        with pytest.raises(BadImage, match="not a regular file"):
            decode(tmp_path / name)


def test_a_file_of_30_gigabytes_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "x.jpg", "wb") as file:
        file.truncate(30_000_000_000)
    with pytest.raises(
        BadImage, match=r"30,000,000,000 bytes are more than the limit of 512,000,000.*SOFTEDGE_MAX_BYTES"
    ):
        decode(tmp_path / "x.jpg")


@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
def test_the_pixel_limit_can_be_set(image_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    Image.fromarray(photo(0, 40, 40)).save(buffer, image_format)
    monkeypatch.setenv("SOFTEDGE_MAX_PIXELS", "1599")
    with pytest.raises(BadImage, match=r"40 x 40 pixels are more than the limit of 1,599 .*SOFTEDGE_MAX_PIXELS"):
        decode(buffer.getvalue())
    decoding.max_pixels.cache_clear()
    monkeypatch.setenv("SOFTEDGE_MAX_PIXELS", "many")
    with pytest.raises(UserError, match="SOFTEDGE_MAX_PIXELS=many is not a whole number"):
        decode(buffer.getvalue())


def test_threads_share_one_budget_and_a_picture_beyond_it_is_decoded_alone() -> None:
    budget, lock = decoding._Budget(100), threading.Lock()
    at_once, most = [], []

    def work(pixels: int) -> None:
        with budget.take(pixels):
            with lock:
                at_once.append(pixels)
                most.append(list(at_once))
            threading.Event().wait(0.01)
            with lock:
                at_once.remove(pixels)

    threads = [threading.Thread(target=work, args=(pixels,)) for pixels in [40] * 6 + [500] * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
        assert not thread.is_alive()
    assert all(sum(taken) <= 100 or taken == [500] for taken in most) and np.max([len(t) for t in most]) == 2
