"""The server of softedge review: what windows may post, and what becomes of it; no browser needed."""

from __future__ import annotations

import io
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from asking import ask
from PIL import Image

from softedge.bench.browser.server import Refused
from softedge.data import decisions, label_table
from softedge.errors import UserError
from softedge.live import review as live
from softedge.live.review import Review
from softedge.live.review_order import Order, read

SESSION = "a" * 32


def pictures(root: Path, names: list[str], side: int = 8) -> Path:
    """One colour each, all different."""
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (side, side), (number % 256, number // 256, 90)).save(root / name)
    return root


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return pictures(tmp_path / "photos", ["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png", "loose.png"])


def decide(review: Review, image: int, state: str, label: str = "", seen: int = 0, since: int = 0) -> Any:
    values = {"image": image, "state": state, "label": label, "seen": seen, "since": since}
    return review.decide(json.dumps(values).encode())


def test_every_decision_is_in_the_file_before_it_is_answered(photos: Path) -> None:
    review = Review(photos)
    made = {"cat/0.png": ("label", "dog"), "cat/1.png": ("wrong", ""), "dog/0.png": ("duplicate", "")}
    for name, (state, label) in made.items():
        answer = decide(review, review.names.index(name), state, label)
        assert not answer["stale"]
        stored = decisions.read(photos)[name]
        assert (stored.state, stored.label) == (state, label) and stored.time.endswith("+00:00")


def test_nothing_else_in_the_folder_changes(photos: Path) -> None:
    before = {path: path.read_bytes() for path in photos.rglob("*") if path.is_file()}
    review = Review(photos)
    with live.page(review, Order()):
        decide(review, 0, "duplicate")
    after = {path: path.read_bytes() for path in photos.rglob("*") if path.is_file()}
    assert after.keys() - before.keys() == {photos / "labels.csv"}
    assert all(after[path] == data for path, data in before.items())


def test_a_second_start_knows_what_was_decided_and_undo_takes_it_back(photos: Path) -> None:
    first = decide(Review(photos), 2, "label", "lion")
    assert "lion" in first["classes"]
    again = Review(photos)
    start = again.start()
    assert start["changes"] == {2: ["label", "lion", 0]} and start["classes"] == ["cat", "dog", "lion"]
    assert decide(again, 2, "")["changes"][2][0] == ""
    assert decisions.read(photos) == {}


def test_a_window_that_has_not_seen_the_latest_decision_is_told(photos: Path) -> None:
    review = Review(photos)
    number = decide(review, 0, "label", "dog")["changes"][0][2]
    late = decide(review, 0, "wrong", seen=0)
    assert late["stale"] and late["changes"][0] == ["label", "dog", number]
    assert decisions.read(photos)["cat/0.png"].label == "dog"
    assert not decide(review, 0, "wrong", seen=number)["stale"]
    assert decisions.read(photos)["cat/0.png"].state == "wrong"


def test_many_windows_at_once_lose_no_decision(tmp_path: Path) -> None:
    photos = pictures(tmp_path / "photos", [f"{kind}/{i}.png" for kind in ("cat", "dog") for i in range(40)])
    review = Review(photos)
    barrier = threading.Barrier(8)

    def window(which: int) -> None:
        barrier.wait()
        for image in range(which, 80, 8):
            decide(review, image, "label", f"class {image}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(window, range(8)))
    stored = decisions.read(photos)
    assert {name: made.label for name, made in stored.items()} == {n: f"class {i}" for i, n in enumerate(review.names)}
    assert review.version == review.count == 80


def test_what_another_program_writes_meanwhile_is_kept(photos: Path) -> None:
    review = Review(photos)
    decide(review, 0, "label", "dog")
    table = label_table.read(photos).decided("dog/0.png", "wrong", "", "")
    label_table.write(photos, table)
    answer = decide(review, 1, "skip")
    assert answer["changes"][2][0] == "wrong"
    assert {name: made.state for name, made in decisions.read(photos).items()} == {
        "cat/0.png": "label",
        "cat/1.png": "skip",
        "dog/0.png": "wrong",
    }


def test_a_file_that_was_damaged_meanwhile_stops_decisions_and_is_left_alone(photos: Path) -> None:
    review = Review(photos)
    decide(review, 0, "label", "dog")
    (photos / "labels.csv").write_text('name,label\n"half')
    with pytest.raises(Refused, match=r"labels.csv cannot be read.*Nothing was saved") as refusal:
        decide(review, 1, "label", "dog")
    assert str(photos) not in refusal.value.reason
    assert (photos / "labels.csv").read_text() == 'name,label\n"half'


@pytest.mark.parametrize(
    ("text", "words"), [('name,label\n"half', "cannot be read"), ("id,breed\n1,pug\n", "it begins with 'id,breed'")]
)
def test_a_start_on_a_damaged_or_foreign_file_is_refused(photos: Path, text: str, words: str) -> None:
    (photos / "labels.csv").write_text(text)
    with pytest.raises(UserError, match=words):
        Review(photos)
    assert (photos / "labels.csv").read_text() == text


def test_rows_about_images_that_are_gone_stay_in_the_file(photos: Path) -> None:
    (photos / "labels.csv").write_text("name,label\ngone.png,cat\n")
    decide(Review(photos), 0, "wrong")
    assert decisions.read(photos)["gone.png"].label == "cat"


ANNOTATED = """\
\ufeffname;label;annotator;comment
cat/0.png;cat;anna;"a; ""quoted"" one"
cat/0.png;cat;bert;
cat/1.png;;anna;unsure

dog/0.png; ;bert;later
dog/1.png;dog; anna;
""".replace("\n", "\r\n")


def test_a_decision_changes_its_own_row_of_somebody_elses_table_and_no_other_byte(photos: Path) -> None:
    (photos / "labels.csv").write_bytes(ANNOTATED.encode())
    review = Review(photos)
    decide(review, 1, "label", "dog")
    assert (photos / "labels.csv").read_bytes().decode() == ANNOTATED.replace("cat/1.png;;", "cat/1.png;dog;")
    decide(review, 4, "label", "dog")  # an image that had no row
    expected = ANNOTATED.replace("cat/1.png;;", "cat/1.png;dog;") + "loose.png;dog;;\r\n"
    assert (photos / "labels.csv").read_bytes().decode() == expected


def test_a_state_adds_its_columns_and_keeps_the_rest_of_the_table(photos: Path) -> None:
    (photos / "labels.csv").write_bytes(ANNOTATED.encode())
    decide(Review(photos), 2, "wrong")
    lines = (photos / "labels.csv").read_bytes().decode().split("\r\n")
    before = ANNOTATED.split("\r\n")
    assert lines[0] == before[0] + ";state;time" and lines[4] == ""
    assert all(lines[i] == before[i] + ";;" for i in (1, 2, 3, 6))
    assert lines[5].startswith("dog/0.png;;bert;later;wrong;20")


def test_both_rows_about_an_image_follow_a_decision(photos: Path) -> None:
    (photos / "labels.csv").write_bytes(ANNOTATED.encode())
    decide(Review(photos), 0, "label", "dog")
    text = (photos / "labels.csv").read_bytes().decode()
    assert "cat/0.png;dog;anna;" in text and "cat/0.png;dog;bert;" in text and ";cat;" not in text
    assert decisions.read(photos)["cat/0.png"].label == "dog"


def test_undo_gives_back_what_stood_there(photos: Path) -> None:
    (photos / "labels.csv").write_bytes(ANNOTATED.encode())
    review = Review(photos)
    seen = {}
    for image, label in ((0, "dog"), (1, "lion"), (4, "cat"), (3, "cat")):
        seen[image] = decide(review, image, "label", label)["changes"][image][2]
    for image, state, label in ((3, "label", "dog"), (4, "", ""), (1, "", ""), (0, "label", "cat")):
        decide(review, image, state, label, seen[image])
    assert (photos / "labels.csv").read_bytes().decode() == ANNOTATED


def test_taking_back_an_earlier_sessions_decision_keeps_other_columns(photos: Path) -> None:
    (photos / "labels.csv").write_bytes(ANNOTATED.encode())
    review = Review(photos)
    decide(review, 3, "")
    assert (photos / "labels.csv").read_bytes().decode() == ANNOTATED.replace("dog/1.png;dog; anna", "dog/1.png;;anna")


def test_a_last_line_without_an_end_is_not_continued(photos: Path) -> None:
    (photos / "labels.csv").write_text("sep=\t\nName\tLabel\ncat/0.png\tdog")
    decide(Review(photos), 1, "label", "dog")
    text = (photos / "labels.csv").read_text()
    assert text == "sep=\t\nName\tLabel\ncat/0.png\tdog\ncat/1.png\tdog\n"


def test_a_value_of_two_lines_stays_one_value(photos: Path) -> None:
    (photos / "labels.csv").write_text('name,label,comment\ncat/0.png,,"two\nlines"')
    decide(Review(photos), 0, "label", "dog")
    assert (photos / "labels.csv").read_text() == 'name,label,comment\ncat/0.png,dog,"two\nlines"'


def test_rows_that_disagree_are_refused_at_the_start(photos: Path) -> None:
    text = ANNOTATED.replace("cat/0.png;cat;bert", "cat/0.png;dog;bert")
    (photos / "labels.csv").write_bytes(text.encode())
    with pytest.raises(UserError, match="about cat/0.png: line 2 says 'cat', line 3 'dog'"):
        Review(photos)
    assert (photos / "labels.csv").read_bytes().decode() == text


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"[]",
        b"[" * 3000,
        {"image": 9, "state": "wrong"},
        {"image": -1, "state": "wrong"},
        {"image": True, "state": "wrong"},
        {"image": 0, "state": "perhaps"},
        {"image": 0, "state": "label", "label": ""},
        {"image": 0, "state": "label", "label": " \n "},
        {"image": 0, "state": "label", "label": "a\nb"},
        {"image": 0, "state": "label", "label": "x" * 101},
        {"image": 0, "state": "label", "label": 3},
        {"image": 0, "state": "label", "label": "Cat"},
    ],
)
def test_anything_else_is_refused_and_nothing_is_written(photos: Path, sent: Any) -> None:
    body = sent if isinstance(sent, bytes) else json.dumps({"seen": 0, "since": 0, **sent}).encode()
    with pytest.raises(Refused):
        Review(photos).decide(body)
    assert not (photos / "labels.csv").exists()


def test_a_second_review_of_a_folder_is_refused_until_the_first_has_ended(photos: Path) -> None:
    pytest.importorskip("fcntl")
    second = live.page(Review(photos), Order())
    with live.page(Review(photos), Order()), pytest.raises(UserError, match="another softedge review"):
        second.__enter__()
    with live.page(Review(photos), Order()):
        pass


def test_an_outsider_gets_nothing_and_the_page_names_no_place(photos: Path) -> None:
    with live.page(Review(photos), Order()) as server:
        for path in ("/", "/start.json", f"/{server.token}", f"/{server.token}x/", f"/{server.token}/../cat/0.png"):
            assert ask(server.port, "GET", path)[0] == 404, path
        for name in server.pages:
            status, content, headers = ask(server.port, "GET", f"/{server.token}/{name}")
            assert status == 200 and str(photos.parent).encode() not in content
            assert "script-src 'self'" in headers and "unsafe-inline" not in headers
        assert b"style=" not in ask(server.port, "GET", f"/{server.token}/")[1]
        body = json.dumps({"image": 0, "state": "wrong", "label": "", "seen": 0, "since": 0}).encode()
        good = f"/{server.token}/decide?s={SESSION}"
        assert ask(server.port, "POST", f"/decide?s={SESSION}", body)[0] == 404
        assert ask(server.port, "POST", good.partition("?")[0], body)[0] == 403
        assert ask(server.port, "POST", good, body, Origin="http://elsewhere.test")[0] == 403
        assert ask(server.port, "POST", good, b" " * (live.AT_MOST + 1))[0] == 413
        assert not (photos / "labels.csv").exists()
        assert ask(server.port, "POST", good, body)[0] == 200
        assert ask(server.port, "POST", good.replace("a" * 32, "b" * 32), body)[0] == 200  # another window


def test_pictures_are_made_on_demand_and_a_bounded_number_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = pictures(tmp_path / "photos", [f"{i}.png" for i in range(4)], side=1300)
    monkeypatch.setattr(live, "_CACHED", 2)
    review = Review(photos)
    assert not review._pictures
    for image in range(4):
        with Image.open(io.BytesIO(review.picture(image))) as made:
            assert made.format == "JPEG" and made.size == (1024, 1024)
    assert list(review._pictures) == [2, 3]


def test_an_image_that_is_gone_or_no_picture_is_said_without_its_place(photos: Path) -> None:
    review = Review(photos)
    (photos / "cat/0.png").unlink()
    (photos / "cat/1.png").write_text("no picture")
    with live.page(review, Order()) as server:
        for image in (0, 1):
            status, content, _ = ask(server.port, "GET", f"/{server.token}/picture/{image}")
            assert status == 410 and b"error" in content and str(photos).encode() not in content
    assert not decide(review, 0, "wrong")["stale"]


def test_the_order_of_a_table_with_its_suggestions_and_pairs(tmp_path: Path) -> None:
    index = {"a.jpg": 0, "b.jpg": 1, "c.jpg": 2}
    (tmp_path / "wrong_labels.csv").write_text(
        "name,label,suggested\nc.jpg,cat,dog\nx.jpg,cat,dog\na.jpg,dog,\nc.jpg,cat,dog\n"
    )
    order = read(tmp_path / "wrong_labels.csv", index)
    assert (order.images, order.suggested, order.missing) == ([2, 0], {2: "dog"}, 1)
    (tmp_path / "near.csv").write_text("kind,similarity,name,other_name\nleak,0.99,c.jpg,b.jpg\nsame,0.9,a.jpg,x.jpg\n")
    order = read(tmp_path / "near.csv", index)
    assert (order.pairs, order.missing, order.images) == ([(2, 1, "leak")], 1, [])
    assert order.tested == []


def test_test_images_that_a_run_held_out_are_those_of_the_table(tmp_path: Path) -> None:
    """Folders without a test split do not tell."""
    index = {"a.jpg": 0, "b.jpg": 1, "c.jpg": 2}
    (tmp_path / "wrong_labels.csv").write_text("name,split\nc.jpg,test\nx.jpg,test\na.jpg,train\n")
    assert read(tmp_path / "wrong_labels.csv", index).to_dict()["tested"] == [2]
    (tmp_path / "near.csv").write_text(
        "name,split,other_name,other_split\na.jpg,train,b.jpg,test\nc.jpg,test,a.jpg,train\n"
    )
    assert read(tmp_path / "near.csv", index).to_dict()["tested"] == [1, 2]


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "is empty"), ("file,label\na,b\n", "no column name"), ("name\nx.jpg\n", "names no image"), (None, "cannot")],
)
def test_a_table_that_gives_no_order_is_refused(tmp_path: Path, text: str | None, words: str) -> None:
    if text is not None:
        (tmp_path / "order.csv").write_text(text)
    with pytest.raises(UserError, match=words):
        read(tmp_path / "order.csv", {"a.jpg": 0})


def test_a_folder_that_cannot_be_written_to_is_refused_at_the_start(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from softedge.stages.review import review

    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UserError, match="cannot be written to"):
        review(photos)
