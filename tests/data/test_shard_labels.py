"""Every image of a shard has the label that stands beside it, or the shard is refused."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
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
    inventory = sources.find(str(path))
    return {
        name.split("/", 1)[1]: inventory.classes[label] if label >= 0 else ""
        for images in inventory.splits.values()
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


def test_the_label_of_one_frame_is_not_that_of_the_clip(tmp_path: Path) -> None:
    frames = [(f"clip01.{frame:04d}.png", png(frame)) for frame in range(4)]
    members = [*frames, ("clip01.0002.cls", b"cat"), ("other.png", png(9)), ("other.cls", b"dog")]
    found = labels(tar(tmp_path / "a.tar", members))
    assert found == {name: "" for name, _ in frames} | {"clip01.0002.png": "cat", "other.png": "dog"}


def test_labels_that_are_not_utf8_stay_different_classes(tmp_path: Path) -> None:
    members = [("0.png", png(0)), ("0.cls", b"K\xe4se"), ("1.png", png(1)), ("1.cls", b"K\xf6se")]
    assert labels(tar(tmp_path / "a.tar", members)) == {"0.png": "K\\xe4se", "1.png": "K\\xf6se"}


def test_links_are_the_members_they_name_and_others_are_counted(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", [("a/0.png", png(0)), ("a/0.cls", b"cat"), ("b/1.png", png(1)), ("b/1.cls", b"dog")])
    with tarfile.open(path, "a") as archive:
        for name, kind, target in (
            ("c/2.png", tarfile.LNKTYPE, "a/0.png"), ("c/2.cls", tarfile.LNKTYPE, "b/1.cls"),
            ("c/3.png", tarfile.SYMTYPE, "../b/1.png"), ("c/4.png", tarfile.SYMTYPE, "/elsewhere.png"),
        ):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
    assert labels(path) == {"a/0.png": "cat", "b/1.png": "dog", "c/2.png": "dog", "c/3.png": ""}
    inventory = sources.find(str(path))
    assert inventory.ignored["links to nothing before them"] == 1
    linked = {
        n.split("/", 1)[1]: images.read(i) for images in inventory.splits.values() for i, n in enumerate(images.names)
    }
    assert linked["c/2.png"] == png(0) and linked["c/3.png"] == png(1)


def whole(path: Path) -> tuple[int, tuple[str, ...]]:
    inventory = sources.find(str(path))
    return sum(map(len, inventory.splits.values())), inventory.notices


def test_a_shard_that_ends_early_is_said_to(tmp_path: Path) -> None:
    members = [
        (f"{i}.{ending}", data) for i in range(8) for ending, data in (("png", png(i)), ("cls", b"ab"[i % 2 :][:1]))
    ]
    path = tar(tmp_path / "a.tar", members)
    assert whole(path) == (8, ())
    data = path.read_bytes()
    with tarfile.open(path) as archive:
        starts = [member.offset for member in archive]
    for cut in (starts[8], starts[8] + 100):  # between two members, and within a header
        path.write_bytes(data[:cut])
        count, notices = whole(path)
        assert count == 4 and "a.tar has no end mark: it was cut" in notices[0]
    broken = bytearray(data)
    broken[starts[8] + 148] ^= 1  # a digit of the checksum
    joined = data + data
    for content, expected in (
        (bytes(broken), 4),
        (data[: starts[8]] + bytes(1024) + data[starts[8] :], 4),
        (joined, 8),
    ):
        path.write_bytes(content)
        count, notices = whole(path)
        assert count == expected and "damaged, or another archive was appended" in notices[0]


def test_shards_named_after_splits_are_those_splits(tmp_path: Path) -> None:
    for name, start in (("train-000", 0), ("train-001", 4), ("test", 8)):
        members = [(f"{i}.png", png(i)) for i in range(start, start + 4)]
        members += [(f"{i}.cls", b"ab"[i % 2 :][:1]) for i in range(start, start + 4)]
        tar(tmp_path / f"{name}.tar", members)
    inventory = sources.find(str(tmp_path))
    assert {split: len(images) for split, images in inventory.splits.items()} == {"train": 8, "test": 4}
    tar(tmp_path / "extra.tar", [("x.png", png(20))])
    with pytest.raises(UserError, match="test.tar is named after a split and extra.tar beside it is not"):
        sources.find(str(tmp_path))


def test_a_member_of_more_bytes_than_a_disk_can_hold_is_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tar(
        tmp_path / "a.tar", [("0.png", png(0)), ("0.cls", b"cat"), ("1.png", png(1)), ("1.cls", b"dog"), ("2.png", b"")]
    )
    data = bytearray(path.read_bytes())
    with tarfile.open(path) as archive:
        at = archive.getmember("2.png").offset
    data[at + 124 : at + 136] = b"\x80" + (2**88 - 1).to_bytes(11, "big")  # base-256, as GNU tar writes large sizes
    head = bytes(data[at : at + 148]) + b" " * 8 + bytes(data[at + 156 : at + 512])
    data[at + 148 : at + 156] = b"%06o\0 " % sum(head)
    path.write_bytes(data)
    inventory = sources.find(str(path))
    assert sum(map(len, inventory.splits.values())) == 2 and (
        inventory.ignored.get("sparse members") or inventory.notices
    )


def drawn() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.eye(40, dtype=np.uint8) * 200).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("{}.mask.png", "masks"),
        ("{}.seg.png", "masks"),
        ("{}.png", "masks"),
        ("masks/{}.png", "masks"),
        ("{}.depth.png", "maps"),
        ("{}_thumb.jpg", "thumbnails"),
        ("thumbnails/{}.jpg", "thumbnails"),
    ],
)
def test_what_is_no_photo_is_none_in_shards_either(name: str, kind: str, tmp_path: Path) -> None:
    members = []
    for number in range(6):
        other = drawn() if kind == "masks" else png(50 + number)
        members += [(f"{number}.jpg", png(number)), (f"{number}.cls", str(number % 2).encode())]
        members.append((name.format(number), other))
    path = tar(tmp_path / "s.tar", members)
    inventory = sources.find(str(path))
    assert len(inventory) == 6 and inventory.ignored == {kind: 6} and "left out" in " ".join(inventory.notices)
    assert labels(path) == {f"{number}.jpg": str(number % 2) for number in range(6)}


def notices(path: Path) -> str:
    return "; ".join(sources.find(str(path)).notices)


def test_a_class_in_json_that_contradicts_the_one_in_cls_is_told(tmp_path: Path) -> None:
    members = []
    for number in range(6):
        other = number if number < 4 else number + 1
        members += [(f"{number}.png", png(number)), (f"{number}.cls", b"%d" % (number % 2))]
        members += [(f"{number}.json", b'{"label": %d}' % (other % 2))]
    path = tar(tmp_path / "a.tar", members)
    assert labels(path) == {f"{number}.png": str(number % 2) for number in range(6)}
    assert "2 images have another class in .json than in .cls members" in notices(path)
    named = [(name, b'{"label": "cat"}' if name.endswith("json") else data) for name, data in members]
    assert "another class" not in notices(tar(tmp_path / "b.tar", named))  # the name of a number


def test_labels_of_no_image_and_folders_that_are_no_classes_are_told(tmp_path: Path) -> None:
    lone = tar(tmp_path / "a.tar", [("0.png", png(0)), ("0.cls", b"1"), ("7.cls", b"1"), ("8.cls", b"0")])
    assert "2 .cls members belong to no image of the same shard" in notices(lone)
    views = tar(tmp_path / "b.tar", [("0.left.png", png(0)), ("0.cls", b"1")])
    assert "belong" not in notices(views)
    unpacked = tar(tmp_path / "c.tar", [("cat/0.png", png(0)), ("dog/1.png", png(1))])
    assert "folders in tar shards (cat, dog) are not read as classes" in notices(unpacked)


@pytest.mark.parametrize("suffix", ["cls", "txt"])
def test_spellings_of_one_number_are_one_class_and_that_is_told(suffix: str, tmp_path: Path) -> None:
    texts = ["0", "00", "0.0", " 0\r\n", "+0", "-0", "7", "007"]
    members = [m for n, text in enumerate(texts) for m in ((f"{n}.png", png(n)), (f"{n}.{suffix}", text.encode()))]
    path = tar(tmp_path / "a.tar", members)
    assert labels(path) == {f"{n}.png": "0" if n < 6 else "7" for n in range(8)}
    assert "one number in several spellings are one class: " in notices(path) and "'007' and '7'" in notices(path)


def test_numbers_that_all_have_one_spelling_are_kept_as_they_are(tmp_path: Path) -> None:
    texts = ["007", "008", "-1", "1", "1.5", "v1.0"]
    members = [m for n, text in enumerate(texts) for m in ((f"{n}.png", png(n)), (f"{n}.cls", text.encode()))]
    path = tar(tmp_path / "a.tar", members)
    assert labels(path) == {f"{n}.png": text for n, text in enumerate(texts)} and not notices(path)


def test_the_number_of_a_name_is_that_name(tmp_path: Path) -> None:
    texts = [
        b'{"label": 0, "class_name": "cat"}',
        b'{"label": 1, "class_name": "dog"}',
        b'{"label": 0}',
        b'{"label": 2}',
    ]
    members = [m for n, text in enumerate(texts) for m in ((f"{n}.png", png(n)), (f"{n}.json", text))]
    path = tar(tmp_path / "a.tar", members)
    assert labels(path) == {"0.png": "cat", "1.png": "dog", "2.png": "cat", "3.png": "2"}
    assert "the label '0' is the class 'cat', as a.tar/0.json says" in notices(path)
