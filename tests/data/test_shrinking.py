"""Smaller copies: the same folder, no more pixels than training at the recipe's size can use."""

from pathlib import Path

import numpy as np
import pytest
from pictures import class_folders, save
from PIL import Image

from softedge import config
from softedge.data import origins, sources
from softedge.data.decoding import decode
from softedge.data.examining import examine
from softedge.data.loading import pixels_needed
from softedge.data.shrinking import shrink
from softedge.errors import UserError
from softedge.report.changes import images_tested
from softedge.run import Run
from softedge.stages.data import prepare

RECIPE = config.build({"data": {"size": 32}, "augment": {"min_area": 0.2}})


def folder(root: Path) -> Path:
    save(root / "cat" / "large.jpg", 1, height=300, width=400)
    save(root / "cat" / "small.jpg", 2, height=60, width=90)
    save(root / "dog" / "tall.png", 3, height=500, width=200)
    save(root / "dog" / "other.bmp", 4, height=300, width=300)
    (root / "dog" / "broken.jpg").write_bytes(b"no picture")
    return root


def test_the_smallest_crop_of_a_copy_is_not_enlarged():
    side = pixels_needed(224, 0.2)
    assert side * np.sqrt(0.2 * 3 / 4) >= 224  # of a square image: the shorter side of the smallest, most oblong crop
    assert (side - 1) * np.sqrt(0.2 * 3 / 4) < 224


def test_large_photos_become_smaller_and_everything_keeps_its_name(tmp_path):
    root, out = folder(tmp_path / "photos"), tmp_path / "copies"
    done = shrink(str(root), out, RECIPE)
    side = pixels_needed(32, 0.2)
    assert (done.side, done.smaller, done.copied, len(done.bad)) == (side, 2, 2, 1)
    assert done.bad[0][0] == "dog/broken.jpg"
    assert decode(out / "cat" / "large.jpg").shape == (side, round(400 * side / 300), 3)
    assert decode(out / "dog" / "tall.png").shape == (round(500 * side / 200), side, 3)
    assert (out / "cat" / "small.jpg").read_bytes() == (root / "cat" / "small.jpg").read_bytes()
    assert (out / "dog" / "other.bmp").read_bytes() == (root / "dog" / "other.bmp").read_bytes()
    assert sources.find(str(out)).classes == ("cat", "dog")
    copies = [path for path in out.rglob("*") if path.is_file() and path.name != origins.FILE]
    assert done.bytes_after == sum(path.stat().st_size for path in copies)


def test_a_copy_looks_like_its_original(tmp_path):
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((800, 600), Image.Resampling.BICUBIC)
    (tmp_path / "photos").mkdir()
    picture.save(tmp_path / "photos" / "a.jpg", quality=95)
    done = shrink(str(tmp_path / "photos"), tmp_path / "copies", RECIPE)
    copy = decode(done.out / "a.jpg")
    expected = np.asarray(picture.resize(copy.shape[1::-1], Image.Resampling.BOX))
    assert abs(copy.astype(int) - expected).mean() < 2


def test_an_interrupted_copy_goes_on(tmp_path):
    root, out = folder(tmp_path / "photos"), tmp_path / "copies"
    first = shrink(str(root), out, RECIPE)
    before = (out / "cat" / "large.jpg").stat().st_mtime_ns
    (out / "dog" / "tall.png").unlink()
    assert shrink(str(root), out, RECIPE) == first
    assert (out / "cat" / "large.jpg").stat().st_mtime_ns == before
    assert (out / "dog" / "tall.png").exists()


@pytest.mark.parametrize(("out", "message"), [("photos", "overlap"), ("photos/small", "overlap")])
def test_copies_do_not_go_into_the_folder_itself(tmp_path, out, message):
    with pytest.raises(UserError, match=message):
        shrink(str(folder(tmp_path / "photos")), tmp_path / out, RECIPE)


def test_a_data_set_that_is_no_folder_is_refused():
    with pytest.raises(UserError, match="--shrink copies a folder of images; 'digits' is not one"):
        shrink("digits", Path("anywhere"), RECIPE)


def test_a_second_copy_follows_files_that_moved_or_changed(tmp_path):
    root, out = class_folders(tmp_path / "photos", {"cat": 6, "dog": 6}, height=200, width=200), tmp_path / "copies"
    shrink(str(root), out, RECIPE)
    for number in range(5):
        (root / "cat" / f"{number}.jpg").rename(root / "dog" / f"moved-{number}.jpg")
    save(root / "cat" / "5.jpg", 99, height=200, width=200)
    done = shrink(str(root), out, RECIPE)
    assert done.removed == 5 and "5 copies of originals that are gone removed" in done.text()
    assert {p.relative_to(out) for p in out.rglob("*.jpg")} == {p.relative_to(root) for p in root.rglob("*.jpg")}
    fresh = shrink(str(root), tmp_path / "fresh", RECIPE).out
    assert (out / "cat" / "5.jpg").read_bytes() == (fresh / "cat" / "5.jpg").read_bytes()


def test_a_copy_of_a_file_that_can_no_longer_be_read_goes(tmp_path):
    root, out = folder(tmp_path / "photos"), tmp_path / "copies"
    shrink(str(root), out, RECIPE)
    (root / "cat" / "large.jpg").write_bytes(b"no picture")
    assert len(shrink(str(root), out, RECIPE).bad) == 2 and not (out / "cat" / "large.jpg").exists()


def test_a_copy_for_another_size_is_made_again(tmp_path):
    root, out = folder(tmp_path / "photos"), tmp_path / "copies"
    shrink(str(root), out, RECIPE)
    larger = config.build({"data": {"size": 64}, "augment": {"min_area": 0.2}})
    assert min(decode(shrink(str(root), out, larger).out / "cat" / "large.jpg").shape[:2]) == pixels_needed(64, 0.2)


def test_a_copy_whose_line_was_lost_is_made_again(tmp_path):
    root, out = folder(tmp_path / "photos"), tmp_path / "copies"
    first = shrink(str(root), out, RECIPE)
    text = (out / origins.FILE).read_text()
    (out / origins.FILE).write_text(text[: len(text) // 2])
    (out / "cat" / "large.jpg").write_bytes(b"half a file")
    (out / "dog" / "tall.png").write_bytes(b"half a file")
    half = origins.read(out)
    assert shrink(str(root), out, RECIPE).smaller == first.smaller and (out / origins.FILE).read_text() == text
    assert all(decode(out / name).ndim == 3 for name in ("cat/large.jpg", "dog/tall.png") if name not in half)


@pytest.mark.parametrize("seed", [0, 1])
def test_copies_have_the_test_images_of_their_originals(tmp_path, seed):
    root = class_folders(tmp_path / "photos", {"cat": 30, "dog": 30}, height=200, width=200)
    out = shrink(str(root), tmp_path / "copies", RECIPE).out
    recipe = config.build({"seed": seed, "data": {"size": 32}})
    tested = [{item.name for item in examine(str(path), recipe).items if item.split == "test"} for path in (root, out)]
    assert tested[0] == tested[1] and len(tested[0]) == 12


def test_runs_on_copies_and_on_their_originals_are_tested_on_the_same_images(tmp_path):
    root = class_folders(tmp_path / "photos", {"cat": 12, "dog": 12}, height=200, width=200)
    out = shrink(str(root), tmp_path / "copies", RECIPE).out
    runs = [Run(tmp_path / name) for name in ("a", "b")]
    for run, source in zip(runs, (root, out)):
        prepare(run, RECIPE, str(source))
    assert images_tested(runs[0]) == images_tested(runs[1]) and len(images_tested(runs[0])) == 4


def test_a_copy_of_a_copy_is_split_as_the_first_original_is(tmp_path):
    root = class_folders(tmp_path / "photos", {"cat": 12, "dog": 12})
    sides = [config.build({"data": {"size": size}, "augment": {"min_area": 0.2}}) for size in (24, 16)]
    shrink(str(root), tmp_path / "once", sides[0])
    shrink(str(tmp_path / "once"), tmp_path / "twice", sides[1])
    tested = [
        {item.name for item in examine(str(folder), RECIPE).items if item.split == "test"}
        for folder in (root, tmp_path / "once", tmp_path / "twice")
    ]
    assert tested[0] == tested[1] == tested[2] != set()
