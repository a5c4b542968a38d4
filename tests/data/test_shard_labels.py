"""Every image of a shard has the label that stands beside it, or the shard is refused."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from pictures import photo
from PIL import Image

from softedge.data import sources
from softedge.data.decoding import BadImage
from softedge.errors import UserError


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(photo(seed, 40, 40)).save(buffer, "PNG")
    return buffer.getvalue()


def tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def labels(path: Path) -> dict[str, str]:
    """Name of the image in the shard -> class."""
    found = sources.find(str(path))
    return {
        name.split("/", 1)[1]: found.classes[label] if label >= 0 else ""
        for images in found.splits.values()
        for name, label in zip(images.names, images.labels.tolist())
    }


def test_frames_of_clips_keep_their_own_labels(tmp_path: Path) -> None:
    members, expected = [], {}
    for clip in range(10):
        for frame in range(4):
            name, label = f"clip{clip:02d}.{frame:04d}", "ab"[frame % 2]
            members += [(f"{name}.png", png(4 * clip + frame)), (f"{name}.cls", label.encode())]
            expected[f"{name}.png"] = label
    assert labels(tar(tmp_path / "a.tar", members)) == expected


def test_two_views_of_a_sample_share_its_label(tmp_path: Path) -> None:
    members = []
    for sample, label in enumerate(("cat", "dog")):
        members += [(f"{sample}.{side}.png", png(sample)) for side in ("left", "right")]
        members.append((f"{sample}.cls", label.encode()))
    assert labels(tar(tmp_path / "a.tar", members)) == {
        "0.left.png": "cat", "0.right.png": "cat", "1.left.png": "dog", "1.right.png": "dog"
    }  # fmt: skip


def test_an_image_between_two_labels_is_refused(tmp_path: Path) -> None:
    members = [("a.png", png(0)), ("a.one.cls", b"cat"), ("a.two.cls", b"dog"), ("b.png", png(1)), ("b.cls", b"cat")]
    with pytest.raises(UserError, match=r"a\.png has no label of its own.*a\.one\.cls and .*a\.two\.cls"):
        labels(tar(tmp_path / "a.tar", members))


@pytest.mark.parametrize("name", ["a.png", "a.cls"])
def test_a_member_that_was_appended_a_second_time_is_refused(tmp_path: Path, name: str) -> None:
    members = [("a.png", png(0)), ("a.cls", b"cat"), ("b.png", png(1)), ("b.cls", b"dog")]
    tar(tmp_path / "a.tar", [*members, (name, b"dog" if name == "a.cls" else png(2))])
    with pytest.raises(UserError, match=f"holds {name} twice"):
        labels(tmp_path / "a.tar")


def test_a_byte_order_mark_and_decomposed_letters_make_no_other_class(tmp_path: Path) -> None:
    texts = [b"\xef\xbb\xbfcat", b"cat", "Ku\u0308rbis".encode(), "K\u00fcrbis".encode()]
    members = []
    for number, text in enumerate(texts):
        members += [(f"{number}.png", png(number)), (f"{number}.cls", text)]
    assert sources.find(str(tar(tmp_path / "a.tar", members))).classes == ("Kürbis", "cat")


def test_a_header_that_promises_a_terabyte_is_one_bad_image(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", [("a.png", png(0)), ("b.png", png(1))])
    data = bytearray(path.read_bytes())
    at = data.index(b"b.png\0")
    data[at + 124 : at + 136] = b"\x80" + (1 << 40).to_bytes(11, "big")
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    path.write_bytes(data)
    images = sources.find(str(path)).splits["unlabelled"]
    assert images.decode(0).shape == (40, 40, 3)
    with pytest.raises(BadImage, match="limit"):
        images.decode(1)


def test_names_that_are_not_utf8_become_printable(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", [("bad\udcff.png", png(0))])
    (name,) = sources.find(str(path)).splits["unlabelled"].names
    assert name == "a.tar/bad\\xff.png"
