"""Near-duplicates: which pictures are found, which are not, and what a split does with them."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from pictures import photo
from PIL import Image
from sklearn.datasets import load_digits

from softedge import config
from softedge.data import describe, near_copies
from softedge.data.decoding import decode
from softedge.data.examining import Examined, examine
from softedge.data.near_copies import pairs, thumbnail
from softedge.data.near_pairs import sentence
from softedge.data.splitting import Item, split
from softedge.errors import UserError


def scene(seed: int) -> np.ndarray:
    """Shapes on a smooth background, uint8 (240, 320, 3): detail at every scale, as in a photo."""
    rng = np.random.default_rng(seed)
    image = photo(seed, 240, 320)
    for _ in range(25):
        centre = (int(rng.integers(320)), int(rng.integers(240)))
        colour = [int(value) for value in rng.integers(0, 256, 3)]
        cv2.circle(image, centre, int(rng.integers(4, 40)), colour, -1)
    return image


def again(image: np.ndarray, quality: int = 70) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality)
    return decode(stream.getvalue())


def cropped(image: np.ndarray, seed: int) -> np.ndarray:
    """95 % of each side, anywhere."""
    rng = np.random.default_rng(seed)
    height, width = (round(side * 0.95) for side in image.shape[:2])
    y, x = rng.integers(image.shape[0] - height + 1), rng.integers(image.shape[1] - width + 1)
    return image[y : y + height, x : x + width]


CHANGES = {
    "saved again": lambda image, seed: again(image, 50),
    "half the size": lambda image, seed: cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "cropped": lambda image, seed: again(cropped(image, seed)),
    "brightened": lambda image, seed: again(np.clip(image * 1.1, 0, 255).astype(np.uint8)),
}


def assert_copies_are_found(change: Callable[[np.ndarray, int], np.ndarray]) -> None:
    """Of 100 pictures at least 99, and few pairs of different ones."""
    originals = [scene(seed) for seed in range(100)]
    copies = [change(image, seed) for seed, image in enumerate(originals)]
    thumbnails = [thumbnail(image) for image in originals + copies]
    actual = {(pair.first, pair.second) for pair in pairs(np.stack([t for t in thumbnails if t is not None]))}
    expected = {(seed, seed + 100) for seed in range(100)}
    assert len(actual & expected) >= 99
    assert len(actual & expected) >= 0.95 * len(actual)


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_and_no_other_picture(change: str) -> None:
    assert_copies_are_found(CHANGES[change])


def test_the_pair_search_agrees_with_a_comparison_of_every_pair() -> None:
    images = [scene(seed) for seed in range(30)] + [again(cropped(scene(seed), seed)) for seed in range(0, 30, 2)]
    thumbnails = np.stack([t for t in map(thumbnail, images) if t is not None])
    number = len(thumbnails)
    every = [(i, j) for i in range(number) for j in range(i + 1, number)]
    first, second = (thumbnails[[pair[side] for pair in every]] for side in (0, 1))
    similar = near_copies._similarity(first, second, 24, 5, True) >= near_copies._STAGES[-1][0]
    expected = {pair for pair, alike in zip(every, similar) if alike}
    assert {(pair.first, pair.second) for pair in pairs(thumbnails)} == expected
    assert len(expected) >= 15


def test_the_pairs_do_not_depend_on_how_many_are_compared_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where no pair of a block is left after the first comparison."""
    images = [scene(seed) for seed in range(40)] + [again(scene(0)), cropped(scene(1), 0)]
    thumbnails = np.stack([t for t in map(thumbnail, images) if t is not None])
    expected = pairs(thumbnails)
    monkeypatch.setattr(near_copies, "_LIKELY", 0.0)
    monkeypatch.setattr(near_copies, "_BLOCK", 1)
    assert pairs(thumbnails) == expected
    assert [(pair.first, pair.second) for pair in expected] == [(0, 40), (1, 41)]


@pytest.mark.parametrize("side", [8, 32, 48, 56, 64, 256])
@pytest.mark.parametrize("interpolation", [cv2.INTER_LINEAR, cv2.INTER_CUBIC])
def test_scans_of_digits_take_no_part_at_any_size(side: int, interpolation: int) -> None:
    for scan in load_digits().images[:300].astype(np.uint8) * 15:
        larger = cv2.resize(scan, (side, side), interpolation=interpolation)
        assert thumbnail(np.repeat(larger[..., None], 3, axis=2)) is None


@pytest.mark.parametrize("side", [48, 56])
def test_a_copy_shrunk_to_few_pixels_is_found(side: int) -> None:
    size = side * 4 // 3, side
    assert_copies_are_found(lambda image, seed: cv2.resize(image, size, interpolation=cv2.INTER_AREA))


def test_pictures_smaller_than_a_thumbnail_take_no_part() -> None:
    assert thumbnail(scene(0)[:47, :64]) is None


def test_a_plain_picture_takes_no_part() -> None:
    ramp = np.repeat(np.linspace(0, 255, 200).astype(np.uint8)[None, :, None], 200, axis=0).repeat(3, axis=2)
    assert thumbnail(ramp) is None
    assert thumbnail(np.full((200, 200, 3), 90, np.uint8)) is None


def items(labels: list[int], place: str = "train") -> list[Item]:
    return [Item(f"{i}.jpg", f"{i:064x}", place, label, f"content {i}") for i, label in enumerate(labels)]


@pytest.mark.parametrize("seed", range(8))
def test_near_duplicates_fall_on_one_side_of_the_split(seed: int) -> None:
    tied = [(i, i + 1) for i in range(0, 80, 2)]
    chosen = split(items([i // 40 for i in range(80)]), ("a", "b"), 0.2, seed, near=tied)
    assert {item.split for item in chosen} == {"train", "test"}
    assert all(chosen[i].split == chosen[j].split for i, j in tied)


def test_without_near_duplicates_the_split_is_what_it_was() -> None:
    given = items([i // 40 for i in range(80)])
    assert split(given, ("a", "b"), 0.2, 3) == split(given, ("a", "b"), 0.2, 3, near=[])


def test_a_film_that_is_most_of_its_class_is_still_split() -> None:
    film = [(i, i + 1) for i in range(39)]
    chosen = split(items([i // 40 for i in range(80)]), ("a", "b"), 0.2, 0, near=film)
    assert sum(item.split == "test" for item in chosen[:40]) == 8
    assert not any(item.split == "duplicate" for item in chosen)


def test_a_training_image_like_one_in_the_test_split_is_set_aside_and_the_test_split_stays() -> None:
    given = items([0] * 20 + [1] * 20) + [Item(f"t{i}.jpg", f"t{i}", "test", i // 2, f"test {i}") for i in range(4)]
    chosen = split(given, ("a", "b"), 0.2, 0, near=[(0, 40), (40, 41)])
    assert chosen[0].split == "duplicate"
    assert [item.split for item in chosen[40:]] == ["test"] * 4
    assert sum(item.split == "duplicate" for item in chosen) == 1


def folder(root: Path) -> Examined:
    for seed in range(12):
        path = root / "ab"[seed % 2] / f"{seed}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene(seed)).save(path)
    Image.fromarray(cropped(scene(0), 1)).save(root / "b" / "copy of 0.jpg")
    return examine(str(root), config.build({"data": {"size": 32}}))


def test_near_duplicates_with_two_labels_are_kept_and_reported(tmp_path: Path) -> None:
    (pair,) = folder(tmp_path).near
    assert (pair.kind, {pair.name, pair.other_name}) == ("two labels", {"a/0.png", "b/copy of 0.jpg"})
    assert {pair.label, pair.other_label} == {"a", "b"}
    assert pair.split == pair.other_split


def test_the_pairs_are_written_as_a_table(tmp_path: Path) -> None:
    folder(tmp_path / "images")
    out = tmp_path / "pairs.csv"
    source = str(tmp_path / "images")
    values = describe(source, config.build({"data": {"size": 32}}), out)
    rows = list(csv.DictReader(out.open()))
    assert [row["kind"] for row in rows] == ["two labels"]
    assert values["near"] == {"two labels": 1}
    assert float(rows[0]["similarity"]) >= 0.95


def test_a_table_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "pairs.csv"
    out.write_text("mine")
    with pytest.raises(UserError, match="pairs.csv exists"):
        describe(str(tmp_path), config.build({}), out)
    assert out.read_text() == "mine"


def test_one_pair_is_counted_in_the_singular() -> None:
    assert sentence({"leak": 1}).startswith("1 pair of near-duplicates: 1 leak (")
    assert sentence({"leak": 1, "same": 1_200}).startswith("1,201 pairs of near-duplicates: 1 leak (")
