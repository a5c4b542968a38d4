"""The images of a folder and the decisions about them, as the page of ``softedge review`` sees and makes them."""

from __future__ import annotations

import contextlib
import datetime
import functools
import io
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from softedge.bench.browser.server import Inbox, Page, Refused, Server
from softedge.bench.browser.serving import serving
from softedge.data import decisions, folders, label_table
from softedge.data.decisions import LONGEST, STATES, Decision
from softedge.data.decoding import BadImage
from softedge.data.images import EncodedImages
from softedge.data.label_table import FILE, LABEL, Row, Table, class_name
from softedge.errors import UserError
from softedge.live.review_order import Order

AT_MOST = 4000  # bytes of one post
_WHO = "review"
_SIDE = 1024  # pixels of the longer side of a shown picture, about
_CACHED = 64  # pictures, 0.1 to 0.3 MB each
_HERE = Path(__file__).parent


class Review:
    """Decisions of any number of windows, one at a time; each is in ``labels.csv`` before it is answered.

    Every decision has a number, and a window says which one it has seen of the image that it decides: one that has not
    seen the latest is warned and decides again.
    """

    def __init__(self, root: Path):
        self.root = root
        inventory = folders.find(root, str(root), reviewed=False)
        self.names: list[str] = []
        self.folders: list[str] = []  # the class that the folder says, "" for none
        self.splits: list[str] = []
        self._images: list[tuple[EncodedImages, int]] = []
        for split, images in inventory.splits.items():
            assert isinstance(images, EncodedImages)
            self.names += images.names
            self.folders += [inventory.classes[label] if label >= 0 else "" for label in images.labels.tolist()]
            self.splits += [split] * len(images)
            self._images += [(images, i) for i in range(len(images))]
        self._index = {name: i for i, name in enumerate(self.names)}
        self.classes = list(inventory.classes)
        self.version, self.count = 0, 0  # the number of the latest decision; decisions of this start
        self._lock, self._stamp = threading.Lock(), self._now()
        self._versions: dict[str, int] = {}
        self._table, self._decisions = self._read()
        self._stood: dict[str, tuple[Decision | None, tuple[Row, ...]]] = {}  # before the first decision of this start
        self._pictures: OrderedDict[int, bytes] = OrderedDict()
        self._picture_lock = threading.Lock()

    def _now(self) -> tuple[int, int] | None:
        with contextlib.suppress(FileNotFoundError):
            status = (self.root / FILE).stat()
            return status.st_mtime_ns, status.st_size
        return None

    def _read(self) -> tuple[Table, dict[str, Decision]]:
        table = label_table.read(self.root)
        saved = decisions.of_table(self.root, table)
        for decision in saved.values():
            if decision.state == LABEL and decision.label not in self.classes:
                self.classes.append(decision.label)
        return table, saved

    def start(self) -> dict[str, Any]:
        """All that a window begins with, but the pictures."""
        with self._lock:
            return {
                "images": [list(row) for row in zip(self.names, self.folders, self.splits)],
                **self._since(-1),
            }

    def _change(self, name: str) -> list[Any]:
        decision = self._decisions.get(name)
        return [decision.state if decision else "", decision.label if decision else "", self._versions.get(name, 0)]

    def _since(self, version: int) -> dict[str, Any]:
        """The decisions since; all of them since -1."""
        known = self._decisions.keys() | self._versions.keys() if version < 0 else self._versions.keys()
        later = [name for name in known if name in self._index and self._versions.get(name, 0) > version]
        changes = {self._index[name]: self._change(name) for name in later}
        return {"version": self.version, "classes": self.classes, "changes": changes}

    def sync(self, body: bytes) -> Mapping[str, Any]:
        """``{"since": number}``: the decisions since, of all windows."""
        with self._lock:
            return self._since(_whole(_values(body), "since"))

    def decide(self, body: bytes) -> Mapping[str, Any]:
        """``{"image", "state", "label", "seen", "since"}``; the state "" takes the decision back.

        The answer is that of ``sync``, with ``stale``: whether another decision stood there, and this one was not made.
        Raises Refused.
        """
        values = _values(body)
        image, seen, since = (_whole(values, key) for key in ("image", "seen", "since"))
        state, label = values.get("state"), values.get("label", "")
        if not 0 <= image < len(self.names) or state not in ("", *STATES) or not isinstance(label, str):
            raise Refused(400, "this is not a decision about one of the images")
        name = self.names[image]
        with self._lock:
            self._catch_up()
            stale = self._versions.get(name, 0) != seen
            if not stale:
                self._save(name, self._decision(state, label) if state else None)
            answer = self._since(since)
            answer["changes"][image] = self._change(name)
            return {"stale": stale, **answer}

    def _decision(self, state: str, label: str) -> Decision:
        if state == LABEL:
            label = class_name(label)
            if not label or len(label) > LONGEST or not label.isprintable():
                raise Refused(400, f"a class name has 1 to {LONGEST} printable letters")
            if label not in self.classes:
                twin = next((known for known in self.classes if known.casefold() == label.casefold()), None)
                if twin is not None:
                    raise Refused(400, f"there is a class '{twin}' already")
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        return Decision(state, label if state == LABEL else "", now)

    def _save(self, name: str, decision: Decision | None) -> None:
        after = {key: value for key, value in self._decisions.items() if key != name}
        if decision is not None:
            after[name] = decision
        table = self._changed(name, decision)
        try:
            label_table.write(self.root, table)
        except OSError as error:
            raise Refused(507, f"{FILE} cannot be written: {error.strerror or error}") from error
        self._stood.setdefault(name, (self._decisions.get(name), self._table.rows_of(name)))
        self._table, self._decisions, self._stamp = table, after, self._now()
        self._number(name)
        self.count += 1
        if decision is not None and decision.state == LABEL and decision.label not in self.classes:
            self.classes.append(decision.label)

    def _changed(self, name: str, decision: Decision | None) -> Table:
        """The table with a decision; one that stood there before this start gets its own rows back."""
        if name in self._stood:
            before, rows = self._stood[name]
            if (before and before.says()) == (decision and decision.says()):
                return self._table.restored(name, rows)
        if decision is None:
            return self._table.cleared(name)
        return self._table.decided(name, decision.state, decision.label, decision.time)

    def _number(self, name: str) -> None:
        self.version += 1
        self._versions[name] = self.version

    def _catch_up(self) -> None:
        """Take over what another program wrote into the file meanwhile."""
        now = self._now()
        if now == self._stamp:
            return
        try:
            table, saved = self._read()
        except UserError as error:
            text = str(error).replace(f"{self.root}/", "")
            raise Refused(409, f"{text}. Nothing was saved.") from error
        for name in saved.keys() | self._decisions.keys():
            after, before = saved.get(name), self._decisions.get(name)
            if (after and after.says()) != (before and before.says()):
                self._number(name)
        for name in list(self._stood):
            if table.rows_of(name) != self._table.rows_of(name):
                del self._stood[name]
        self._table, self._decisions, self._stamp = table, saved, now

    def picture(self, image: int) -> bytes:
        """A JPEG of about 1024 pixels.  Refused where the file is gone or no picture."""
        with self._picture_lock:
            if image in self._pictures:
                self._pictures.move_to_end(image)
                return self._pictures[image]
        images, at = self._images[image]
        try:
            pixels = images.decode_smaller(at, _SIDE)
        except BadImage as error:
            raise Refused(410, str(error)) from error
        jpeg = _jpeg(pixels)
        with self._picture_lock:
            self._pictures[image] = jpeg
            while len(self._pictures) > _CACHED:
                self._pictures.popitem(last=False)
        return jpeg

    def pages(self, order: Order) -> dict[str, Page]:
        """Address below the page -> what is there."""
        chosen = order.to_dict()
        pages = {
            name: Page.of(_HERE / name) for name in ("page.css", "review.css", "review.js", "pictures.js", "keeping.js")
        }
        pages[""] = Page.of(_HERE / "review.html")
        pages["start.json"] = Page("application/json", lambda: json.dumps({**self.start(), **chosen}).encode())
        for i in range(len(self.names)):
            pages[f"picture/{i}"] = Page("image/jpeg", functools.partial(self.picture, i))
        return pages


@contextlib.contextmanager
def page(
    review: Review, order: Order, host: str = "127.0.0.1", port: int = 0, *, https: bool = False
) -> Iterator[Server]:
    """Serve the page until the end of the block.  Any browser that has the address may decide."""
    pages = review.pages(order)
    with alone(review.root), serving(_WHO, host, port, https=https, one_browser=False) as server:
        server.inboxes |= {"decide": Inbox(AT_MOST, review.decide), "sync": Inbox(AT_MOST, review.sync)}
        server.pages |= pages
        yield server


@contextlib.contextmanager
def alone(root: Path) -> Iterator[None]:
    """Hold the folder against a second review; nothing is written for it.  UserError when there is one."""
    try:
        import fcntl
    except ImportError:  # Windows: two reviews then find each other's changes before they write
        yield
        return
    folder = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise UserError(
            f"another softedge review has {root} open; open its address in as many windows as needed, or end it first"
        ) from error
    finally:
        os.close(folder)


def _jpeg(pixels: np.ndarray) -> bytes:
    picture = Image.fromarray(pixels)
    picture.thumbnail((2 * _SIDE, 2 * _SIDE))  # a panorama
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=85)
    return out.getvalue()


def _values(body: bytes) -> dict[str, Any]:
    try:
        values = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "the post is not JSON") from error
    if not isinstance(values, dict):
        raise Refused(400, "the post is not a JSON object")
    return values


def _whole(values: Mapping[str, Any], key: str) -> int:
    value = values.get(key)
    if type(value) is not int:
        raise Refused(400, f"'{key}' is not a whole number")
    return value
