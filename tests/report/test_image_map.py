"""The map of the images and the pairs of near-duplicates, as the report shows them."""

from __future__ import annotations

import base64
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic_extras
import synthetic_run
from PIL import Image

from softedge.report import image_map, near_copies, report
from softedge.report.schema import Report
from softedge.run import Run

sys.path.insert(0, str(Path(__file__).parents[1] / "live"))  # chromium

from chromium import PROGRAM, Chromium


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = synthetic_run.make(tmp_path_factory.mktemp("mapped") / "run")
    synthetic_extras.add_map(run, 60)
    report([run])
    return run


def page_of(run: Run) -> str:
    return (run.root / "report.html").read_text()


def test_every_image_is_one_button_with_its_class_in_words(mapped: Run) -> None:
    page = page_of(mapped)
    values = json.loads((mapped.root / "report.json").read_text())
    Report.model_validate(values)
    stored = values["runs"][0]["map"]
    assert page.count('type="radio"') == stored["n"] == 60
    assert page.count("data:image/jpeg;base64,") == 1  # one picture for all thumbnails
    assert 'aria-label="photos/&lt;3&gt;.jpg: 3, test image, likely 4"' in page
    assert 'aria-label="photos/7.jpg: no label"' in page
    assert "<3>.jpg" not in page


def test_the_page_has_no_script_and_a_bounded_size(mapped: Run) -> None:
    page = page_of(mapped)
    assert "<script" not in page and "url(" not in page and not re.search(r"\son[a-z]+=", page)
    values = image_map.collect(mapped)
    assert values is not None
    many = {**values, **{key: 33 * values[key] for key in ("x", "y", "names", "labels", "tested")}}
    sheet = "data:image/jpeg;base64," + base64.b64encode(bytes(1_200_000)).decode()
    assert len(image_map.draw("m", many, sheet)) < 3_000_000  # 1,980 images with the largest sheet


def test_the_legend_names_what_there_is(mapped: Run) -> None:
    values = image_map.collect(mapped)
    assert values is not None
    texts = [text for _, text in image_map.legend(values)]
    assert texts == [*values["classes"], "no label", "test image", "label probably wrong"]
    plain: dict[str, Any] = {**values, "labels": [0] * 60, "tested": [False] * 60, "suggested": {}}
    assert [text for _, text in image_map.legend(plain)] == values["classes"]


@pytest.mark.parametrize("damage", ["map/map.json", "map/thumbnails.jpg", "label_issues/wrong_labels.csv"])
def test_a_damaged_file_costs_its_part_only(tmp_path: Path, damage: str) -> None:
    run = synthetic_run.make(tmp_path / "run")
    synthetic_extras.add_map(run, 20)
    (run.root / damage).write_bytes(b'\xff"name')
    report([run])
    page = page_of(run)
    assert ("data:image/jpeg" in page) == (damage == "label_issues/wrong_labels.csv")
    assert ('type="radio"' in page) == (damage != "map/map.json")


def test_a_run_without_a_map_has_no_section(tmp_path: Path) -> None:
    run = synthetic_run.make(tmp_path / "run")
    report([run])
    assert "Map of the images" not in page_of(run)


def add_pairs(run: Run, photos: Path, rows: list[tuple[str, float, str, str, str, str, str, str]]) -> None:
    header = "kind,similarity,name,split,label,other_name,other_split,other_label"
    text = "\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n"
    (run.root / "data/near_copies.csv").write_text(text)
    path = run.root / "data/result.json"
    stored = json.loads(path.read_text())
    stored["details"]["root"] = str(photos)
    path.write_text(json.dumps(stored))


def test_near_duplicates_are_pictures_leaks_first_at_most_twelve_pairs(tmp_path: Path) -> None:
    run = synthetic_run.make(tmp_path / "run")
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(30):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"{number}.jpg")
    pairs = [("same", 0.99, "0.jpg", "train", "a", "1.jpg", "train", "a")]
    pairs += [("two labels", 0.9, f"{i}.jpg", "train", "a", f"{i + 1}.jpg", "train", "b") for i in range(2, 16, 2)]
    pairs += [("leak", 0.95, f"{i}.jpg", "duplicate", "a", f"{i + 1}.jpg", "test", "a") for i in range(16, 28, 2)]
    pairs += [("leak", 0.95, "28.jpg", "duplicate", "a", "gone.jpg", "test", "a")]
    add_pairs(run, photos, pairs)
    report([run])
    values = json.loads((run.root / "report.json").read_text())["runs"][0]["near_copies"]
    assert values["counts"] == {"same": 1, "two labels": 7, "leak": 7}
    assert [pair["kind"] for pair in values["pairs"]] == ["leak"] * 7 + ["two labels"] * 5
    assert str(tmp_path) not in page_of(run) and str(tmp_path) not in (run.root / "report.json").read_text()
    section = page_of(run).partition('<ul class="pictures near">')[2].partition("</ul>")[0]
    assert section.count("<img") == 23 and section.count("no picture") == 1
    assert section.index("16.jpg") < section.index("2.jpg<")


@pytest.mark.parametrize("text", ["", "kind\nleak\n", "kind,similarity,name\nleak,x,y\n", '"half'])
def test_a_damaged_table_of_pairs_is_left_out(tmp_path: Path, text: str) -> None:
    run = synthetic_run.make(tmp_path / "run")
    (run.root / "data/near_copies.csv").write_text(text)
    assert near_copies.collect(run) is None
    report([run])


@pytest.mark.hardware
@pytest.mark.skipif(PROGRAM is None, reason="needs Chromium (apt-get install chromium)")
@pytest.mark.parametrize("width", [390, 1280])
def test_a_thumbnail_is_shown_by_pointer_by_tap_and_by_keys_inside_the_map(
    mapped: Run, tmp_path: Path, width: int
) -> None:
    shown = "[...document.querySelectorAll('.map span')].filter(s => s.checkVisibility()).map(s => s.textContent)"
    with Chromium(tmp_path / "profile") as browser:
        browser.phone(width=width)
        browser.open((mapped.root / "report.html").as_uri())
        browser.wait("document.querySelectorAll('.map input').length === 60")
        browser.run("document.querySelector('.map').scrollIntoView({ block: 'center', behavior: 'instant' })")
        assert browser.run(shown) == []
        browser.run("document.querySelector('.map input').focus()")
        seen = []
        for _ in range(4):
            for kind in ("keyDown", "keyUp"):
                browser.call("Input.dispatchKeyEvent", type=kind, key="ArrowRight", windowsVirtualKeyCode=39)
            (text,) = browser.run(shown)
            seen.append(text)
        names = image_map.collect(mapped)["names"]  # type: ignore[index]
        assert all(text.endswith(name) for text, name in zip(seen, names[1:5]))
        dot = "document.querySelectorAll('.map input')[30].getBoundingClientRect()"
        x, y = browser.run(f"(b => [b.x + b.width / 2, b.y + b.height / 2])({dot})")
        browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        (text,) = browser.run(shown)  # the pointed one hides the one that the keys have chosen
        assert names[30] in text
        outside = """[...document.querySelectorAll('.map label')].filter(label => {
            label.querySelector('input').click();
            const box = label.querySelector('span').getBoundingClientRect();
            return box.left < 0 || box.right > innerWidth;
        }).length"""
        browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
        assert browser.run(outside) == 0
        assert browser.requested()[1:] == [url for url in browser.requested()[1:] if url.startswith("data:")]
