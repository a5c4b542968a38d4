"""The app of ``softedge try --app``: a folder on an ordinary web server, then without any."""

from __future__ import annotations

import functools
import http.server
import io
import json
import re
import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import Chromium
from colour_model import LABELS
from PIL import Image
from subjects import make_run, predict, video

from softedge.bench.browser import ort_web
from softedge.errors import UserError
from softedge.live import web_app
from softedge.live.subject import choose

READY = "document.getElementById('label').textContent"


def address(server: http.server.ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}/app/"


def picture(path: Path) -> Path:
    Image.new("RGB", (30, 20), (0, 220, 0)).save(path)
    return path


@pytest.fixture
def storing(tmp_path: Path) -> None:
    """A disk on which browsers keep something: Chromium leaves the last one to two percent alone."""
    disk = shutil.disk_usage(tmp_path)
    if disk.free < 0.02 * disk.total:
        pytest.skip(f"only {disk.free / disk.total:.1%} of the disk are free: a browser keeps no app there")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def host() -> Iterator[Callable[[Path], http.server.ThreadingHTTPServer]]:
    """Serve a folder as any static host does, without headers of ours."""
    started: list[http.server.ThreadingHTTPServer] = []

    def start(folder: Path, handler: type[Quiet] = Quiet) -> http.server.ThreadingHTTPServer:
        serve = functools.partial(handler, directory=str(folder))
        started.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve))
        started[-1].daemon_threads = True
        threading.Thread(target=started[-1].serve_forever, daemon=True).start()
        return started[-1]

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


@pytest.fixture
def small_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ort.mjs").write_text("export {}")
    monkeypatch.setattr(ort_web, "files", lambda backend: {"ort.mjs": tmp_path / "ort.mjs"})


def test_everything_that_the_app_refers_to_is_in_its_folder(tmp_path: Path, small_runtime: None) -> None:
    size = web_app.write(choose(make_run(tmp_path / "run")), tmp_path / "app", "a run")
    files = {str(path.relative_to(tmp_path / "app")) for path in (tmp_path / "app").rglob("*") if path.is_file()}
    assert size == sum((tmp_path / "app" / name).stat().st_size for name in files)
    worker = (tmp_path / "app" / "service-worker.js").read_text()
    kept = json.loads(re.search(r"FILES = (\[.*?\]);", worker, re.S)[1])  # type: ignore[index]
    assert set(kept) == (files - {"service-worker.js", "index.html"}) | {"./"}
    html = (tmp_path / "app" / "index.html").read_text()
    assert set(re.findall(r'(?:href|src)="([^"]+)"', html)) <= files
    manifest = json.loads((tmp_path / "app" / "manifest.webmanifest").read_text())
    assert manifest["display"] == "standalone" and {icon["src"] for icon in manifest["icons"]} <= files
    everything = b"".join((tmp_path / "app" / name).read_bytes() for name in files if not name.endswith(".wasm"))
    assert str(tmp_path).encode() not in everything and b"/* " not in worker.encode()


def test_a_new_model_is_a_new_version_and_the_same_model_is_not(tmp_path: Path, small_runtime: None) -> None:
    workers = []
    for labels in (LABELS, LABELS, ("a", "b", "c")):
        run = make_run(tmp_path / f"run{len(workers)}", labels=labels)
        web_app.write(choose(run), tmp_path / "app", "a run")  # replaced each time
        workers.append((tmp_path / "app" / "service-worker.js").read_text())
    assert workers[0] == workers[1] != workers[2]


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path, small_runtime: None) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"cat")
    (tmp_path / "file").write_text("")
    subject = choose(make_run(tmp_path / "run"))
    for folder, words in (("photos", "not empty"), ("file", "is a file")):
        with pytest.raises(UserError, match=words):
            web_app.write(subject, tmp_path / folder, "a run")
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["cat.jpg"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder in which nobody can make files")
def test_an_app_where_no_files_can_be_made_is_one_line(tmp_path: Path, small_runtime: None) -> None:
    subject = choose(make_run(tmp_path / "run"))
    with pytest.raises(UserError, match="/proc/app cannot be made: this system keeps no files of others in /proc"):
        web_app.write(subject, Path("/proc/app"), "run")


def test_the_app_contains_none_of_the_users_pictures(tmp_path: Path, small_runtime: None) -> None:
    run = make_run(tmp_path / "run")
    subject = choose(run)
    web_app.write(subject, tmp_path / "app", "a run")
    data = (tmp_path / "app" / "golden.bin").read_bytes()
    images = np.frombuffer(data, np.uint8).reshape(-1, *subject.golden.images.shape[1:])
    assert not any((image == photo).all() for image in images for photo in subject.golden.images)
    about = json.loads((tmp_path / "app" / "about.json").read_text())
    np.testing.assert_allclose(about["golden"], predict(subject.artifact.path, images), atol=1e-6)


@pytest.mark.hardware
def test_the_installed_app_starts_offline_with_threads_and_keeps_corrections(
    tmp_path: Path,
    storing: None,
    browse: Callable[..., Chromium],
    host: Callable[[Path], http.server.ThreadingHTTPServer],
) -> None:
    web_app.write(choose(make_run(tmp_path / "run")), tmp_path / "site" / "app", "a run")
    server = host(tmp_path / "site")
    url = address(server)
    film = video(tmp_path / "camera.y4m", 20, 30, 240)
    flags = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    browser = browse(url, *flags, f"--use-file-for-fake-video-capture={film}")
    assert browser.wait(READY) == "blue" and not browser.run("crossOriginIsolated")
    browser.wait("document.getElementById('about').textContent.includes('kept on this device')")
    browser.wait("navigator.serviceWorker.controller && caches.keys().then(names => names.length)")
    assert all(address.startswith((url, "blob:", "data:")) for address in browser.requested())
    assert not browser.complaints()
    assert not browser.call("Page.getAppManifest")["errors"]

    server.shutdown()  # no network from here on
    server.server_close()
    browser.call("Page.navigate", url="about:blank")
    begun = time.monotonic()
    browser.open(url)
    assert browser.wait(READY) == "blue" and time.monotonic() - begun < 15
    assert browser.run("crossOriginIsolated")  # by the service worker's headers: threads

    browser.choose_file(picture(tmp_path / "photo.png"))
    browser.wait(f"{READY} === 'green'")
    browser.run("document.getElementById('wrong').click()")
    browser.run("document.querySelector('#labels button').click()")
    browser.wait("document.getElementById('kept-text').innerText.includes('1 picture here')")
    browser.open(url)  # a reload keeps them
    browser.wait("document.getElementById('download').checkVisibility()")
    packed = browser.run(
        """(async () => {
        const blob = await (await import('./keeping.js')).download();
        return Array.from(new Uint8Array(await blob.arrayBuffer()));
    })()"""
    )
    with zipfile.ZipFile(io.BytesIO(bytes(packed))) as archive:
        assert archive.testzip() is None
        (name,) = archive.namelist()
        assert name.startswith(f"corrections/{LABELS[0]}/") and name.endswith(".png")
        assert archive.read(name) == (tmp_path / "photo.png").read_bytes()


@pytest.mark.hardware
def test_an_app_that_cannot_be_kept_says_so_and_works_online(
    tmp_path: Path, browse: Callable[..., Chromium], host: Callable[[Path], http.server.ThreadingHTTPServer]
) -> None:
    web_app.write(choose(make_run(tmp_path / "run")), tmp_path / "site" / "app", "a run")
    url = address(host(tmp_path / "site"))
    browser = browse("about:blank")
    # The runtime alone has more than ten megabytes.
    browser.call("Storage.overrideQuotaForOrigin", origin=url.removesuffix("/app/"), quotaSize=1e6)
    browser.open(url)
    said = "could not be kept on this device (too little free storage)"
    browser.wait(f"document.getElementById('hint').textContent.includes('{said}')")
    assert not [name for name in browser.run("caches.keys()") if name.startswith("softedge")]  # no half of it
    browser.choose_file(picture(tmp_path / "photo.png"))
    browser.wait(f"{READY} === 'green'")


@pytest.mark.hardware
def test_a_file_that_fails_once_is_fetched_again(
    tmp_path: Path, storing: None, browse: Callable[..., Chromium], host: Callable[..., http.server.ThreadingHTTPServer]
) -> None:
    web_app.write(choose(make_run(tmp_path / "run")), tmp_path / "site" / "app", "a run")
    asked: list[str] = []

    class Flaky(Quiet):
        def do_GET(self) -> None:
            asked.append(self.path)
            if self.path.endswith("golden.bin") and asked.count(self.path) == 2:  # the page had the first
                self.send_error(503)
            else:
                super().do_GET()

    url = address(host(tmp_path / "site", Flaky))
    browser = browse(url)
    browser.wait("document.getElementById('about').textContent.includes('kept on this device')")
    assert asked.count("/app/golden.bin") == 3
