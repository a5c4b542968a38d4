"""The page of ``softedge try`` in a real Chromium with a fake camera; without a browser these tests are skipped."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from chromium import Chromium
from colour_model import LABELS
from PIL import Image
from subjects import make_run, predict, video

from softedge.bench.browser.server import Page, Server
from softedge.data.decoding import decode, prepare
from softedge.live import serve
from softedge.live.corrections import Corrections
from softedge.live.subject import choose
from softedge.records import InputSpec

pytestmark = pytest.mark.hardware
Browse = Callable[..., Chromium]
CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
OTHERS = "--host-resolver-rules=MAP phone.test 127.0.0.1"  # a name that is not this machine's own: no secure context
READY = "document.getElementById('label').textContent"


@contextlib.contextmanager
def served(run: Path, **options: bool) -> Iterator[tuple[Server, Corrections]]:
    with serve.page(choose(run), run / "corrections", "127.0.0.1", **options) as both:
        yield both


def camera(folder: Path, *colour: int) -> tuple[str, ...]:
    return (*CAMERA, f"--use-file-for-fake-video-capture={video(folder / 'camera.y4m', *colour)}")


def network(server: Server) -> str:
    """The page's address as a phone in the network sees it: not a secure context."""
    return server.url.replace("127.0.0.1", "phone.test")


def pixels_of(browser: Chromium, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """What the page makes of a file: the pixels that its model gets, uint8 (size, size, 3), and the probabilities."""
    browser.run("delete document.getElementById('stage').dataset.picture")
    browser.choose_file(path)
    browser.wait("document.getElementById('stage').dataset.picture")  # set when the photo has been drawn
    script = """(async () => {
        const { Classifier } = await import('./classifier.js');
        const made = new Classifier();
        await made.load(await (await fetch('about.json')).json());
        const { pixels, probabilities } = await made.classify(document.getElementById('still'));
        return { pixels: Array.from(pixels), probabilities };
    })()"""
    found = browser.run(script)
    side = round((len(found["pixels"]) / 3) ** 0.5)
    return np.array(found["pixels"], np.uint8).reshape(side, side, 3), np.array(found["probabilities"], np.float32)


def test_the_live_picture_is_answered_with_label_and_time(tmp_path: Path, browse: Browse) -> None:
    with served(make_run(tmp_path / "run")) as (server, _):
        browser = browse(server.url, *camera(tmp_path, 30, 200, 40))
        assert browser.wait(READY) == "green"
        assert browser.text("ms").endswith(" ms") and float(browser.text("ms").split()[0]) > 0
        assert browser.run("document.getElementById('stage').dataset.picture") == "640x480"
        assert browser.run("document.querySelectorAll('#probabilities li').length") == 3
        browser.phone(width=844, height=390)  # the phone is turned
        browser.wait("innerWidth === 844 && document.documentElement.scrollWidth <= innerWidth")
        assert browser.wait(READY) == "green" and browser.complaints() == []
        assert all(url.startswith((server.url, "blob:", "data:")) for url in browser.requested())


def test_golden_images_give_the_probabilities_of_the_contract(tmp_path: Path, browse: Browse) -> None:
    run = make_run(tmp_path / "run", InputSpec(24, 32, (0.4, 0.5, 0.6), (0.2, 0.2, 0.2)))
    golden = choose(run).golden
    with served(run) as (server, _):
        browser = browse(network(server), OTHERS)
        browser.wait("document.getElementById('photo').checkVisibility()")
        found = browser.run(
            """(async () => {
            const { Classifier } = await import('./classifier.js');
            const made = new Classifier();
            await made.load(await (await fetch('about.json')).json());
            return (await made.replay()).found;
        })()"""
        )
    assert np.shape(found) == (4, 3)
    np.testing.assert_allclose(found, golden.expected, atol=1e-6)
    np.testing.assert_allclose(found, predict(run / "export/onnx-fp32/model.onnx", golden.images), atol=1e-6)


@pytest.mark.parametrize(
    ("interpolation", "size", "resize"), [("bilinear", 24, 32), ("bicubic", 33, 33), ("bicubic", 21, 40)]
)
def test_photos_reach_the_model_as_the_contract_says(
    tmp_path: Path, browse: Browse, interpolation: str, size: int, resize: int
) -> None:
    """PNG to the same bits as Pillow, whatever the shape; JPEG turned by Exif within what two decoders differ by."""
    spec = InputSpec(size, resize, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), interpolation)  # type: ignore[arg-type]
    run = make_run(tmp_path / "run", spec)
    rng = np.random.default_rng(0)
    with served(run) as (server, _):
        browser = browse(network(server), OTHERS)
        browser.wait("document.getElementById('photo').checkVisibility()")
        for number, shape in enumerate([(97, 61), (50, 131), (17, 20), (300, 20), (size, size), (resize, resize + 3)]):
            path = tmp_path / f"{number}.png"
            Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)).save(path)
            wanted = prepare(decode(path), spec)
            pixels, probabilities = pixels_of(browser, path)
            np.testing.assert_array_equal(pixels, wanted)
            expected = predict(run / "export/onnx-fp32/model.onnx", wanted[None])[0]
            np.testing.assert_allclose(probabilities, expected, atol=1e-6)
        smooth = Image.fromarray(rng.integers(0, 256, (6, 9, 3), dtype=np.uint8)).resize((180, 120))
        for orientation in (3, 6, 8):
            exif = Image.Exif()
            exif[0x0112] = orientation
            path = tmp_path / f"{orientation}.jpg"
            smooth.save(path, quality=95, exif=exif)
            assert np.abs(pixels_of(browser, path)[0].astype(int) - prepare(decode(path), spec)).max() <= 2


def test_plain_http_takes_photos_and_says_how_to_get_the_live_picture(tmp_path: Path, browse: Browse) -> None:
    with served(make_run(tmp_path / "run")) as (server, _):
        browser = browse(network(server), OTHERS, *camera(tmp_path, 0, 0, 255))
        browser.wait("document.getElementById('photo').checkVisibility()")
        assert "--https" in browser.text("hint") and not browser.text("answer")
        Image.new("RGB", (40, 30), (20, 30, 250)).save(tmp_path / "photo.jpg")
        browser.choose_file(tmp_path / "photo.jpg")
        assert browser.wait(READY) == "blue"
        (tmp_path / "text.jpg").write_text("no picture")
        browser.choose_file(tmp_path / "text.jpg")
        assert "not a picture" in browser.wait("document.getElementById('problem').innerText")


def test_https_gives_the_live_picture_to_a_phone_in_the_network(tmp_path: Path, browse: Browse) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: apt-get install openssl")
    with served(make_run(tmp_path / "run"), https=True) as (server, _):
        browser = browse(network(server), OTHERS, "--ignore-certificate-errors", *camera(tmp_path, 250, 20, 20))
        assert browser.wait(READY) == "red"
        assert browser.run("crossOriginIsolated")  # which gives threads


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--use-fake-device-for-media-stream", "--deny-permission-prompts"), "was not allowed"),
        (("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream=device-count=0"), "No camera"),
    ],
    ids=["refused", "absent"],
)
def test_without_a_camera_the_page_says_why_and_takes_photos(
    tmp_path: Path, browse: Browse, flags: tuple[str, ...], words: str
) -> None:
    with served(make_run(tmp_path / "run")) as (server, _):
        browser = browse(server.url, *flags)
        assert words in browser.wait("document.getElementById('problem').innerText")
        Image.new("RGB", (40, 30), (250, 30, 20)).save(tmp_path / "photo.png")
        browser.choose_file(tmp_path / "photo.png")
        assert browser.wait(READY) == "red"


def test_a_damaged_model_is_refused_in_one_line(tmp_path: Path, browse: Browse) -> None:
    with served(make_run(tmp_path / "run")) as (server, _):
        body = server.pages["model.onnx"].body
        assert isinstance(body, bytes)
        server.pages["model.onnx"] = Page("application/octet-stream", body[:-1] + b"\0")
        browser = browse(server.url, *CAMERA)
        assert "damaged" in browser.wait("document.getElementById('problem').innerText")
        assert not browser.text("answer") and not browser.text("photo")


def test_a_runtime_that_answers_otherwise_is_reported(tmp_path: Path, browse: Browse) -> None:
    with served(make_run(tmp_path / "run")) as (server, _):
        body = server.pages["about.json"].body
        assert isinstance(body, bytes)
        about = json.loads(body)
        about["golden"][0].reverse()
        server.pages["about.json"] = Page("application/json", json.dumps(about).encode())
        browser = browse(network(server), OTHERS)
        assert "differ from those at export" in browser.wait("document.getElementById('golden').innerText")


def test_a_wrong_answer_is_kept_on_the_computer_under_the_right_label(tmp_path: Path, browse: Browse) -> None:
    run = make_run(tmp_path / "run")
    with served(run) as (server, kept):
        browser = browse(network(server), OTHERS)
        browser.wait("document.getElementById('photo').checkVisibility()")
        photo = tmp_path / "photo.png"
        Image.new("RGB", (40, 30), (250, 30, 20)).save(photo)
        browser.choose_file(photo)
        browser.wait(READY)
        for label in ("blue", "green"):  # the second thought counts
            browser.run("document.getElementById('wrong').click()")
            browser.run(
                f"[...document.querySelectorAll('#labels button')].find(b => b.innerText === '{label}').click()"
            )
            browser.wait(f"document.getElementById('kept-text').innerText.includes('{label}')")
        files = [path for path in (run / "corrections").rglob("*") if path.is_file()]
        assert [path.parent.name for path in files] == ["green"] and files[0].read_bytes() == photo.read_bytes()
        assert kept.count == 1
        assert not [text for text in browser.complaints() if "Opener-Policy" not in text]  # ignored on plain http


def test_a_live_frame_is_kept_as_it_was_when_it_was_marked(tmp_path: Path, browse: Browse) -> None:
    run = make_run(tmp_path / "run")
    with served(run) as (server, _):
        browser = browse(server.url, *camera(tmp_path, 200, 30, 40))
        browser.wait(READY)
        browser.run("document.getElementById('wrong').click()")
        browser.run("document.querySelector('#labels button:nth-child(3)').click()")
        browser.wait("document.getElementById('kept-text').innerText")
        (file,) = (run / "corrections" / LABELS[2]).iterdir()
        picture = decode(file)
        assert picture.shape == (480, 640, 3) and np.abs(picture.mean((0, 1)) - (200, 30, 40)).max() < 6
        browser.wait("!document.getElementById('video').paused")  # and it goes on


def test_a_photo_chosen_while_a_frame_is_at_the_model_is_what_is_shown_and_kept(tmp_path: Path, browse: Browse) -> None:
    run = make_run(tmp_path / "run")
    with served(run) as (server, _):
        browser = browse(server.url, *camera(tmp_path, 30, 30, 220))
        browser.wait(f"{READY} === 'blue'")
        browser.run(
            """const post = Worker.prototype.postMessage;
            Worker.prototype.postMessage = function (...given) { setTimeout(() => post.apply(this, given), 400); };"""
        )
        time.sleep(0.1)  # the next frame is on its way, and arrives after the photo has been drawn
        photo = tmp_path / "photo.png"
        Image.new("RGB", (40, 30), (20, 220, 30)).save(photo)
        browser.choose_file(photo)
        browser.wait(f"{READY} === 'green'")
        browser.run("document.getElementById('wrong').click()")
        browser.run("document.querySelector('#labels button').click()")
        browser.wait("document.getElementById('kept-text').innerText")
        (file,) = (run / "corrections" / LABELS[0]).iterdir()
        assert file.read_bytes() == photo.read_bytes()


def test_a_reload_and_a_second_phone_work_as_the_first(tmp_path: Path, browse: Browse) -> None:
    with served(make_run(tmp_path / "run")) as (server, kept):
        flags = camera(tmp_path, 30, 30, 220)
        first, second = browse(server.url, *flags), browse(server.url, *flags)
        for browser in (first, second):
            assert browser.wait(READY) == "blue"
        first.call("Page.reload")
        first.wait("document.readyState === 'complete' && !document.getElementById('label').textContent")
        assert first.wait(READY) == "blue"
        for browser, label in ((first, 1), (second, 2)):
            browser.run("document.getElementById('wrong').click()")
            browser.run(f"document.querySelector('#labels button:nth-child({label})').click()")
            browser.wait("document.getElementById('kept-text').innerText")
        assert kept.count >= 1
        assert {path.name for path in kept.folder.iterdir()} >= {LABELS[1]}


def test_when_the_computer_has_gone_a_correction_says_so(tmp_path: Path, browse: Browse) -> None:
    with served(make_run(tmp_path / "run")) as (server, _):
        browser = browse(server.url, *camera(tmp_path, 30, 30, 220))
        browser.wait(READY)
        browser.call(
            "Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0
        )
        browser.run("document.getElementById('wrong').click()")
        browser.run("document.querySelector('#labels button').click()")
        assert "softedge try" in browser.wait("document.getElementById('problem').innerText")
        assert browser.text("label") == "blue"  # the model is on the phone: it goes on
