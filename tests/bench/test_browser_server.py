"""The page's server against a hostile or clumsy client; no browser needed."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from softedge.bench.base import DeviceError, open_device
from softedge.bench.browser import address as browser_address
from softedge.bench.browser import ort_web
from softedge.bench.browser import visit as browser_visit
from softedge.bench.browser.device import Browser
from softedge.bench.browser.results import MOST_FEATURES, Answer
from softedge.bench.browser.server import Inbox, Page, Server
from softedge.bench.browser.visit import Visit
from softedge.errors import UserError

SESSION, OTHER = "a" * 32, "b" * 32
ABOUT = {
    "user_agent": "Phone\u001b[31m 1.0",
    "secure_context": False,
    "cross_origin_isolated": False,
    "wake_lock": False,
    "timer_resolution_ms": 0.1,
}
ROW = {"name": "onnx-fp32", "sha256": "0" * 64, "samples_ms": [1.0, 2.5], "rounds": [0, 1], "load_ms": 3.0}
ANSWER = {
    "rows": [ROW],
    "threads": 1,
    "version": "1.30.0",
    "hidden_ms": 0.0,
    "seconds": 1.0,
    "timer_resolution_ms": 0.1,
}


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server("127.0.0.1")
    made.pages["page.js"] = Page("text/javascript", b"1")
    yield made
    made.close()


@pytest.fixture
def visit(server: Server) -> Visit:
    made = Visit(server, "browser:")
    made.start({"artifacts": []}, {"onnx-fp32": 3}, 2, lambda answer: {"rows": []})
    return made


def ask(server: Server, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any, Any]:
    """Status, headers and body of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def post(server: Server, name: str, body: bytes, session: str = SESSION) -> tuple[int, Any]:
    status, _, answer = ask(server, "POST", f"/{server.token}/{name}?s={session}", body)
    return status, json.loads(answer)


def post_json(server: Server, name: str, value: object, session: str = SESSION) -> tuple[int, Any]:
    return post(server, name, json.dumps(value).encode(), session)


def test_only_the_table_below_the_token_is_served(server: Server) -> None:
    assert ask(server, "GET", f"/{server.token}/page.js")[::2] == (200, b"1")
    for path in (
        "/",
        "/page.js",
        f"/{server.token}",
        f"/{server.token}x/page.js",
        f"/{server.token[:-1]}/page.js",
        f"/{server.token}/../page.js",
        f"/{server.token}/%2e%2e/page.js",
        f"/{server.token}//etc/passwd",
        "//page.js",
    ):
        assert ask(server, "GET", path)[0] == 404, path
    assert ask(server, "PUT", f"/{server.token}/page.js", b"")[0] == 501


def test_pages_are_isolated_and_never_cached(server: Server) -> None:
    headers = ask(server, "GET", f"/{server.token}/page.js")[1]
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert headers["Cache-Control"] == "no-store" and "default-src 'none'" in headers["Content-Security-Policy"]
    assert server.token not in str(headers)


def test_a_compressed_page_is_sent_only_to_who_takes_it(server: Server) -> None:
    server.pages["big"] = Page.shrunk("application/wasm", b"x" * 10000)
    assert len(ask(server, "GET", f"/{server.token}/big")[2]) == 10000
    _, headers, body = ask(server, "GET", f"/{server.token}/big", **{"Accept-Encoding": "gzip, br"})
    assert headers["Content-Encoding"] == "gzip" and len(body) < 200


def test_the_first_browser_owns_the_address(server: Server, visit: Visit) -> None:
    assert post_json(server, "hello", ABOUT)[0] == 200
    status, answer = post_json(server, "hello", ABOUT, OTHER)
    assert status == 409 and "already used by another browser" in answer["error"]
    assert post_json(server, "hello", ABOUT)[0] == 200  # a reload of the same tab
    assert post_json(server, "hello", ABOUT, "../../etc")[0] == 403


def test_another_page_may_not_post_and_any_name_of_this_computer_will_do(server: Server, visit: Visit) -> None:
    path, body = f"/{server.token}/hello?s={SESSION}", json.dumps(ABOUT).encode()
    for origin in ("https://elsewhere.example", "null", f"http://127.0.0.1:{server.port + 1}"):
        status, _, answer = ask(server, "POST", path, body, Origin=origin)
        assert status == 403 and b"comes from another page" in answer, origin
    assert visit.about is None
    named = f"lab-computer.local:{server.port}"  # phones may know it by another name: the token decides
    assert ask(server, "POST", path, body, Origin=f"http://{named}", Host=named)[0] == 200
    assert ask(server, "GET", "/page.js", Host=named)[0] == 404


def test_a_body_that_is_too_large_is_refused_unread(server: Server) -> None:
    server.inboxes["small"] = Inbox(10, lambda body: {})
    assert post(server, "small", b"x" * 10)[0] == 200
    assert post(server, "small", b"x" * 11)[0] == 413
    status, _, _ = ask(server, "POST", f"/{server.token}/small?s={SESSION}", None, **{"Content-Length": "99999999999"})
    assert status == 413


@pytest.mark.parametrize(
    "change",
    [
        {"samples_ms": [1.0]},  # fewer than rounds
        {"samples_ms": [1.0, -1.0]},
        {"samples_ms": [1.0, 1e9]},
        {"samples_ms": ["1.0", "2.0"]},
        {"rounds": [1, 0]},
        {"name": "x" * 401},
        {"sha256": "not a hash"},
        {"end_to_end_ms": {"secret": [1.0]}},
        {"unknown": 1},
    ],
)
def test_a_strange_answer_is_refused_with_the_place(server: Server, visit: Visit, change: dict[str, Any]) -> None:
    post(server, "outputs/0", np.ones((2, 3), "<f4").tobytes())
    status, answer = post_json(server, "answer", {**ANSWER, "rows": [{**ROW, **change}]})
    assert status == 400 and answer["error"].startswith("the posted answer is not valid: rows.0")
    assert visit.answer is None


def test_not_a_number_is_no_latency(server: Server, visit: Visit) -> None:
    text = json.dumps({**ANSWER, "rows": [{**ROW, "samples_ms": [1.0, float("nan")]}]})
    assert "NaN" in text and post(server, "answer", text.encode())[0] == 400
    assert post(server, "answer", b"\xff\xfe")[0] == 400


def test_outputs_are_taken_only_whole_and_finite(server: Server, visit: Visit) -> None:
    good = np.arange(6, dtype="<f4").reshape(2, 3)
    for bad in (b"", good.tobytes()[:-1], good[:1].tobytes(), np.full((2, 3), np.nan, "<f4").tobytes()):
        assert post(server, "outputs/0", bad)[0] == 400
    assert post(server, "outputs/0", good.tobytes() * 2)[0] == 413
    assert post(server, "outputs/1", good.tobytes())[0] == 404
    assert post(server, "outputs/0", good.tobytes())[0] == 200
    np.testing.assert_array_equal(visit.outputs["onnx-fp32"], good)


def test_features_may_have_any_width_up_to_a_limit(server: Server) -> None:
    visit = Visit(server, "browser:")
    visit.start({}, {"onnx-fp32": None}, 2, lambda answer: {})
    assert post(server, "outputs/0", np.ones((2, 7), "<f4").tobytes())[0] == 200
    assert visit.outputs["onnx-fp32"].shape == (2, 7)
    assert post(server, "outputs/0", bytes(4 * 2 * (MOST_FEATURES + 1)))[0] == 413


def test_an_answer_needs_its_outputs_and_the_right_models(server: Server, visit: Visit) -> None:
    assert "did not arrive" in post_json(server, "answer", ANSWER)[1]["error"]
    post(server, "outputs/0", np.ones((2, 3), "<f4").tobytes())
    other = {**ANSWER, "rows": [{**ROW, "name": "onnx-int8"}]}
    assert "not about this benchmark" in post_json(server, "answer", other)[1]["error"]
    assert post_json(server, "answer", ANSWER) == (200, {"rows": []})
    assert list(visit.percents(1.0)) == [] and isinstance(visit.answer, Answer)
    assert "over" in post_json(server, "next", {})[1]


def test_progress_is_followed_and_silence_is_an_end(
    server: Server, visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browser_visit, "SILENT_S", 1.0)
    threading.Timer(0.3, post_json, [server, "beat", {"progress": 0.42, "hidden": True}]).start()
    seen = []
    with pytest.raises(DeviceError, match=r"browser:: the page stopped answering at 42 % \(phone locked"):
        for percent in visit.percents(30.0):
            seen.append(percent)
    assert seen == list(range(42))


def test_a_page_that_says_goodbye_may_come_back(server: Server, visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browser_visit, "RETURN_S", 1.0)
    post_json(server, "gone", {})
    post_json(server, "hello", ABOUT)
    with pytest.raises(DeviceError, match="no result within 2 s"):
        list(visit.percents(2.0))
    post_json(server, "gone", {})
    with pytest.raises(DeviceError, match="the page was closed at 0 %; keep it in front"):
        list(visit.percents(30.0))


def test_what_the_page_reports_as_failed_is_one_clean_line(server: Server, visit: Visit) -> None:
    post_json(server, "failed", {"reason": "no WebAssembly\n\u001b[2Jhere"})
    with pytest.raises(DeviceError, match="the page failed at 0 %: no WebAssembly.2Jhere") as caught:
        list(visit.percents(5.0))
    assert str(caught.value).isprintable()


def test_nobody_opens_the_page(server: Server) -> None:
    with pytest.raises(DeviceError, match=r"nobody opened http://127.0.0.1:\d+ within 0 s") as caught:
        Visit(server, "browser:").wait_for_browser(0.1)
    assert server.token not in str(caught.value)


def test_the_qr_code_in_the_terminal_is_read_as_the_address() -> None:
    import cv2

    url = "http://192.168.100.123:34557/vOdLMHQyf7G1MIaB/"
    lines = [line.removeprefix("\x1b[97;40m").removesuffix("\x1b[0m") for line in browser_address.qr(url).splitlines()]
    halves = {"█": (255, 255), "▀": (255, 0), "▄": (0, 255), " ": (0, 0)}
    pixels = np.array([[halves[c][half] for c in line] for line in lines for half in (0, 1)], np.uint8)
    picture = pixels.repeat(8, axis=0).repeat(8, axis=1)
    assert cv2.QRCodeDetector().detectAndDecode(picture)[0] == url


def test_a_silent_client_does_not_keep_others_from_an_https_page(tmp_path: Path) -> None:
    try:
        certificate, key, fingerprint = browser_address.certificate("127.0.0.1", tmp_path)
    except UserError as error:
        pytest.skip(str(error))
    assert len(fingerprint.split(":")) == 32 and key.stat().st_mode & 0o077 == 0
    server = Server("127.0.0.1", 0, (str(certificate), str(key)))
    server.pages["page.js"] = Page("text/javascript", b"1")
    try:
        with socket.create_connection(("127.0.0.1", server.port)):
            context = ssl.create_default_context(cafile=str(certificate))  # the name in it must fit, too
            connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=10, context=context)
            begun = time.monotonic()
            connection.request("GET", f"/{server.token}/page.js")
            assert connection.getresponse().read() == b"1" and time.monotonic() - begun < 5
            connection.close()
    finally:
        server.close()


def test_a_browser_that_refuses_the_certificate_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    try:
        certificate, key, _ = browser_address.certificate("127.0.0.1", tmp_path)
    except UserError as error:
        pytest.skip(str(error))
    server = Server("127.0.0.1", 0, (str(certificate), str(key)))
    server.pages["page.js"] = Page("text/javascript", b"1")
    try:
        for _ in range(2):
            strict = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=10)
            with pytest.raises(ssl.SSLCertVerificationError):
                strict.request("GET", f"/{server.token}/page.js")
        trusting = ssl.create_default_context(cafile=str(certificate))
        connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=10, context=trusting)
        connection.request("GET", f"/{server.token}/page.js")
        assert connection.getresponse().read() == b"1"
        connection.close()
        said, deadline = "", time.monotonic() + 5
        while "certificate" not in said and time.monotonic() < deadline:
            said += capfd.readouterr().err
            time.sleep(0.05)
    finally:
        server.close()
    said += capfd.readouterr().err
    assert said.count("refused the certificate") == 1 and "Traceback" not in said


def test_a_certificate_needs_a_tool_and_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(UserError, match="neither the openssl program nor the cryptography package"):
        browser_address.certificate("192.168.1.2", tmp_path)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("browser:chrome", "browser takes options only"),
        ("browser:backend=webgl", "backend=webgl; did you mean"),
        ("browser:https=1,adb=1", "either https=1 or adb=1"),
        ("browser:thread=2", "unknown option 'thread'; did you mean 'threads'"),
        ("browser:wait=soon", "wait=soon: expected a whole number"),
    ],
)
def test_a_mistake_in_the_address_is_told_before_anything_starts(spec: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        open_device(spec)


def test_leaving_the_device_frees_the_port_and_removes_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: apt-get install openssl")
    monkeypatch.setattr(ort_web, "files", lambda backend: {})
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(KeyboardInterrupt), open_device("browser:host=127.0.0.1,https=1") as device:
        assert isinstance(device, Browser) and len(list(tmp_path.rglob("*.pem"))) == 2
        raise KeyboardInterrupt
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", device.server.port)) != 0
    assert not list(tmp_path.iterdir())


def test_a_port_in_use_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort_web, "files", lambda backend: {})
    with socket.create_server(("127.0.0.1", 0)) as taken:
        spec = f"browser:host=127.0.0.1,port={taken.getsockname()[1]}"
        with pytest.raises(UserError, match="cannot listen on 127.0.0.1:.*in use"), open_device(spec):
            pass


def test_a_port_that_none_can_have_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort_web, "files", lambda backend: {})
    with pytest.raises(UserError, match=r"cannot listen on 127.0.0.1:99999 \(.*0-65535"):
        open_device("browser:host=127.0.0.1,port=99999").__enter__()


def test_results_are_filed_under_the_phone_not_under_the_way_to_it() -> None:
    assert open_device("browser:host=10.0.0.7,port=8080,https=1").folder == "browser"
    assert open_device("browser:name=pixel8,threads=4,adb=1").folder == "browser_name_pixel8_threads_4"
