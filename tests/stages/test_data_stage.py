"""The data stage: nothing bad stops it, nothing leaks from the test split, and what it decided can be read back."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from pictures import class_folders, photo, save
from PIL import Image

from softedge import config
from softedge.data import describe, describe_text, load
from softedge.data.examining import examine
from softedge.data.images import Data
from softedge.errors import UserError
from softedge.export import calibration
from softedge.run import Run, read_json, write_json
from softedge.stages.data import changed, prepare


def recipe(**data: object) -> config.Recipe:
    return config.build({"data": {"size": 32, **data}})


def prepared(tmp_path: Path, source: Path | str, **data: object) -> Data:
    run = Run(tmp_path / "run")
    prepare(run, recipe(**data), str(source), force=True)
    return load(run)


def contents(images: object) -> set[bytes]:
    return {images.path(i).read_bytes() for i in range(len(images))}  # type: ignore[attr-defined]


def test_the_hold_out_is_stratified_and_disjoint(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "images", {"a": 20, "b": 10, "c": 2})
    data = prepared(tmp_path, source)
    assert np.bincount(data.test.labels).tolist() == [4, 2, 1]
    assert np.bincount(data.train.labels).tolist() == [16, 8, 1]
    assert not contents(data.train) & contents(data.test)
    assert list(data.pretrain.names) == list(data.train.names)


def test_the_hold_out_survives_renaming_and_depends_on_the_seed(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "images", {"a": 12, "b": 12})
    before = contents(prepared(tmp_path, source).test)
    for number, path in enumerate(sorted((source / "a").iterdir(), reverse=True)):
        path.rename(source / "a" / f"renamed-{number:03d}.jpg")
    assert contents(prepared(tmp_path, source).test) == before
    other = config.build({"seed": 1, "data": {"size": 32}})
    prepare(Run(tmp_path / "other"), other, str(source))
    assert contents(load(Run(tmp_path / "other")).test) != before


def test_an_added_image_moves_at_most_one_other_across_the_line(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "images", {"a": 12, "b": 12})
    before = contents(prepared(tmp_path, source).test)
    save(source / "a" / "new.jpg", 999)
    assert len(before - contents(prepared(tmp_path, source).test)) <= 1


def test_bad_images_are_set_aside_with_their_reasons(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "images", {"a": 4, "b": 4})
    (source / "a" / "text.jpg").write_text("this is no image")
    (source / "a" / "empty.png").touch()
    (source / "b" / "link.jpg").symlink_to(tmp_path / "gone.jpg")
    whole = (source / "b" / "0.jpg").read_bytes()
    (source / "b" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    run = Run(tmp_path / "run")
    result = prepare(run, recipe(), str(source))
    assert result.metrics["n_bad"] == 4 and result.metrics["n_train"] + result.metrics["n_test"] == 8
    reasons = {bad["name"]: bad["reason"] for bad in read_json(run.root / "data" / "index.json")["bad"]}
    assert "known format" in reasons["a/text.jpg"] and "empty" in reasons["a/empty.png"]
    assert "truncated" in reasons["b/cut.jpg"] and "No such file" in reasons["b/link.jpg"]


def test_a_copy_of_a_test_image_never_stays_in_training(tmp_path: Path) -> None:
    source = tmp_path / "images"
    class_folders(source / "train", {"a": 3, "b": 3})
    class_folders(source / "test", {"a": 2, "b": 2}, start=50)
    (source / "unlabeled").mkdir()
    shutil.copy(source / "test" / "a" / "0.jpg", source / "train" / "a" / "copy.jpg")
    shutil.copy(source / "test" / "b" / "1.jpg", source / "unlabeled" / "copy.jpg")
    save(source / "unlabeled" / "own.jpg", 90)
    run = Run(tmp_path / "run")
    result = prepare(run, recipe(), str(source))
    data = load(run)
    assert result.metrics["n_duplicates"] == 2
    assert (len(data.train), len(data.test), len(data.pretrain)) == (6, 4, 7)
    assert not contents(data.pretrain) & contents(data.test)


def test_copies_within_a_class_do_not_straddle_the_hold_out(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "images", {"a": 6, "b": 6})
    for number in range(6):
        shutil.copy(source / "a" / f"{number}.jpg", source / "a" / f"copy-{number}.jpg")
    data = prepared(tmp_path, source)
    assert not contents(data.pretrain) & contents(data.test)


def test_unlabelled_images_alone_all_go_to_pretraining(tmp_path: Path) -> None:
    for number in range(5):
        save(tmp_path / "images" / f"{number}.jpg", number)
    data = prepared(tmp_path, tmp_path / "images")
    assert (len(data.pretrain), len(data.train), len(data.test), data.classes) == (5, 0, 0, ())


def test_digits_come_back_as_they_were_prepared(tmp_path: Path) -> None:
    data = prepared(tmp_path, "digits", mean="auto", std="auto")
    assert (len(data.train), len(data.test), len(data.classes)) == (1438, 359, 10)
    assert data.spec.resize == 32 and data.train.decode(0).shape == (32, 32, 3)
    measured = data.pretrain.prepared(data.spec) / 255.0
    assert np.abs(measured.mean((0, 1, 2)) - data.spec.mean).max() < 0.01
    assert np.abs(measured.std((0, 1, 2)) - data.spec.std).max() < 0.01


def test_resize_zero_leaves_a_margin_only_for_larger_images(tmp_path: Path) -> None:
    small = class_folders(tmp_path / "small", {"a": 2, "b": 2}, height=32, width=36)
    large = class_folders(tmp_path / "large", {"a": 2, "b": 2}, height=100, width=50)
    assert prepared(tmp_path, small).spec.resize == 32
    assert prepared(tmp_path, large).spec.resize == 37
    assert prepared(tmp_path, large, resize=40).spec.resize == 40
    with pytest.raises(UserError, match=r"data.resize = 20 is smaller"):
        prepared(tmp_path, large, resize=20)


def test_the_stage_is_skipped_when_done_and_goes_on_with_the_images_it_knows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = class_folders(tmp_path / "images", {"a": 3, "b": 3})
    run = Run(tmp_path / "run")
    first = prepare(run, recipe(), str(source))
    assert prepare(run, recipe(), str(source)) == first and "already done" in capsys.readouterr().err
    here = recipe(source=str(source))
    assert not changed(run, here) and not changed(Run(tmp_path / "none"), here)
    save(source / "a" / "new.jpg", 99)
    assert changed(run, here), "what deploy --update asks"
    assert prepare(run, recipe(), str(source)) == first
    assert "1 new since this run was made; softedge deploy --update trains on them" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"test_fraction.*--force"):
        prepare(run, recipe(test_fraction=0.5), str(source))
    assert prepare(run, recipe(), str(source), force=True).metrics["n_pretrain"] == first.metrics["n_pretrain"] + 1


def trained(run: Run) -> None:
    """A finished pretraining, as far as the data stage looks."""
    done = run.result("data")
    assert done is not None
    write_json(run.folder("pretrain") / "result.json", {**done.to_dict(), "stage": "pretrain"})


def test_pictures_of_two_classes_that_change_places_are_noticed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Same names and sizes, and even the same times: nothing but the content differs."""
    source = class_folders(tmp_path / "images", {"a": 3, "b": 3})
    a, b = source / "a" / "0.bmp", source / "b" / "0.bmp"
    for path, seed in ((a, 50), (b, 51)):
        save(path, seed, height=40, width=40)
        os.utime(path, (1, 1))
    run = Run(tmp_path / "run")
    prepare(run, recipe(), str(source))
    for path, seed in ((a, 51), (b, 50)):
        path.unlink()  # the kept copies of test images are links
        save(path, seed, height=40, width=40)
        os.utime(path, (1, 1))
    with pytest.raises(UserError, match=r"2 changed \(a/0.bmp, b/0.bmp\)"):
        prepare(run, recipe(), str(source))
    trained(run)
    prepare(run, recipe(), str(source))
    assert "2 changed (a/0.bmp, b/0.bmp) since this run was made" in capsys.readouterr().err


def test_a_finished_run_goes_on_without_its_photos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = class_folders(tmp_path / "images", {"a": 3, "b": 3})
    run = Run(tmp_path / "run")
    first = prepare(run, recipe(), str(source))
    (source / "a" / "0.jpg").unlink()
    with pytest.raises(UserError, match=r"1 gone \(a/0.jpg\)"):
        prepare(run, recipe(), str(source))
    trained(run)
    assert prepare(run, recipe(), str(source)) == first and "1 gone (a/0.jpg)" in capsys.readouterr().err
    shutil.rmtree(source)
    assert prepare(run, recipe(), str(source)) == first and "goes on with what it kept" in capsys.readouterr().err
    data = load(run)
    assert data.test.prepared(data.spec).shape == (2, 32, 32, 3)


def test_shards_that_are_gone_leave_their_test_images(tmp_path: Path) -> None:
    raw = class_folders(tmp_path / "raw", {"a": 4, "b": 4})
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        for path in sorted(raw.rglob("*.jpg")):
            name = f"{path.parent.name}{path.stem}"
            archive.add(path, f"{name}.jpg")
            (tmp_path / "label").write_text(path.parent.name)
            archive.add(tmp_path / "label", f"{name}.cls")
    data = prepared(tmp_path, tmp_path / "shard.tar")
    expected = data.test.prepared(data.spec)
    (tmp_path / "shard.tar").unlink()
    again = load(Run(tmp_path / "run"))
    assert np.array_equal(again.test.prepared(again.spec), expected) and again.test.labels.tolist() == [0, 1]


def test_copies_count_as_one_picture_and_only_one_is_tested_on(tmp_path: Path) -> None:
    """Whatever the seed: of 17 copies among 55 files the test split has one at most."""
    source = class_folders(tmp_path / "images", {"a": 19, "b": 20}, height=40, width=40)
    for number in range(1, 16):
        shutil.copy(source / "a" / "0.jpg", source / "a" / f"copy-{number}.jpg")
    Image.open(source / "a" / "0.jpg").save(source / "a" / "again.bmp")  # the same pixels in another file
    for seed in range(12):
        examined = examine(str(source), config.build({"seed": seed, "data": {"size": 32}}))
        tested = [item for item in examined.items if item.split == "test" and item.label == 0]
        assert len(tested) == 4 and len({item.content for item in tested}) == 4  # a fifth of 19 pictures
        used = {item.content for item in examined.items if item.split == "train"}
        assert not used & {item.content for item in tested}


def test_a_picture_with_two_labels_is_set_aside_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = class_folders(tmp_path / "images", {"a": 6, "b": 6}, height=40, width=40)
    shutil.copy(source / "a" / "2.jpg", source / "b" / "same.jpg")
    run = Run(tmp_path / "run")
    result = prepare(run, recipe(), str(source))
    assert result.details["contradictions"] == [["a/2.jpg", "b/same.jpg"]]
    assert result.metrics["n_contradictions"] == 2
    assert result.metrics["n_train"] + result.metrics["n_test"] == 11
    assert "a/2.jpg and b/same.jpg" in capsys.readouterr().err
    data = load(run)
    assert not {"a/2.jpg", "b/same.jpg"} & {*data.pretrain.names, *data.test.names}
    assert "1 picture with two labels: a/2.jpg and b/same.jpg" in describe_text(describe(str(source), recipe()))


def test_a_contradiction_is_named_by_two_files_with_different_labels(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "images", {"a": 5, "b": 5})
    for number in range(3):
        shutil.copy(source / "a" / "0.jpg", source / "a" / f"0-{number}.jpg")
    shutil.copy(source / "a" / "0.jpg", source / "b" / "copy.jpg")
    (names,) = examine(str(source), config.build({"data": {"size": 32}})).contradictions
    assert {name[0] for name in names[:2]} == {"a", "b"} and len(names) == 5


def test_a_class_folder_that_is_a_link_to_another_is_refused(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "images", {"a": 3, "b": 3})
    (source / "c").symlink_to(source / "a", target_is_directory=True)
    with pytest.raises(UserError, match=r"of class 'a' is in another class, too \(a/0.jpg and c/0.jpg, 3"):
        prepared(tmp_path, source)


def test_files_of_one_name_stay_in_one_split(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "images", {"a": 8, "b": 8}, height=40, width=40)
    for path in sorted(source.rglob("*.jpg")):
        Image.open(path).rotate(2).save(path.with_suffix(".webp"))  # nearly the same picture
    data = prepared(tmp_path, source)
    stems = {name.rpartition(".")[0] for name in data.test.names}
    assert len(data.test) == len(stems) == 4  # a fifth of eight, rounded: two of each class
    assert not stems & {name.rpartition(".")[0] for name in data.pretrain.names}


def test_training_images_that_are_all_copies_of_test_images_are_refused(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "images" / "test", {"a": 2, "b": 2}).parent
    shutil.copytree(source / "test", source / "train")
    with pytest.raises(UserError, match="every training image of .* is a copy of a test image"):
        prepared(tmp_path, source)


@pytest.mark.parametrize("per_class", [{"a": 3, "b": 1}])
def test_a_class_too_small_to_split_is_refused(tmp_path: Path, per_class: dict[str, int]) -> None:
    with pytest.raises(UserError, match="class 'b' has 1 readable images, too few"):
        prepared(tmp_path, class_folders(tmp_path / "images", per_class))
    (tmp_path / "images" / "b" / "cut.png").write_bytes(b"\x89PNG")
    with pytest.raises(UserError, match=r"too few.*; set aside are 1, first b/cut\.png: "):
        prepared(tmp_path, tmp_path / "images")


def test_a_folder_of_bad_images_only_is_refused_with_the_first_reason(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "x.jpg").write_text("no image")
    with pytest.raises(UserError, match=r"none of the 1 images.*x.jpg: not an image"):
        prepared(tmp_path, tmp_path / "images")


def test_a_class_whose_training_images_are_all_bad_is_refused(tmp_path: Path) -> None:
    class_folders(tmp_path / "images" / "train", {"a": 2, "b": 2})
    class_folders(tmp_path / "images" / "test", {"a": 2, "b": 2}, start=10)
    for path in (tmp_path / "images" / "train" / "b").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match="class 'b'.*no readable training image"):
        prepared(tmp_path, tmp_path / "images")


def test_images_that_moved_away_are_set_aside_unless_the_run_keeps_them(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "images", {"a": 3, "b": 3})
    few = config.build({"data": {"size": 32}, "export": {"calibration_images": 2}})
    done = prepare(Run(tmp_path / "run"), few, str(source))
    assert (done.details["kept"], done.details["kept_calibration"]) == (2, 2)
    before = load(Run(tmp_path / "run"))
    expected = before.test.prepared(before.spec)
    calibrating = calibration.choose(before, 2, few.seed)
    source.rename(tmp_path / "elsewhere")
    data = load(Run(tmp_path / "run"))
    assert np.array_equal(data.test.prepared(data.spec), expected)  # the run keeps its test images
    assert calibration.choose(data, 2, few.seed).sha256 == calibrating.sha256  # and those that calibrate int8
    gone = set(before.train.names) - set(data.train.names)
    assert len(gone) == 2 and set(data.aside) == gone and all("No such file" in why for why in data.aside.values())


def test_an_image_that_was_edited_since_is_not_measured_on(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "images", {"a": 3, "b": 3})
    data = prepared(tmp_path, source)
    save(source / str(data.train.names[0]), 77)
    with pytest.raises(UserError, match="has changed since the run looked at it"):
        data.train.prepared(data.spec)


def test_a_test_image_that_was_edited_since_is_the_kept_one_or_refused(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "images", {"a": 3, "b": 3})
    data = prepared(tmp_path, source)
    expected = data.test.prepared(data.spec)
    replaced, edited = (source / str(name) for name in data.test.names[:2])
    replaced.unlink()
    save(replaced, 78)
    assert np.array_equal(load(Run(tmp_path / "run")).test.prepared(data.spec), expected)
    with open(edited, "r+b") as file:  # in place: the kept copy is a link to the same file
        file.truncate(100)
    with pytest.raises(UserError, match="has changed since"):
        data.test.prepared(data.spec)


def test_a_file_that_is_whole_in_its_header_only_is_found_in_a_set_of_any_size(tmp_path: Path) -> None:
    """Sets beyond 20,000 files were once checked by their headers, and such images tested on as grey."""
    source = class_folders(tmp_path / "images", {"a": 3, "b": 3}, height=40, width=40)
    Image.fromarray(photo(9, 40, 40)).save(source / "b" / "cut.png")
    whole = (source / "b" / "cut.png").read_bytes()
    (source / "b" / "cut.png").write_bytes(whole[: len(whole) // 3])
    values = describe(str(source), recipe())
    assert values["n_bad"] == 1 and values["bad"][0]["name"] == "b/cut.png"


def test_describing_names_classes_bad_files_and_splits(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "images", {"cat": 5, "dog": 5})
    (source / "dog" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    Image.fromarray(photo(1)).save(source / "cat" / "grey.png")
    text = describe_text(describe(str(source), recipe()))
    assert "cat" in text and "dog" in text and "dog/broken.jpg" in text and "held out" in text


def test_the_index_is_one_line_an_image(tmp_path: Path) -> None:
    prepared(tmp_path, class_folders(tmp_path / "images", {"a": 2, "b": 2}))
    lines = (tmp_path / "run" / "data" / "index.json").read_text().splitlines()
    items = [json.loads(line.strip().rstrip(",")) for line in lines if line.strip().startswith('{"name"')]
    assert len(items) == 4 and set(items[0]) == {"name", "sha256", "split", "label"}


def test_a_class_whose_training_images_are_all_copies_of_test_images_is_refused(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", {"cat": 4, "dog": 4})
    class_folders(tmp_path / "test", {"cat": 4, "dog": 2})
    for path in (tmp_path / "train" / "cat").iterdir():
        shutil.copy(path, tmp_path / "test" / "cat" / f"copy of {path.name}")
    with pytest.raises(UserError, match="every training image of class 'cat' .* is a copy of a test image"):
        examine(str(tmp_path), config.build({"data": {"size": 32}}))


def copies(run: Path, data: Data) -> list[Path]:
    """The kept files of the test images, each a file of its own."""
    found = [run / "data" / "images" / f"{sha256}.jpg" for sha256 in data.test.hashes]  # type: ignore[attr-defined]
    for path in found:
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    return found


def test_a_damaged_copy_in_the_run_costs_nothing_while_the_photo_is_there(tmp_path: Path) -> None:
    data = prepared(tmp_path, class_folders(tmp_path / "images", {"a": 3, "b": 3}))
    expected = data.test.prepared(data.spec)
    copies(tmp_path / "run", data)[0].write_bytes(b"\xff\xd8\xff bad sector")
    assert np.array_equal(load(Run(tmp_path / "run")).test.prepared(data.spec), expected)


def test_a_damaged_copy_in_the_run_is_named_and_not_the_photo_blamed(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "images", {"a": 3, "b": 3})
    data = prepared(tmp_path, source)
    copy = copies(tmp_path / "run", data)[0]
    copy.write_bytes(copy.read_bytes()[:-40])
    (source / str(data.test.names[0])).unlink()
    with pytest.raises(UserError) as caught:
        data.test.prepared(data.spec)
    line = str(caught.value)
    assert line.startswith(f"{copy}, the run's copy of {data.test.names[0]}, is damaged")
    assert "put either back" in line and "\n" not in line
