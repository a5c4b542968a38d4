"""labels.csv: what is read, what is refused, and what it does to a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pictures import class_folders, save

from softedge import config
from softedge.data import decisions, describe_text, folders, label_table
from softedge.data.decisions import Decision
from softedge.data.shrinking import shrink
from softedge.errors import UserError
from softedge.live.review import Review
from softedge.run import Run, read_json
from softedge.stages.data import inspect, prepare
from softedge.stages.deploy import deploy
from softedge.stages.plan import plan


def labels_of(root: Path) -> dict[str, str | None]:
    """Image -> class as a run would read the folder; None without a label."""
    inventory = folders.find(root, "folder")
    return {
        name: inventory.classes[label] if label >= 0 else None
        for images in inventory.splits.values()
        for name, label in zip(images.names, images.labels.tolist())
    }


def write(root: Path, text: str) -> Path:
    (root / "labels.csv").write_text(text)
    return root


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "photos", {"cat": 3, "dog": 3})


def test_a_label_replaces_the_folders_and_wrong_images_take_no_part(photos: Path) -> None:
    text = "name,label,state,time\ncat/0.jpg,dog,label,\ncat/1.jpg,,wrong,\ndog/0.jpg,,duplicate,\ndog/1.jpg,,skip,\n"
    assert labels_of(write(photos, text)) == {
        "cat/0.jpg": "dog",
        "cat/2.jpg": "cat",
        "dog/1.jpg": "dog",
        "dog/2.jpg": "dog",
    }


def test_a_flat_folder_gets_its_classes_from_the_table(tmp_path: Path) -> None:
    for number in range(6):
        save(tmp_path / "photos" / f"{number}.jpg", number)
    root = write(tmp_path / "photos", "name,label\n0.jpg,cat\n1.jpg,dog\n2.jpg,cat\n3.jpg,\n")
    inventory = folders.find(root, "folder")
    assert inventory.classes == ("cat", "dog")
    assert list(inventory.splits["train"].names) == ["0.jpg", "1.jpg", "2.jpg"]
    assert list(inventory.splits["unlabelled"].names) == ["3.jpg", "4.jpg", "5.jpg"]


def test_an_unlabelled_image_of_a_split_data_set_comes_to_the_training_images(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", {"cat": 2, "dog": 2})
    class_folders(tmp_path / "test", {"cat": 1, "dog": 1}, start=10)
    save(tmp_path / "unlabeled" / "0.jpg", 20)
    write(tmp_path, "name,label\nunlabeled/0.jpg,dog\ntest/cat/0.jpg,dog\n")
    inventory = folders.find(tmp_path, "folder")
    assert "unlabeled/0.jpg" in inventory.splits["train"].names and "unlabelled" not in inventory.splits
    np.testing.assert_array_equal(inventory.splits["test"].labels, [1, 1])


def test_data_says_what_the_table_did(photos: Path) -> None:
    write(
        photos,
        "name,label,state\ncat/0.jpg,dog,label\ndog/1.jpg,,wrong\ndog/0.jpg,dog,label\nelsewhere.jpg,cat,label\n",
    )
    text = describe_text(inspect(str(photos)))
    assert "2 labels, 1 of them different from the folders'" in text
    assert "1 image marked as wrong and set aside" in text and "1 row about an image that is not here" in text
    assert "5 images" in text and "not images" not in text


@pytest.mark.parametrize(
    "text",
    [
        "name,label\r\ncat/0.jpg,dog\r\n",
        "\ufeffname;label;state\ncat/0.jpg;dog;label\n",
        'label,comment,name\n dog ,"a, b",cat/0.jpg\n\n',
        "name,label\ncat/0.jpg,dog\ncat/0.jpg,dog\n",
        "name,label\ncat\\0.jpg,dog\n",
        "name,label\nROOT/cat/0.jpg,dog\n",
        "name,label\n./cat/0.jpg,dog\n",
        "name\tlabel\ncat/0.jpg\tdog\n",
        "sep=;\nname;label\ncat/0.jpg;dog\n",
        '\ufeff"sep=,"\r\nname,label\r\ncat/0.jpg,dog\r\n',
        "sep=\t\nname\tlabel\ncat/0.jpg\tdog\n",
        "Name,LABEL\ncat/0.jpg,dog\n",
        'name, label\ncat/0.jpg, "dog"\n',
        '"a,b,c";name;label\n;cat/0.jpg;dog\n',
        "\nname,label\ncat/0.jpg,dog\n",
    ],
    ids=(
        "windows, spreadsheet, order and comment, twice the same, backslashes, absolute, dot, tabs, sep line, "
        "sep line in quotes, sep of tabs, capitals, spaces, commas in a title, blank line"
    ).split(", "),
)
def test_tables_as_other_programs_write_them_are_read(photos: Path, text: str) -> None:
    assert labels_of(write(photos, text.replace("ROOT", str(photos))))["cat/0.jpg"] == "dog"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty; its first row has to name the columns 'name'"),
        (b"filename,label\ncat/0.jpg,dog\n", "begins with 'filename,label'"),
        (b"name,lable\ncat/0.jpg,dog\n", "begins with 'name,lable'"),
        ("name,label\ncat/0.jpg,dog\n".encode("utf-16"), "UTF-16 or no text; save it as UTF-8"),
        ("name,label\ncat/0.jpg,dog\n".encode("utf-16-le"), "UTF-16 or no text; save it as UTF-8"),
        ("name,label\ncat/0.jpg,kätzchen\n".encode("cp1252"), "line 2 has the byte 0xe4, which is no UTF-8; save"),
        (b"name,label,label\ncat/0.jpg,cat,dog\n", "has 2 columns 'label'"),
        (b"name,Label,label \ncat/0.jpg,dog,\n", "has 2 columns 'label'"),
        (b"name,label,name\ncat/0.jpg,dog,x\n", "has 2 columns 'name'"),
        (b"name,label,state,state\ncat/0.jpg,dog,,\n", "has 2 columns 'state'"),
    ],
)
def test_what_is_no_table_of_labels_is_refused_by_every_command(photos: Path, data: bytes, words: str) -> None:
    (photos / "labels.csv").write_bytes(data)
    for command in (
        inspect,
        plan,
        lambda data: deploy(data, out=photos.parent / "run"),
        lambda data: Review(Path(data)),
    ):
        with pytest.raises(UserError, match=words) as refusal:
            command(str(photos))
        assert "\n" not in str(refusal.value)
    assert (photos / "labels.csv").read_bytes() == data


@pytest.mark.parametrize("text", ["id,breed\n0,beagle\n", "0001.jpg;3\n", "no table\n"])
def test_a_table_of_somebody_else_is_passed_over_in_class_folders_with_a_line(photos: Path, text: str) -> None:
    """Kaggle's, say: it was refused.  Without class folders it may be what the labels are meant to be read from."""
    folders_alone = labels_of(photos)
    write(photos, text)
    assert labels_of(photos) == folders_alone
    found = inspect(str(photos))
    line = "labels.csv is not read, it has no columns 'name' and 'label': the folders are the classes"
    assert line in found["notices"] and found["ignored"] == {"not images": 1}
    with pytest.raises(UserError, match="is no table of labels"):  # it would be written to
        Review(photos)
    flat = photos.parent / "flat"
    flat.mkdir()
    for path in (photos / "cat").iterdir():
        path.rename(flat / path.name)
    with pytest.raises(UserError, match=r"is no table of labels: it begins with .* Rename the columns, or the file"):
        labels_of(write(flat, text))
    assert (photos / "labels.csv").read_text() == text


def test_a_table_of_somebody_else_is_no_cure_for_a_copied_folder(photos: Path) -> None:
    write(photos, "id,breed\n")
    for path in (photos / "cat").iterdir():
        (photos / "dog" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(UserError, match="every picture of class '.*' is in another class, too .*; remove one of the"):
        inspect(str(photos))


def test_two_columns_of_somebody_else_may_have_one_name(photos: Path) -> None:
    assert labels_of(write(photos, "name,label,,\ncat/0.jpg,dog,,\n"))["cat/0.jpg"] == "dog"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "name,label\ncat/0.jpg,dog\ncat/0.jpg,cat\n",
            "contradicts itself about cat/0.jpg: line 2 .*'dog', line 3 'cat'",
        ),
        ("name,label,state\ncat/0.jpg,dog,perhaps\n", "line 2: the state 'perhaps' is not one of"),
        ("name,label,state\ncat/0.jpg,,label\n", "line 2: the state is 'label', and the label is empty"),
        ("name,label\ncat/0.jpg\n", "line 2: 1 values for 2 columns"),
        ('name,label\ncat/0.jpg,"dog\n', "cannot be read"),
    ],
)
def test_what_cannot_be_meant_is_refused(photos: Path, text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        labels_of(write(photos, text))


def test_a_single_class_is_shown_and_refused_by_training(photos: Path) -> None:
    write(photos, "name,label\n" + "".join(f"cat/{i}.jpg,dog\n" for i in range(3)))
    assert "not ready for training: with " in describe_text(inspect(str(photos)))
    for command in (plan, lambda data: deploy(data, out=photos.parent / "run")):
        with pytest.raises(UserError, match=r"only one class \('dog'\); label images of another one: softedge review"):
            command(str(photos))


def test_a_label_that_a_copy_contradicts_is_corrected_in_the_table(photos: Path) -> None:
    (photos / "cat" / "copy.jpg").write_bytes((photos / "cat" / "0.jpg").read_bytes())
    write(photos, "name,label\ncat/copy.jpg,lion\n")
    with pytest.raises(
        UserError, match=r"every picture of class 'lion' .*; correct the labels in labels.csv: softedge"
    ):
        inspect(str(photos))


def test_bytes_that_are_no_text_are_refused(photos: Path) -> None:
    (photos / "labels.csv").write_bytes(b"name,label\n\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read"):
        labels_of(photos)


def test_a_table_that_sets_everything_aside_is_refused(photos: Path) -> None:
    names = [f"{kind}/{i}.jpg" for kind in ("cat", "dog") for i in range(3)]
    write(photos, "name,label,state\n" + "".join(f"{name},,wrong\n" for name in names))
    with pytest.raises(UserError, match="sets every training image aside"):
        labels_of(photos)


def test_a_class_with_test_images_only_is_refused(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", {"cat": 2, "dog": 2})
    class_folders(tmp_path / "test", {"cat": 1, "dog": 1}, start=10)
    write(tmp_path, "name,label\ntest/cat/0.jpg,lion\n")
    with pytest.raises(UserError, match="without a training image"):
        labels_of(tmp_path)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    made = {
        'a "b", c.jpg': Decision("label", "häuser; klein", "2026-01-01T00:00:00+00:00"),
        "b.jpg": Decision("wrong", "", "2026-01-02T00:00:00+00:00"),
    }
    table = label_table.read(tmp_path)
    for name, decision in made.items():
        table = table.decided(name, decision.state, decision.label, decision.time)
    label_table.write(tmp_path, table)
    assert decisions.read(tmp_path) == made
    assert [path.name for path in tmp_path.iterdir()] == ["labels.csv"]


def test_a_smaller_copy_keeps_the_decisions(photos: Path, tmp_path: Path) -> None:
    write(photos, "name,label\ncat/0.jpg,dog\n")
    shrink(str(photos), tmp_path / "small", config.load("small-domain"))
    assert labels_of(tmp_path / "small")["cat/0.jpg"] == "dog"


def test_a_run_names_the_images_whose_label_was_changed_since(photos: Path, tmp_path: Path) -> None:
    run, recipe = Run(tmp_path / "run"), config.load("small-domain")
    assert prepare(run, recipe, str(photos)).metrics["n_classes"] == 2
    write(photos, "name,label,state\ncat/0.jpg,dog,label\ndog/1.jpg,,wrong\n")
    changes = r"1 left out now \(dog/1.jpg\), 1 changed \(cat/0.jpg\); softedge deploy --update"
    with pytest.raises(UserError, match=changes):
        prepare(run, recipe, str(photos))
    prepare(run, recipe, str(photos), force=True)
    items = {row["name"]: row["label"] for row in read_json(run.folder("data") / "index.json")["items"]}
    assert items["cat/0.jpg"] == 1 and "dog/1.jpg" not in items
