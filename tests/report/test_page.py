from __future__ import annotations

import html.parser
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import synthetic_run

from softedge.report import charts, facts, phrases, prose, report, words
from softedge.report.collect import collect
from softedge.run import Run

VOID = {"meta", "br", "img", "hr", "input", "link"}
URL_ATTRIBUTES = ("src", "href", "srcset", "poster", "action", "data", "xlink:href")


class Page(html.parser.HTMLParser):
    """Checks the nesting while reading, and keeps every element with its attributes and text."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.open: list[dict[str, Any]] = []
        self.elements: list[dict[str, Any]] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {[e['tag'] for e in self.open]}"

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        element = {
            "tag": tag,
            "at": dict(attributes),
            "text": "",
            "inside": [e["tag"] for e in self.open],
            "children": [],
        }
        if self.open:
            self.open[-1]["children"].append(element)
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1]["tag"] == tag, (
            f"</{tag}> closes {self.open[-1]['tag'] if self.open else '-'}"
        )
        self.open.pop()

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element["text"] += data

    def all(self, *tags: str) -> list[dict[str, Any]]:
        return [element for element in self.elements if element["tag"] in tags]


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        yield from itertools.chain.from_iterable(map(numbers, value))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield float(value)


@pytest.fixture(scope="module")
def page(full: Run) -> Page:
    return Page((full.root / "report.html").read_text())


@pytest.fixture(scope="module")
def values(full: Run) -> dict[str, Any]:
    return json.loads((full.root / "report.json").read_text())


def test_the_page_is_one_file_that_needs_no_other(full: Run, page: Page) -> None:
    text = (full.root / "report.html").read_text()
    for element in page.elements:
        assert element["tag"] not in ("script", "link", "iframe", "object", "embed", "base")
        for name in URL_ATTRIBUTES:
            target = element["at"].get(name)
            assert target is None or target.startswith(("data:image/png;base64,", "data:image/jpeg;base64,", "#")), (
                target
            )
    assert "@import" not in text and "url(" not in text
    assert not re.search(r"https?://", text.replace("http://www.w3.org/2000/svg", ""))


def test_every_number_of_the_page_is_in_report_json(page: Page, values: dict[str, Any]) -> None:
    known = set(numbers(values))
    shown = page.all("data")
    assert len(shown) > 200
    for element in shown:
        assert float(element["at"]["value"]) in known, element


def test_what_was_measured_on_the_device_before_training_is_a_table(tmp_path: Path) -> None:
    run = synthetic_run.make(tmp_path / "limited")
    fits = [
        {"network": "tf_efficientnet_lite0", "size": 64, "p90_ms": 2.5, "megabytes": 3.437, "met": False},
        {"network": "mobilenetv3_small_100", "size": 224, "p90_ms": None, "megabytes": 1.75, "met": True},
    ]
    (run.root / "plan.json").write_text(json.dumps({"network": "tf_efficientnet_lite0", "fits": fits}))
    report([run])
    page = Page((run.root / "report.html").read_text())
    known = set(numbers(json.loads((run.root / "report.json").read_text())))
    assert len([e for e in page.all("table") if "Untrained networks" in e["text"]]) == 1
    rows = [
        e["text"] for e in page.all("tr") if e["text"].startswith(("tf_efficientnet_lite0", "mobilenetv3_small_100"))
    ]
    assert "2.50\u202fms" in rows[0] and rows[0].endswith("not met")
    assert "not asked for" in rows[1] and rows[1].endswith("MBmet")
    assert all(float(e["at"]["value"]) in known for e in page.all("data")) and 3_437_000.0 in known
    (run.root / "plan.json").write_text("{damaged")
    report([run])
    assert "Untrained networks" not in (run.root / "report.html").read_text()


def test_files_refused_for_the_same_reason_share_a_row_of_what_failed() -> None:
    low = "top-1 0.{0} is below the least accuracy 0.9"
    files = [
        {"artifact": "onnx-fp32", "gate": "failed", "why": low.format(81)},
        {"artifact": "coreml-int8", "gate": "failed", "why": low.format(79), "superseded_by": "coreml-int8-search"},
        {"artifact": "onnx-int8", "gate": "failed"},
        {"artifact": "ncnn-fp32", "gate": "passed", "why": ""},
    ]
    assert facts.refused(files) == [
        ("ONNX fp32, Core ML int8 (replaced by Core ML int8-search)", low.format("79 to 0.81")),
        ("ONNX int8", ""),
    ]


def test_every_number_in_a_table_carries_its_exact_value(page: Page) -> None:
    for cell in page.all("td"):
        if "num" in (cell["at"].get("class") or "").split() and cell["text"].strip() not in ("", "not run"):
            assert any(child["tag"] in ("data", "span") for child in cell["children"]), cell["text"]


def test_links_inside_the_page_lead_somewhere_and_ids_are_unique(page: Page) -> None:
    ids = [element["at"]["id"] for element in page.elements if "id" in element["at"]]
    assert len(ids) == len(set(ids))
    for link in page.all("a"):
        assert link["at"]["href"][1:] in ids
    for element in page.elements:
        for name in ("aria-labelledby", "aria-describedby"):
            assert all(i in ids for i in (element["at"].get(name) or "").split())


def test_tables_can_be_read_by_a_screen_reader(page: Page) -> None:
    tables = page.all("table")
    assert len(tables) >= 5
    for table in tables:
        assert table["children"][0]["tag"] == "caption" and table["children"][0]["text"].strip()
    for head in page.all("th"):
        assert head["at"].get("scope") in ("col", "row", "colgroup", "rowgroup")
        assert head["text"].strip()


def test_an_image_that_int8_gets_wrong_shows_what_each_int8_file_says(page: Page) -> None:
    cards = [e["text"] for e in page.elements if e["tag"] == "li" and "fp32 says" in e["text"]]
    assert len(cards) == 2  # the two of the made-up run
    for card in cards:
        assert re.findall(r"✗ (.+?) says 9, 61\s%", card) == ["ONNX int8", "OpenVINO int8", "Core ML int8"]


def test_pictures_have_a_text_for_those_who_do_not_see_them(page: Page) -> None:
    for image in page.all("img"):
        assert image["at"].get("alt")
    charts = page.all("svg")
    assert len(charts) >= 6
    for chart in charts:
        assert chart["at"]["role"] == "img"
        assert [child["tag"] for child in chart["children"][:2]] == ["title", "desc"]
        assert all(child["text"].strip() for child in chart["children"][:2])


def test_headings_do_not_skip_a_level(page: Page) -> None:
    levels = [int(e["tag"][1]) for e in page.all("h1", "h2", "h3", "h4")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_the_answer_stands_first(page: Page, values: dict[str, Any]) -> None:
    paragraphs = [e for e in page.all("p") if "main" in e["inside"]]
    pick = values["runs"][0]["verdict"]["picks"][0]
    assert paragraphs[0]["text"] == pick["answer"]
    assert paragraphs[1]["text"] == pick["reason"]
    assert pick["artifact"] == "openvino-int8"


def test_names_from_the_users_files_cannot_change_the_page(page: Page) -> None:
    assert any(e["text"] == "7/broken <1>.png" for e in page.all("th"))


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_text_has_the_contrast_that_wcag_aa_asks_for(full: Run, colours: str) -> None:
    blocks = re.findall(r":root \{(.*?)\n\s*\}", (full.root / "report.html").read_text(), re.S)
    found: dict[str, str] = {}
    for block in blocks[: 1 if colours == "light" else 2]:
        found |= dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
    inks = [
        "ink",
        "soft",
        "accent",
        "good",
        "bad",
        "warn",
        *(f"format-{place}" for place in range(charts.COLOURS)),
        "other",
    ]
    for ink in [*inks, "c0", "c1", "c2", "c3"]:
        assert contrast(found[ink], found["paper"]) >= 4.5, ink
    for ink in ("ink", "soft", "accent", "good", "bad"):
        assert contrast(found[ink], found["panel"]) >= 4.5, ink


def contrast(a: str, b: str) -> float:
    """WCAG 2.2 contrast ratio of two #rrggbb colours."""

    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


STAGES = ("data", "pretrain", "probe", "export", "check", "bench")


@pytest.mark.parametrize("missing", [(), *[(stage,) for stage in STAGES], STAGES])
def test_a_missing_stage_is_said_to_be_missing_and_breaks_nothing(tmp_path: Path, missing: tuple[str, ...]) -> None:
    run = synthetic_run.make(tmp_path / "run", without=missing)
    text = report([run]).read_text()
    Page(text)
    stored = json.loads((run.root / "report.json").read_text())["runs"][0]
    said = {entry["what"]: entry for entry in stored["not_run"]}
    for stage in missing:
        assert said[stage]["status"] == "not run"
        assert "has not been run" in said[stage]["why"]
    assert "None" not in re.sub(r"<style>.*?</style>", "", text, flags=re.S)
    assert (run.root / "MODEL_CARD.md").read_text().startswith("---\n")


def test_further_stages_show_up_when_they_were_run_and_are_not_missed_otherwise(tmp_path: Path, page: Page) -> None:
    run = synthetic_run.make(tmp_path / "run", extras=True)
    extra = Page(report([run]).read_text())
    titles = [e["text"] for e in extra.all("h3")]
    assert {"Was pretraining worth it?", "Other measures of the features"} <= set(titles)
    assert not {"Was pretraining worth it?", "Other measures of the features"} & {e["text"] for e in page.all("h3")}
    assert "finetune" not in {e["text"] for e in page.all("th")}
    known = set(numbers(json.loads((run.root / "report.json").read_text())))
    assert all(float(e["at"]["value"]) in known for e in extra.all("data"))


def test_files_that_give_features_are_reported_without_an_accuracy(tmp_path: Path) -> None:
    run = synthetic_run.make(tmp_path / "run", without=("probe", "bench"))
    path = run.folder("check") / "result.json"
    stored = json.loads(path.read_text())
    for row in stored["details"]["rows"]:
        for key in ("top1", "top1_fp32", "drop", "agreement"):
            del row[key]
        row |= {"distance": 0.002, "passed": True, "why": ""}
    stored["details"]["examples"] = []
    path.write_text(json.dumps(stored))
    page = report([run]).read_text()
    assert Page(page).all("p")[1]["text"].startswith("Ship Core ML int8 (latency not measured): 0.71")
    assert "return features, not classes" not in page, "features of labelled images were asked for"
    path = run.folder("data") / "result.json"
    stored = json.loads(path.read_text())
    stored["metrics"]["n_train"] = 0
    path.write_text(json.dumps(stored))
    assert "No image has a label, so the files return features, not classes." in report([run]).read_text()


def test_a_run_that_was_given_its_weights_names_no_method_of_pretraining(full: Run) -> None:
    values = collect(full, layout=False)
    method = values["recipe"]["ssl"]["method"]
    assert method in phrases.about(values)
    values["recipe"]["export"] = {"source": "given"}
    values["pretrain"] = {}
    assert method not in phrases.about(values) and not words.pretrained(values)


@pytest.mark.parametrize("probed", [False, True])
def test_weights_that_were_only_exported_have_no_section_on_what_training_was_worth(tmp_path: Path, probed: bool):
    run = synthetic_run.make(tmp_path / "run", without=("pretrain", *(() if probed else ("probe",))))
    recipe = run.root / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("[export]", '[export]\nsource = "given"'))
    text = report([run]).read_text()
    assert text.count("What the starting weights are worth") == (2 if probed else 0)
    assert ("What the starting weights are worth" in (run.root / "MODEL_CARD.md").read_text()) == probed
    assert ('href="#learning"' in text) == ('id="learning"' in text) == probed


def test_of_a_network_that_was_given_no_stage_of_training_is_missed(tmp_path: Path) -> None:
    run = synthetic_run.make(tmp_path / "run", without=("pretrain", "probe"))
    path = run.folder("data") / "result.json"
    stored = json.loads(path.read_text())
    stored["details"] |= {"source": "/photos", "test_split": "held out", "per_class": {"test": {"0": 0, "1": 0}}}
    path.write_text(json.dumps(stored))
    before = report([run]).read_text()
    assert "softedge pretrain" in before and "before pretraining" in before and "pretraining images" in before
    recipe = run.root / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("[export]", '[export]\nsource = "given"'))
    text = report([run]).read_text()
    assert "softedge pretrain" not in text and "softedge probe" not in text and "before pretraining" not in text
    assert "pretraining images" not in (run.root / "MODEL_CARD.md").read_text()
    assert not {"pretrain", "probe"} & {e["text"] for e in Page(text).all("b")}
    assert "calibrated on 300 calibration images of photos" in text and "Images per class" not in text


def test_a_device_that_is_only_emulated_shows_answers_and_no_latency(tmp_path: Path) -> None:
    run = synthetic_run.make(tmp_path / "run", extras=True)
    text = report([run]).read_text()
    heads = [e["text"] for e in Page(text).all("th") if "device" in (e["at"].get("class") or "")]
    assert heads == ["localp90, p50 in ms", "iPhone 15 Prop90, p50 in ms, measured elsewhere"]
    assert "emulated, numerics only, never latency" in text and "78.0" in text


def test_where_the_run_lies_on_a_disk_stays_out_of_what_is_passed_on(tmp_path: Path) -> None:
    run = synthetic_run.make(tmp_path / "run", without=("check", "bench"), extras=True)
    report([run])
    for name in ("report.html", "report.json", "MODEL_CARD.md"):
        text = (run.root / name).read_text()
        assert str(tmp_path) not in text and "/home/ada" not in text, name


def test_an_empty_folder_gets_a_report_too(tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    text = report([Run(tmp_path / "bare")]).read_text()
    assert "There is no file to ship yet" in Page(text).all("p")[1]["text"] + text


def test_damaged_and_unfinished_stages_are_named(tmp_path: Path) -> None:
    run = synthetic_run.make(tmp_path / "run")
    (run.folder("probe") / "result.json").write_text('{"stage": "probe"')
    (run.folder("export/onnx-int8") / "result.json").write_text("[]")
    (run.folder("pretrain") / "result.json").unlink()
    (run.folder("pretrain") / "begun.json").write_text("{}")
    (run.folder("check") / "result.json").write_text('{"stage": "check"}')
    Page(report([run]).read_text())
    status = {s["stage"]: s["status"] for s in json.loads((run.root / "report.json").read_text())["runs"][0]["stages"]}
    assert (status["probe"], status["pretrain"], status["check"]) == ("damaged", "unfinished", "damaged")
    assert str(tmp_path) not in (run.root / "report.json").read_text()  # not where the run is stored either


def test_pictures_that_are_gone_are_said_to_be_gone(tmp_path: Path) -> None:
    import shutil

    run = synthetic_run.make(tmp_path / "run")
    shutil.rmtree(run.root / "images")
    assert "the test images cannot be read" in report([run]).read_text()


def test_two_runs_stand_side_by_side_with_what_changed(tmp_path: Path) -> None:
    a = synthetic_run.make(tmp_path / "a")
    b = synthetic_run.make(tmp_path / "b", seed=1, speed=2.0)
    page = Page(report([a, b]).read_text())
    assert any(e["text"] == "Side by side" for e in page.all("h2"))
    assert any(e["text"] == "What changed from a to b" for e in page.all("h3"))
    known = set(numbers(json.loads((a.root / "report.json").read_text())))
    assert all(float(e["at"]["value"]) in known for e in page.all("data"))
    assert not (b.root / "report.html").exists()


def test_the_report_imports_neither_torch_nor_matplotlib(full: Run, tmp_path: Path) -> None:
    code = (
        "import sys; from softedge.report import report; from softedge.run import Run; "
        f"report([Run({str(full.root)!r})]); "
        "sys.exit(', '.join(m for m in ('torch', 'matplotlib', 'torchvision', 'timm') if m in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_every_searched_int8_file_shows_its_steps_their_time_and_the_ranges_of_its_layers(tmp_path: Path) -> None:
    run = synthetic_run.make(tmp_path / "run")
    page = Page(report([run]).read_text())
    headings = [element["text"] for element in page.all("h3")]
    assert sum("The int8 search for" in heading for heading in headings) == 2  # ONNX and OpenVINO
    texts = " ".join(element["text"] for element in page.all("svg"))
    assert "Same answers over time, by step" in texts and "mixed 99.2\u202f% at 0.90 × the time" in texts
    assert "blocks.0.conv_pwl: input -3 to 6.1, largest weight 1.5" in texts
    captions = " ".join(element["text"] for element in page.all("caption"))
    assert "none of them a test image (768 training images: a sample)." in captions
    assert "2 int8 files searched" in " ".join(element["text"] for element in page.all("span"))
    cells = [element["text"] for element in page.all("td")]
    assert "too slow herenot run" in cells, "a step that was not taken tells its reason once, and has no size"
    assert "0\u202fbytes" not in cells and "0 bytes" not in cells


def test_an_option_in_the_text_is_an_element_that_no_line_breaks_and_all_else_stays_as_it_is():
    kept = '<style>a { --ink: 1 }</style><p title="x --minutes" style="--share:2%"><svg><title>--set</title></svg>'
    kept += "<pre>softedge plan --data x</pre><!-- --y -->"
    page = prose.unbroken(f"{kept}more time (--minutes 30), <code>--max-drop</code> a--b ---")
    option = '<span class="option">{}</span>'.format
    assert page == f"{kept}more time ({option('--minutes')} 30), <code>{option('--max-drop')}</code> a--b ---"
