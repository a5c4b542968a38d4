"""What a page may post, and where it goes; no browser needed."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
from asking import ask
from colour_model import LABELS
from PIL import Image
from subjects import make_run

from softedge.bench.browser import ort_web
from softedge.bench.browser.server import Refused
from softedge.data import folders
from softedge.errors import UserError
from softedge.export import contract
from softedge.live import corrections as module
from softedge.live import serve
from softedge.live.corrections import Corrections, folder_names
from softedge.live.subject import choose
from softedge.records import Outcome
from softedge.run import Run, perform, read_json, write_json

SESSION = "a" * 32


def picture(kind: str = "PNG", colour: int = 0) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (9, 7), (colour, 0, 0)).save(data, kind)
    return data.getvalue()


def body(label: object, data: bytes) -> bytes:
    return json.dumps({"label": label}).encode() + b"\n" + data


def test_a_picture_is_kept_once_under_its_last_label(tmp_path: Path) -> None:
    kept = Corrections(tmp_path, LABELS)
    assert kept.take(body(0, picture())) == {"kept": 1}
    assert kept.take(body(0, picture())) == {"kept": 1}
    assert kept.take(body(2, picture())) == {"kept": 1}
    assert kept.take(body(1, picture("JPEG"))) == {"kept": 2}
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert [(path.parts[0], path.suffix) for path in files] == [(LABELS[2], ".png"), (LABELS[1], ".jpg")]


def test_kept_pictures_are_a_folder_that_data_reads(tmp_path: Path) -> None:
    kept = Corrections(tmp_path, LABELS)
    for label in range(3):
        kept.take(body(label, picture(colour=label)))
    inventory = folders.find(tmp_path, "folder")
    assert sorted(inventory.classes) == sorted(LABELS)


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"", "label"),
        (b"no json\n" + picture(), "label"),
        (body(3, picture()), "not one of"),
        (body(-1, picture()), "not one of"),
        (body(True, picture()), "not one of"),
        (body("../../etc", picture()), "not one of"),
        (body(0, b""), "cannot be read"),
        (body(0, b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "cannot be read"),
        (body(0, picture("GIF")), "cannot be read"),
        (body(0, picture()[:40]), "cannot be read"),
    ],
)
def test_anything_else_is_refused_and_nothing_is_written(tmp_path: Path, sent: bytes, words: str) -> None:
    with pytest.raises(Refused, match=words):
        Corrections(tmp_path, LABELS).take(sent)
    assert not list(tmp_path.iterdir())


def test_a_start_keeps_a_bounded_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 2)
    kept = Corrections(tmp_path, LABELS)
    for colour in (1, 2):
        kept.take(body(0, picture(colour=colour)))
    with pytest.raises(Refused, match="2 pictures are kept already"):
        kept.take(body(0, picture(colour=3)))


def test_labels_become_folder_names_that_stay_inside_and_differ() -> None:
    names = folder_names(["cat", "a/b", "..", "", "a:b", "Cat", ".hidden", "\u00e4pfel"])
    assert names == ["cat", "a_b", "_", "__", "a_b_", "Cat_", "hidden", "\u00e4pfel"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run, and an onnxruntime-web of a few bytes."""
    (tmp_path / "ort.mjs").write_text("export {}")
    monkeypatch.setattr(ort_web, "files", lambda backend: {"ort.mjs": tmp_path / "ort.mjs"})
    return make_run(tmp_path / "run")


def test_an_outsider_gets_nothing_and_the_page_names_no_place(run: Path) -> None:
    with serve.page(choose(run), run / "corrections", "127.0.0.1") as (server, _):
        for path in ("/", "/about.json", f"/{server.token}", f"/{server.token}x/", f"/{server.token}/../model.onnx"):
            assert ask(server.port, "GET", path)[0] == 404, path
        for name in (*server.pages, "nothing"):
            status, content, headers = ask(server.port, "GET", f"/{server.token}/{name}")
            assert status == (404 if name == "nothing" else 200)
            assert str(run.parent).encode() not in content and str(run.parent) not in headers
            assert "script-src 'self'" in headers and "unsafe-inline" not in headers
        assert b"<script>" not in ask(server.port, "GET", f"/{server.token}/")[1]
        assert b"style=" not in ask(server.port, "GET", f"/{server.token}/")[1]


def test_posts_need_the_token_a_session_the_same_origin_and_a_bounded_length(run: Path) -> None:
    with serve.page(choose(run), run / "corrections", "127.0.0.1") as (server, kept):
        good = f"/{server.token}/wrong?s={SESSION}"
        assert ask(server.port, "POST", f"/wrong?s={SESSION}", body(0, picture()))[0] == 404
        assert ask(server.port, "POST", good.partition("?")[0], body(0, picture()))[0] == 403
        assert ask(server.port, "POST", good, body(0, picture()), Origin="http://elsewhere.test")[0] == 403
        assert ask(server.port, "POST", good, b"", **{"Content-Length": str(module.AT_MOST + 1)})[0] == 413
        assert kept.count == 0
        assert ask(server.port, "POST", good, body(0, picture()))[0] == 200
        assert ask(server.port, "POST", good.replace("a" * 32, "b" * 32), body(1, picture(colour=9)))[0] == 200
        assert kept.count == 2


@pytest.mark.parametrize(
    ("file", "words"),
    [("onnx-int9", "is not there"), ("coreml-fp16", "browsers run only those"), (None, "targets onnx")],
)
def test_a_run_without_such_a_file_says_what_to_do(tmp_path: Path, file: str | None, words: str) -> None:
    from colour_model import export

    export(tmp_path / "run" / "export" / "coreml-fp16", "coreml", "fp16")
    if file:
        make_run(tmp_path / "run")
    with pytest.raises(UserError, match=words):
        choose(tmp_path / "run", file)


def test_a_file_that_failed_a_gate_is_not_shown_where_another_passed(tmp_path, capsys):
    run = make_run(tmp_path / "run")
    int8 = run / "export" / "onnx-int8"
    shutil.copytree(run / "export" / "onnx-fp32", int8)
    write_json(int8 / contract.FILE, read_json(int8 / contract.FILE) | {"precision": "int8", "bits": {}})
    assert choose(run).artifact.is_int8, "nothing was checked"
    row = {"artifact": "onnx-int8", "sha256": choose(run).artifact.sha256, "why": "agreement 0.762 is below 0.98"}
    rows = [{**row, "passed": False}]
    perform(Run(run), "check", lambda _: Outcome(details={"rows": rows}), recipe={}, inputs={})
    assert not choose(run, "onnx-fp32").artifact.is_int8 and not capsys.readouterr().err
    assert not choose(run).artifact.is_int8
    assert "try: onnx-int8 failed the check, so this is onnx-fp32; to see it all" in capsys.readouterr().err
    assert choose(run, "onnx-int8").artifact.is_int8
    assert "caution: onnx-int8 failed the check: agreement 0.762 is below 0.98" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["check/result.json", "export/onnx-fp32/contract.json"])
@pytest.mark.parametrize("text", ["[]", "{", '{"details": {"rows": [1]}}'])
def test_a_damaged_record_is_one_line_that_names_it(tmp_path: Path, name: str, text: str) -> None:
    path = make_run(tmp_path / "run") / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    with pytest.raises(UserError, match=name):
        choose(tmp_path / "run")


def test_a_folder_that_is_no_run_is_not_sent_to_export(tmp_path):
    (tmp_path / "cat").mkdir()
    with pytest.raises(UserError, match="is not a softedge run .it has no recipe.toml.; give a run folder"):
        choose(tmp_path)
