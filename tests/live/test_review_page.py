"""The page of softedge review in a real Chromium, on a real server."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import Chromium
from PIL import Image

from softedge.bench.browser.server import Server
from softedge.data import decisions
from softedge.live.review import Review, page
from softedge.live.review_order import Order

Browse = Callable[..., Chromium]
pytestmark = pytest.mark.hardware
KEYS = {"Enter": 13, "ArrowLeft": 37, "ArrowRight": 39}


def photos(root: Path, folders: dict[str, int], side: int = 24) -> Path:
    """Class folders ("" for loose images) of as many noisy pictures."""
    rng = np.random.default_rng(0)
    for folder, count in folders.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / folder / f"{number:04d}.jpg")
    return root


@contextlib.contextmanager
def served(root: Path, order: Order | None = None) -> Iterator[tuple[Server, Review]]:
    review = Review(root)
    with page(review, order or Order()) as server:
        yield server, review


def stored(root: Path) -> dict[str, str]:
    """Name -> its label, or the other state."""
    return {name: made.label or made.state for name, made in (decisions.read(root) or {}).items()}


def press(browser: Chromium, key: str) -> None:
    values: dict[str, Any] = {"key": key, "windowsVirtualKeyCode": KEYS.get(key, ord(key[0].upper()))}
    text = "\r" if key == "Enter" else key
    browser.call("Input.dispatchKeyEvent", type="keyDown", **values, **({"text": text} if len(text) == 1 else {}))
    browser.call("Input.dispatchKeyEvent", type="keyUp", **values)


def shown(browser: Chromium) -> str:
    """The name of the image that a decision is about."""
    names = "[document.querySelector('figure.selected .name'), document.querySelector('figure .name')]"
    return str(browser.run(f"{names}.find(Boolean)?.textContent ?? ''"))


def ready(browser: Chromium) -> str:
    browser.wait("document.querySelector('figure img')?.naturalWidth")
    return shown(browser)


def wait_for(root: Path, expected: dict[str, str]) -> None:
    until = time.monotonic() + 10
    while stored(root) != expected and time.monotonic() < until:
        time.sleep(0.05)
    assert stored(root) == expected


def tap(browser: Chromium, script: str) -> None:
    """A finger on the middle of an element."""
    box = browser.run(f"(b => [b.x + b.width / 2, b.y + b.height / 2])(({script}).getBoundingClientRect())")
    point = {"x": box[0], "y": box[1]}
    browser.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[point])
    browser.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])


def test_keys_decide_undo_and_go_back(tmp_path: Path, chromium: Browse) -> None:
    root = photos(tmp_path / "photos", {"cat": 3, "dog": 2})
    with served(root) as (server, _):
        browser = chromium(server.url)
        assert ready(browser) == "cat/0000.jpg"
        for key in ("Enter", "2", "x", "d", "s"):
            press(browser, key)
        expected = {"cat/0000.jpg": "cat", "cat/0001.jpg": "dog", "cat/0002.jpg": "wrong"}
        expected |= {"dog/0000.jpg": "duplicate", "dog/0001.jpg": "skip"}
        wait_for(root, expected)
        assert "Everything here is decided" in browser.wait("document.getElementById('notice').innerText")
        for key in ("z", "z"):
            press(browser, key)
        wait_for(root, {name: made for name, made in expected.items() if not name.startswith("dog")})
        assert shown(browser) == "dog/0000.jpg"
        press(browser, "ArrowLeft")
        assert shown(browser) == "cat/0002.jpg" and "wrong" in browser.text("pictures")
        press(browser, "1")  # the second thought counts
        wait_for(root, {"cat/0000.jpg": "cat", "cat/0001.jpg": "dog", "cat/0002.jpg": "cat"})
        assert shown(browser) == "dog/0000.jpg"  # on to what is undecided
        assert browser.complaints() == []
        assert all(url.startswith((server.url, "blob:", "data:")) for url in browser.requested())


def test_test_images_are_marked_and_a_list_of_doubts_warns_of_them(tmp_path: Path, chromium: Browse) -> None:
    root = photos(tmp_path / "photos", {"cat": 2, "dog": 1})
    with served(root, Order("wrong_labels.csv", images=[1, 0], tested=[1])) as (server, _):
        browser = chromium(server.url)
        assert ready(browser) == "cat/0001.jpg"
        assert browser.text("tested").startswith("A test image. Correct test labels only if you look at all")
        assert browser.run("document.querySelector('figure .badge').textContent") == "test"
        press(browser, "ArrowRight")
        assert shown(browser) == "cat/0000.jpg" and browser.run("document.getElementById('tested').hidden")
        assert not browser.run("document.querySelector('figure .badge')")
        browser.run(
            "(s => { s.value = 'all'; s.dispatchEvent(new Event('change')); })(document.getElementById('show'))"
        )
        press(browser, "ArrowRight")
        assert shown(browser) == "cat/0001.jpg" and browser.run("document.getElementById('tested').hidden")
        assert browser.run("document.querySelector('figure .badge').textContent") == "test", "who looks at all sees it"


def test_thumbs_decide_and_a_swipe_goes_on(tmp_path: Path, chromium: Browse) -> None:
    root = photos(tmp_path / "photos", {"cat": 2, "dog": 2})
    with served(root) as (server, _):
        browser = chromium(server.url)
        browser.call("Emulation.setTouchEmulationEnabled", enabled=True)
        ready(browser)
        assert browser.run(
            "document.documentElement.scrollWidth <= 390 && document.documentElement.scrollHeight <= 844"
        )
        sizes = browser.run(
            "[...document.querySelectorAll('button')].filter(b => b.checkVisibility()).map(b => b.offsetHeight)"
        )
        assert min(sizes) >= 44  # CSS pixels: a thumb
        tap(browser, "document.querySelector('#classes button:nth-child(2)')")
        wait_for(root, {"cat/0000.jpg": "dog"})
        tap(browser, "document.getElementById('wrong')")
        wait_for(root, {"cat/0000.jpg": "dog", "cat/0001.jpg": "wrong"})
        assert shown(browser) == "dog/0000.jpg"
        for start, end, name in ((300, 60, "dog/0001.jpg"), (60, 300, "dog/0000.jpg")):
            browser.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": start, "y": 300}])
            for x in np.linspace(start, end, 6).tolist():
                browser.call("Input.dispatchTouchEvent", type="touchMove", touchPoints=[{"x": x, "y": 302}])
            browser.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
            assert shown(browser) == name
        assert len(stored(root)) == 2  # nothing was decided by that


def test_a_reload_and_a_second_start_go_on_where_it_stopped(tmp_path: Path, chromium: Browse) -> None:
    root = photos(tmp_path / "photos", {"": 5})
    (root / "labels.csv").write_text("name,label\n0000.jpg,cat\n0003.jpg,dog\n")
    with served(root) as (server, _):
        browser = chromium(server.url)
        assert ready(browser) == "0001.jpg"
        press(browser, "2")
        wait_for(root, {"0000.jpg": "cat", "0001.jpg": "dog", "0003.jpg": "dog"})
        browser.call("Page.reload")
        browser.wait("document.readyState === 'complete' && !!document.querySelector('figure .name')")
        assert shown(browser) == "0002.jpg" and browser.text("count") == "3 of 5 decided"
    with served(root) as (server, _):
        assert ready(chromium(server.url)) == "0002.jpg"


def test_a_class_is_typed_and_has_a_key_afterwards(tmp_path: Path, chromium: Browse) -> None:
    root = photos(tmp_path / "photos", {"": 3})
    with served(root) as (server, _):
        browser = chromium(server.url)
        ready(browser)
        press(browser, "t")
        browser.wait("document.getElementById('choose').open")
        browser.call("Input.insertText", text="Äpfel <b>")
        press(browser, "Enter")
        wait_for(root, {"0000.jpg": "Äpfel <b>"})
        browser.wait("document.querySelectorAll('#classes button').length === 2")
        press(browser, "1")
        wait_for(root, {"0000.jpg": "Äpfel <b>", "0001.jpg": "Äpfel <b>"})


def test_two_windows_lose_no_label_and_a_late_one_is_told(tmp_path: Path, chromium: Browse) -> None:
    root = photos(tmp_path / "photos", {"cat": 2, "dog": 2})
    with served(root) as (server, _):
        first, second = chromium(server.url), chromium(server.url)
        for browser in (first, second):
            ready(browser)
        press(first, "2")
        wait_for(root, {"cat/0000.jpg": "dog"})
        press(second, "x")  # on the same image, not knowing of the first
        assert "Another window decided ‘dog’" in second.wait("document.getElementById('notice').innerText")
        assert shown(second) == "cat/0000.jpg" and "dog" in second.text("pictures")
        assert stored(root) == {"cat/0000.jpg": "dog"}
        press(second, "x")
        wait_for(root, {"cat/0000.jpg": "wrong"})
        assert shown(second) == "cat/0001.jpg"
        press(first, "1")
        press(second, "ArrowRight")
        press(second, "2")
        wait_for(root, {"cat/0000.jpg": "wrong", "cat/0001.jpg": "cat", "dog/0000.jpg": "dog"})
        assert first.wait("document.getElementById('count').innerText.startsWith('2 of')")


def test_a_damaged_table_is_said_and_the_decision_is_shown_as_not_saved(tmp_path: Path, chromium: Browse) -> None:
    root = photos(tmp_path / "photos", {"cat": 2, "dog": 2})
    with served(root) as (server, _):
        browser = chromium(server.url)
        ready(browser)
        (root / "labels.csv").write_text('name,label\n"half')
        press(browser, "2")
        words = browser.wait("document.getElementById('notice').innerText")
        assert "cannot be read" in words and "not saved" in words and str(tmp_path) not in words
        assert shown(browser) == "cat/0000.jpg" and browser.text("count") == "0 of 4 decided"
        (root / "labels.csv").unlink()
        press(browser, "2")
        wait_for(root, {"cat/0000.jpg": "dog"})


def test_an_image_that_is_gone_can_be_passed(tmp_path: Path, chromium: Browse) -> None:
    root = photos(tmp_path / "photos", {"cat": 2, "dog": 2})
    with served(root) as (server, _):
        (root / "cat/0000.jpg").unlink()
        browser = chromium(server.url)
        assert "No picture" in browser.wait("document.querySelector('.gone')?.innerText")
        press(browser, "s")
        assert ready(browser) == "cat/0001.jpg"
        wait_for(root, {"cat/0000.jpg": "skip"})


def test_when_the_computer_has_gone_a_decision_says_so(tmp_path: Path, chromium: Browse) -> None:
    root = photos(tmp_path / "photos", {"cat": 2, "dog": 2})
    with served(root) as (server, _):
        browser = chromium(server.url)
        ready(browser)
        network = {"latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        browser.call("Network.emulateNetworkConditions", offline=True, **network)
        press(browser, "x")
        assert "softedge review" in browser.wait("document.getElementById('notice').innerText")
        assert shown(browser) == "cat/0000.jpg" and stored(root) == {}


def test_pairs_stand_side_by_side_and_the_training_image_of_a_leak_is_decided_about(
    tmp_path: Path, chromium: Browse
) -> None:
    root = photos(tmp_path / "photos", {"train/cat": 3, "train/dog": 1, "test/cat": 1, "test/dog": 1})
    index = {name: i for i, name in enumerate(Review(root).names)}
    train = [index[f"train/cat/000{i}.jpg"] for i in range(3)]
    pairs = [(train[0], index["test/cat/0000.jpg"], "leak"), (train[1], train[2], "same"), (train[0], train[1], "same")]
    with served(root, Order("near_copies.csv", pairs=pairs)) as (server, _):
        browser = chromium(server.url)
        browser.wait("[...document.querySelectorAll('figure img')].filter(i => i.naturalWidth).length === 2")
        assert shown(browser) == "train/cat/0000.jpg" and "leak" in browser.text("pictures")
        press(browser, "d")
        browser.wait("document.querySelector('.name').textContent === 'train/cat/0001.jpg'")
        assert shown(browser) == "train/cat/0002.jpg"
        press(browser, "o")
        assert shown(browser) == "train/cat/0001.jpg"
        press(browser, "s")  # keeps both; the third pair is settled by the first
        wait_for(root, {"train/cat/0000.jpg": "duplicate", "train/cat/0001.jpg": "skip", "train/cat/0002.jpg": "skip"})
        assert "Everything here is decided" in browser.wait("document.getElementById('notice').innerText")


def test_a_thousand_images_stay_fluid(tmp_path: Path, chromium: Browse) -> None:
    """The next pictures are fetched ahead and there within 0.2 s of the key (median), and no label is lost."""
    root = photos(tmp_path / "photos", {"": 1000}, side=64)
    rows = "".join(f"{i:04d}.jpg,{'cat' if i % 2 else 'dog'}\n" for i in range(900))
    (root / "labels.csv").write_text("name,label\n" + rows)
    with served(root) as (server, review):
        browser = chromium(server.url)
        assert ready(browser) == "0900.jpg"
        asked = {url.rpartition("/")[2] for url in browser.requested() if "/picture/" in url}
        assert asked == {str(number) for number in range(900, 905)}  # none of the 900 before
        times = browser.run(
            """(async () => {
            const frame = () => new Promise(requestAnimationFrame), times = [];
            for (let n = 901; n < 941; n++) {
              const began = performance.now();
              document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "1", bubbles: true }));
              const there = () => document.querySelector(`figure img[alt="0${n}.jpg"]`)?.naturalWidth;
              while (!there()) await frame();
              times.push(performance.now() - began);
            }
            return times;
        })()"""
        )
        assert np.median(times) < 200, times  # milliseconds; higher quantiles are those of a busy machine
        browser.wait("document.getElementById('count').innerText === '940 of 1,000 decided'")
        until = time.monotonic() + 20
        while review.count < 40 and time.monotonic() < until:
            time.sleep(0.05)
        assert len(stored(root)) == 940
