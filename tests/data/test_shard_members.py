"""Labels in ``.json`` and ``.txt`` members of shards: read where they can mean one thing, else refused by name."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from pictures import save
from test_shard_labels import labels, png, tar

from softedge.data import sources
from softedge.errors import UserError


def shard(tmp_path: Path, suffix: str, texts: list[str], *more: tuple[str, bytes]) -> Path:
    members = [
        (f"{n}.{end}", png(n) if end == "png" else text.encode())
        for n, text in enumerate(texts)
        for end in ("png", suffix)
    ]
    return tar(tmp_path / "a.tar", [*members, *more])


@pytest.mark.parametrize(
    "values",
    [
        [{"label": 0}, {"label": 3}],
        [{"cls": "0"}, {"cls": "3"}],
        [{"class": 0.0, "width": 40}, {"class": 3.0, "width": 40}],
        [{"label": 0, "cls": 0}, {"label": 3, "cls": "3"}],
        [0, 3],
    ],
)
def test_numbers_in_json_members_are_classes(values: list[object], tmp_path: Path) -> None:
    path = shard(tmp_path, "json", [json.dumps(values[n % 2]) for n in range(4)])
    assert labels(path) == {f"{n}.png": ("0", "3")[n % 2] for n in range(4)}
    assert "the labels of 4 images are read from .json members" in sources.find(str(path)).notices


@pytest.mark.parametrize(
    "values",
    [[{"label": "cat"}, {"label": "dog"}], [{"label": 0, "class_name": "cat"}, {"label": 1, "class_name": "dog"}]],
)
def test_names_in_json_members_are_classes(values: list[object], tmp_path: Path) -> None:
    path = shard(tmp_path, "json", ["\ufeff" + json.dumps(values[n % 2]) for n in range(4)])
    assert labels(path) == {f"{n}.png": ("cat", "dog")[n % 2] for n in range(4)}


@pytest.mark.parametrize(
    ("third", "why"),
    [
        ({"label": [1, 2]}, r"says label: \[1, 2\], which is not a single class"),
        ({"label": True}, "says label: true"),
        ({"label": -1}, "says label: -1"),
        ({"label": 0.5}, "says label: 0.5"),
        ({"label": {"cat": 1}}, ".*not a single class"),
        ({"label": "cat", "category": "dog"}, r"names several classes \(cat, dog\)"),
        ({"label": 1, "cls": 2}, r"names several classes \(1, 2\)"),
        ({"label": "a photo of " * 20}, ".*not a single class"),
    ],
)
def test_what_is_no_single_class_is_refused_with_the_members_name(third: object, why: str, tmp_path: Path) -> None:
    values = [{"label": "cat"}, {"label": "dog"}, third]
    with pytest.raises(UserError, match=rf"a\.tar/2\.json {why}.*say it in a\.tar/2\.cls"):
        labels(shard(tmp_path, "json", [json.dumps(v) for v in values]))


def test_one_name_with_two_numbers_is_refused(tmp_path: Path) -> None:
    values = [{"label": 0, "class_name": "cat"}, {"label": 1, "class_name": "dog"}, {"label": 1, "class_name": "cat"}]
    with pytest.raises(UserError, match=r"2\.json gives 'cat' the number 1, and .*0\.json 0"):
        labels(shard(tmp_path, "json", [json.dumps(v) for v in values]))


def test_damaged_json_is_refused_where_others_hold_labels_and_passed_over_where_none_does(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"2\.json cannot be read as JSON"):
        labels(shard(tmp_path, "json", ['{"label": 0}', '{"label": 1}', '{"label": ']))
    path = shard(tmp_path, "json", ['{"url": "x"}', '{"caption": "a cat"}', '{"url": ', "[1, 2]"])
    assert set(labels(path).values()) == {""}
    inventory = sources.find(str(path))
    assert inventory.ignored["not images"] == 4 and any(
        "none holds one: no labels" in line for line in inventory.notices
    )


def test_a_cls_member_comes_before_facts_in_json(tmp_path: Path) -> None:
    more = [(f"{n}.cls", b"cat" if n % 2 else b"dog") for n in range(4)]
    path = shard(tmp_path, "json", ['{"label": [1, 2]}', '{"label": 7}', "{", '{"label": "x"}'], *more)
    assert labels(path) == {f"{n}.png": "cat" if n % 2 else "dog" for n in range(4)}
    (line,) = sources.find(str(path)).notices  # a number is no other name, another name is
    assert "1 image has another class in .json" in line and "3.json: 'x' and 'cat'" in line


@pytest.mark.parametrize("texts", [["0", "1", "2", "3"], ["cat", "dog", "cat", "dog\n"], ["sports car", "bus"] * 2])
def test_texts_that_are_classes_are_labels(texts: list[str], tmp_path: Path) -> None:
    path = shard(tmp_path, "txt", texts)
    assert labels(path) == {f"{n}.png": text.strip() for n, text in enumerate(texts)}
    assert "the labels of 4 images are read from .txt members" in sources.find(str(path)).notices


@pytest.mark.parametrize(
    "texts",
    [
        ["a cat on a mat in the sun", "a dog"] * 2,  # captions
        ["cat", "dog", "cow", "hen"],  # each once: could be captions
        ["0 0.5 0.5 0.1 0.1", "1 0.2 0.2 0.1 0.1"] * 2,  # YOLO's boxes
        ["cat", "dog", "cat", ""],
    ],
)
def test_other_texts_are_no_labels_and_that_is_said(texts: list[str], tmp_path: Path) -> None:
    path = shard(tmp_path, "txt", texts)
    assert set(labels(path).values()) == {""}
    assert any("4 .txt members are taken for captions or boxes" in line for line in sources.find(str(path)).notices)


def test_a_text_without_number_among_numbers_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.tar/2\.txt holds no number, and the \.txt members of 3 other images do"):
        labels(shard(tmp_path, "txt", ["0", "1", "cat", "1"]))


@pytest.mark.parametrize("text", ["0 3", "0,3", "[0, 1, 0]", "(1; 2)", "0.1 0.9", "3\n5"])
def test_several_numbers_are_no_class(text: str, tmp_path: Path) -> None:
    for suffix, said in (("cls", text), ("json", json.dumps({"label": text}))):
        with pytest.raises(UserError, match=rf"a\.tar/1\.{suffix} says .*which is not a single class"):
            labels(shard(tmp_path, suffix, ["0", said] if suffix == "cls" else ['{"label": "0"}', said]))
    assert set(labels(shard(tmp_path, "txt", [text, "1 2"] * 2)).values()) == {""}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_labels_that_an_editor_wrote_in_another_encoding_are_the_same(encoding: str, tmp_path: Path) -> None:
    mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""
    texts = [(mark + text).encode(encoding) for text in ("Käfer\r\n", "cat\r\n")]
    members = [m for n in range(4) for m in ((f"{n}.png", png(n)), (f"{n}.cls", texts[n % 2]))]
    assert labels(tar(tmp_path / "a.tar", members)) == {f"{n}.png": ("Käfer", "cat")[n % 2] for n in range(4)}


def test_quotes_and_a_c_strings_end_around_a_label_are_no_part_of_it(tmp_path: Path) -> None:
    path = shard(tmp_path, "cls", ['"cat"', "'dog'", "cat\0", "dog"])
    assert labels(path) == {f"{n}.png": ("cat", "dog")[n % 2] for n in range(4)}


def test_minus_one_among_numbers_from_zero_on_is_told(tmp_path: Path) -> None:
    inventory = sources.find(str(shard(tmp_path, "cls", ["0", "1", "-1"])))
    assert len(inventory.classes) == 3 and "the label -1 is a class of its own" in inventory.notices[0]
    assert not sources.find(str(shard(tmp_path, "cls", ["1", "-1"]))).notices


# Compressed shards


@pytest.mark.parametrize(
    ("name", "advice"),
    [("a.tar.gz", "gunzip .*a.tar.gz"), ("a.tgz", "gunzip .*a.tgz"), ("a.tar", "gunzip a.gz, after naming it so")],
)
@pytest.mark.parametrize("as_folder", [False, True])
def test_a_compressed_shard_is_refused_with_what_to_do(name: str, advice: str, as_folder: bool, tmp_path: Path) -> None:
    plain = shard(tmp_path, "cls", ["cat", "dog"])
    packed = tmp_path / "shards" / name
    packed.parent.mkdir()
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    with pytest.raises(UserError, match=f"{name} is a compressed tar file, .*{advice}") as caught:
        sources.find(str(packed.parent if as_folder else packed))
    assert "\n" not in str(caught.value)


def test_compressed_shards_in_the_folders_of_splits_and_beside_images_are_seen(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / "splits" / split).mkdir(parents=True)
        (tmp_path / "splits" / split / "0.tar.gz").write_bytes(gzip.compress(b"x"))
    with pytest.raises(UserError, match=r"0\.tar\.gz is a compressed tar file"):
        sources.find(str(tmp_path / "splits"))
    save(tmp_path / "photos" / "0.jpg", 0)
    (tmp_path / "photos" / "more.tgz").write_bytes(b"x")
    inventory = sources.find(str(tmp_path / "photos"))
    assert inventory.ignored == {"tar files": 1} and "1 tar file beside the images left out" in inventory.notices[0]
