"""``label-issues`` and ``label-next`` on runs and on folders, with features of a network that saw no label."""

from __future__ import annotations

import csv
import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_run import SPEC, coloured_squares, toy  # noqa: F401

import softedge
from softedge import backbones, config
from softedge.commands import tables
from softedge.data import stamps
from softedge.data.images import ArrayImages, Data
from softedge.errors import UserError
from softedge.records import Result
from softedge.run import write_text
from softedge.stages import features
from softedge.stages import label_issues as issues
from softedge.stages import label_next as following
from softedge.stages.finetune import finetune

CLASSES = ("red", "green", "blue")


@pytest.fixture
def weights(tmp_path) -> list[str]:
    """--set for a small network whose weights lie in a file, on pictures of 32 pixels."""
    network = backbones.build(config.Backbone(name="mobilenetv3_small_050"), seed=3)
    backbones.save(tmp_path / "weights.safetensors", network, SPEC)
    return [
        "data.size=32",
        "data.workers=0",
        "backbone.name=mobilenetv3_small_050",
        f"backbone.weights={tmp_path / 'weights.safetensors'}",
    ]


def pictures(root: Path, n: int, unlabelled: int = 0, seed: int = 0) -> Path:
    """train/<colour>/*.png and, of the last ones, unlabeled/*.png"""
    images = coloured_squares(n, seed)
    for i, (image, label) in enumerate(zip(images.array, images.labels)):
        folder = root / ("unlabeled" if i >= n - unlabelled else f"train/{CLASSES[label]}")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i:03d}.png")
    return root


@pytest.fixture
def colours(monkeypatch) -> list[int]:
    """Mean and spread of each colour as features, in place of a network; how many images each call was about."""
    asked: list[int] = []

    def extract(backbone, images, spec, **options):
        asked.append(len(images))
        pixels = images.prepared(spec).reshape(len(images), -1, 3).astype(np.float32)
        return np.concatenate([pixels.mean(1), pixels.std(1)], 1)

    monkeypatch.setattr(features, "extract", extract)
    return asked


def mislabelled(data: Data, rows: list[int]) -> Data:
    labels = data.train.labels.copy()
    labels[rows] = (labels[rows] + 1) % 3
    train = ArrayImages(data.train.array, labels, data.train.names)
    return Data(data.source, data.classes, data.spec, train, train, data.test)


def part_labelled(data: Data, labelled: int) -> Data:
    """The first ones labelled, the others not."""
    labels = data.train.labels.copy()
    labels[labelled:] = -1
    everything = ArrayImages(data.train.array, labels, data.train.names)
    return Data(data.source, data.classes, data.spec, everything, everything.subset(range(labelled)), data.test)


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_wrong_labels_of_training_and_test_images_head_the_table(toy, colours):  # noqa: F811
    run, recipe, data = toy("run")
    data = mislabelled(data, [4, 20])
    data.test.labels = data.test.labels.copy()
    data.test.labels[7] = (data.test.labels[7] + 1) % 3
    result = issues.stage(run, recipe, data)
    rows = rows_of(run.folder("label_issues") / "wrong_labels.csv")
    assert {(row["split"], row["name"]) for row in rows[:3]} == {("train", "4"), ("train", "20"), ("test", "7")}
    first = rows[0]
    assert first["suggested"] != first["label"] and float(first["suggested_probability"]) > float(first["probability"])
    assert [int(row["rank"]) for row in rows] == list(range(1, len(rows) + 1))
    assert result.metrics["n_issues"] == len(rows) and result.metrics["n_labelled"] == 108
    assert "pretrained with light-moco" in result.details["features"]
    tested = [row["name"] for row in rows if row["split"] == "test"]
    assert result.metrics["n_test_issues"] == len(tested) > 0
    said = tables.label_issues(result)
    which = "of them is a test image" if len(tested) == 1 else "of them are test images"
    assert f"\n{len(tested)} {which} (column split): correct test labels only if you look at all" in said
    assert [line.split()[-1] for line in said.splitlines()[1:4]] == [row["split"] for row in rows[:3]]
    earlier = dataclasses.replace(result, metrics={**result.metrics, "n_test_issues": 0})
    assert "test image" not in tables.label_issues(earlier)
    with Image.open(run.folder("label_issues") / "pictures" / "1.png") as picture:
        shown = np.asarray(picture)
    of_split = data.train if first["split"] == "train" else data.test
    assert np.array_equal(shown, of_split.decode(list(of_split.names).index(first["name"])))


@pytest.mark.parametrize(("agreed", "size", "said"), [(0.67, 64, 2), (0.67, 160, 1), (0.67, 0, 1), (0.81, 64, 0)])
def test_a_list_of_weak_features_says_so_and_names_the_command_with_better_ones(tmp_path, agreed, size, said):
    """size: of the run; 0: a folder of images."""
    if size:
        recipe = config.build({"data": {"source": "my photos/", "size": size}})
        write_text(tmp_path / "recipe.toml", config.to_toml(recipe))
    found = Result("label_issues", "r", {"cv_top1": agreed, "n_issues": 75, "n_labelled": 300}, {}, {}, {}, "", 1.0)
    line = "weak features: most of these labels are probably right"
    better = "; better, at 160 pixels instead of 64: softedge label-issues 'my photos/'"
    assert issues.doubts(tmp_path, found) == [[], [line], [line + better]][said]


def test_features_that_were_damaged_since_are_made_again(tmp_path, weights, capsys):
    run = tmp_path / "run"
    issues.label_issues(pictures(tmp_path / "photos", 24), out=run, set=weights)
    path = run / features.FILE
    whole = path.read_bytes()
    with np.load(path) as file:
        other = {**file, "vectors": -file["vectors"]}
    for damage in (
        lambda: path.write_bytes(whole[:900]),
        lambda: path.write_bytes(b""),
        path.unlink,
        lambda: np.savez(path, **other),
    ):
        damage()
        issues.label_issues(run)
        assert path.read_bytes() == whole
        assert "was changed or damaged since it was made; made again" in capsys.readouterr().err
    issues.label_issues(run)
    assert "features: already done" in capsys.readouterr().err


def test_labels_that_have_changed_are_looked_at_again_and_nothing_else_is(toy, capsys, colours):  # noqa: F811
    run, recipe, data = toy("run")
    first = issues.stage(run, recipe, data)
    assert issues.stage(run, recipe, data) == first
    (run.folder("data") / "index.json").write_text('{"other": "labels"}')
    capsys.readouterr()
    again = issues.stage(run, recipe, mislabelled(data, [4]))
    assert again.inputs != first.inputs and again.details["issues"][0]["name"] == "4"
    assert "features: already done" in capsys.readouterr().err


@pytest.mark.parametrize("labels", [{0: 4, 1: 4, 2: 1}, {0: 1}], ids=["one image of a class", "one class"])
def test_the_round_after_a_few_labels_needs_no_test_split_and_training_still_does(tmp_path, weights, colours, labels):
    photos, images = tmp_path / "photos", coloured_squares(30, 0)
    photos.mkdir()
    table, left = "name,label\n", dict(labels)
    for i, (image, label) in enumerate(zip(images.array, images.labels.tolist())):
        Image.fromarray(image).save(photos / f"{i:03d}.png")
        if left.get(label, 0):
            table += f"{i:03d}.png,{CLASSES[label]}\n"
            left[label] -= 1
    (photos / "labels.csv").write_text(table)
    run, labelled = tmp_path / "run", sum(labels.values())
    result = following.label_next(photos, 5, run, weights)
    assert result.metrics == {
        "n_next": 5,
        "n_unlabelled": 30 - labelled,
        "n_labelled": labelled - 2 * (len(labels) > 1),
    }
    chosen = {row["name"] for row in rows_of(run / "label_next" / "label_next.csv")}
    assert len(chosen) == 5 and not any(name in table for name in chosen)
    if len(labels) > 1:
        found = issues.label_issues(photos, run, weights)
        assert found.metrics["n_labelled"] == 8 and found.skipped == {
            "class blue": "a single picture, nothing to compare it with"
        }
    for train in (lambda: finetune(run), lambda: softedge.deploy(str(photos), out=tmp_path / "other", set=weights)):
        with pytest.raises(
            UserError, match="class 'blue' has 1 readable image" if len(labels) > 1 else "only one class"
        ):
            train()


def test_an_image_is_asked_once_although_the_work_is_interrupted_or_images_come(toy, monkeypatch, colours):  # noqa: F811
    run, recipe, data = toy("run")
    whole = features.stage(toy("other")[0], recipe, data)
    real = features.extract

    def interrupted(*arguments, **options):
        if len(colours) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(features, "_PART", 20)
    monkeypatch.setattr(features, "extract", interrupted)
    colours.clear()
    with pytest.raises(KeyboardInterrupt):
        features.stage(run, recipe, data)
    monkeypatch.setattr(features, "extract", real)
    resumed = features.stage(run, recipe, data)
    assert colours == [20, 20, 8, 20, 20, 20]  # of 48 training and 60 test images
    assert np.array_equal(resumed.pretrain, whole.pretrain) and np.array_equal(resumed.test, whole.test)
    colours.clear()
    more = coloured_squares(70, 5)
    grown = Data(data.source, data.classes, data.spec, more, more, data.test)
    assert len(features.stage(run, recipe, grown).pretrain) == 70
    assert sum(colours) == 70


def test_a_network_that_was_trained_on_the_labels_is_not_asked(toy):  # noqa: F811
    run, recipe, data = toy("run")
    values = recipe.model_dump(mode="json") | {"ssl": {"method": "supervised"}}
    with pytest.raises(UserError, match="has learnt the wrong ones"):
        issues.stage(run, config.build(values), data)


def test_its_starting_weights_are_asked_instead(toy, weights):  # noqa: F811
    run, recipe, data = toy("run")
    given = weights[-1].partition("=")[2]
    network = {"name": "mobilenetv3_small_050", "weights": given}
    recipe = config.build(recipe.model_dump(mode="json") | {"ssl": {"method": "supervised"}, "backbone": network})
    actual = features.stage(run, recipe, data)
    expected = features.extract(backbones.load(Path(given)), data.train, data.spec)
    assert np.allclose(actual.pretrain, expected, atol=1e-5)
    assert "starting weights" in actual.origin and f"at {data.spec.size} pixels" in actual.origin


def test_a_film_in_which_all_frames_are_near_duplicates_is_no_family():
    contents = [str(i) for i in range(40)]
    labels = [0] * 20 + [1] * 20
    film = [(i, i + 1) for i in range(19)]
    two = [(25, 26)]
    families = issues._families(contents, labels, film + two)
    assert len(set(families[:20].tolist())) == 20
    assert families[25] == families[26] and len(set(families[20:].tolist())) == 19


def test_a_class_with_a_single_picture_is_left_out_and_named(toy, colours):  # noqa: F811
    run, recipe, data = toy("run")
    labels = np.where(data.train.labels == 2, 1, data.train.labels)
    labels[0] = 2
    train = ArrayImages(data.train.array, labels, data.train.names)
    nothing = data.test.subset([])
    result = issues.stage(run, recipe, Data(data.source, data.classes, data.spec, train, train, nothing))
    assert result.skipped == {"class blue": "a single picture, nothing to compare it with"}
    assert result.metrics["n_labelled"] == 47


def test_the_next_images_to_label_have_no_label_yet_and_a_longer_list_needs_force(toy, colours):  # noqa: F811
    run, recipe, data = toy("run")
    data = part_labelled(data, 9)
    result = following.stage(run, recipe, data, number=6)
    rows = rows_of(run.folder("label_next") / "label_next.csv")
    assert len({row["name"] for row in rows}) == 6 and {int(row["name"]) for row in rows} <= set(range(9, 48))
    assert {row["why"] for row in rows} == {"typical"} and {row["suggested"] for row in rows} <= set(CLASSES)
    assert result.metrics == {"n_next": 6, "n_unlabelled": 39, "n_labelled": 9}
    with pytest.raises(UserError, match="number: 6 -> 12.*--force"):
        following.stage(run, recipe, data, number=12)
    assert following.stage(run, recipe, data, force=True, number=12).metrics["n_next"] == 12


def test_with_enough_labels_the_uncertain_images_come(toy, colours):  # noqa: F811
    run, recipe, data = toy("run")
    following.stage(run, recipe, part_labelled(data, 36), number=5)
    assert {row["why"] for row in following.read(run)} == {"uncertain"}


def test_where_every_image_has_a_label_there_is_nothing_to_label(toy, colours):  # noqa: F811
    run, recipe, data = toy("run")
    with pytest.raises(UserError, match="every training image .* has a label"):
        following.stage(run, recipe, data)


def test_a_folder_without_labels_and_given_weights_are_enough(tmp_path, weights, colours):
    folder = tmp_path / "flat"
    folder.mkdir()
    for path in pictures(tmp_path / "all", 30).rglob("*.png"):
        shutil.copy(path, folder / path.name)
    result = following.label_next(folder, 6, tmp_path / "run", weights)
    rows = rows_of(tmp_path / "run" / "label_next" / "label_next.csv")
    assert len({row["name"] for row in rows}) == 6 and all((folder / row["name"]).is_file() for row in rows)
    assert {row["suggested"] for row in rows} == {""}
    assert "starting weights" in result.details["features"]
    with pytest.raises(UserError, match="no labelled images"):
        issues.label_issues(folder, tmp_path / "run", weights)


def test_a_folder_is_followed_when_its_labels_change(tmp_path, weights, colours):
    folder = pictures(tmp_path / "photos", 60, unlabelled=30)
    following.label_next(folder, 6, tmp_path / "run", weights)
    first = [row["name"] for row in rows_of(tmp_path / "run" / "label_next" / "label_next.csv")]
    for name in first:
        (folder / name).rename(folder / "train" / "red" / Path(name).name)
    following.label_next(folder, 6, tmp_path / "run", weights)
    second = [row["name"] for row in rows_of(tmp_path / "run" / "label_next" / "label_next.csv")]
    assert len(second) == 6 and not set(second) & set(first)
    found = issues.label_issues(folder, tmp_path / "run", weights)
    assert found.metrics["n_labelled"] == 36


def test_a_command_that_refuses_a_folder_leaves_nothing(tmp_path, weights, colours, monkeypatch):
    labelled = pictures(tmp_path / "labelled", 12)
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in labelled.rglob("*.png"):
        shutil.copy(path, flat / path.name)
    monkeypatch.setattr(stamps, "_FRESH_NS", 0)  # as of files that were there for long: their times are remembered
    with pytest.raises(UserError, match=f"every training image of {labelled} has a label"):
        following.label_next(labelled, 6, tmp_path / "run", weights)
    with pytest.raises(UserError, match=f"{flat} has no labelled images"):
        issues.label_issues(flat, tmp_path / "run", weights)
    assert not (tmp_path / "run").exists()
    following.label_next(flat, 6, tmp_path / "run", weights)
    with pytest.raises(UserError, match="no labelled images"):  # a run that was there stays
        issues.label_issues(flat, tmp_path / "run", weights)
    assert (tmp_path / "run" / "label_next" / "label_next.csv").is_file()


def test_the_list_is_followed_by_the_command_that_shows_it(tmp_path, weights, colours, capsys):
    folder, out = pictures(tmp_path / "my photos", 60, unlabelled=30), tmp_path / "run"
    for _ in range(2):  # done, and done before
        following.label_next(folder, 6, out, weights)
        line = f"softedge review '{folder}' --order {out / 'label_next' / 'label_next.csv'}\n"
        assert capsys.readouterr().err.endswith(line)


def test_random_weights_are_refused_before_anything_is_written(tmp_path, weights):
    folder = pictures(tmp_path / "photos", 12)
    with pytest.raises(UserError, match="random ones say nothing"):
        issues.label_issues(folder, tmp_path / "run", [*weights[:-1], "backbone.weights=random"])
    with pytest.raises(UserError, match="does not exist|not a folder|unknown"):
        issues.label_issues(tmp_path / "nothing", tmp_path / "run", weights)
    assert not (tmp_path / "run").exists()


def test_out_beside_a_run_is_refused(toy):  # noqa: F811
    run, recipe, _ = toy("run")
    (run.root / "recipe.toml").write_text(config.to_toml(recipe))
    with pytest.raises(UserError, match="--out is for a folder"):
        issues.label_issues(run.root, run.root.parent / "other")
