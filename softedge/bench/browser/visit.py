"""One browser's visit: it says hello, fetches a job, gives signs of life, posts outputs and an answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softedge.bench.base import DeviceError
from softedge.bench.browser import results
from softedge.bench.browser.server import Inbox, Refused, Server
from softedge.progress import say

SILENT_S = 45.0  # a page that gives no sign of life for so long is gone: it should every 2 s
RETURN_S = 10.0  # a page that said goodbye may be reloading
_SMALL = 64 * 1024


class Visit:
    """The server's side of the conversation.  Handlers run in the server's threads; ``percents`` waits in ours."""

    def __init__(self, server: Server, spec: str):
        self.spec = spec
        self.about: results.About | None = None
        self.answer: results.Answer | None = None
        self.outputs: dict[str, NDArray[np.float32]] = {}
        self._changed = threading.Condition()
        self._server = server
        self._job: Mapping[str, Any] | None = None
        self._names: Sequence[str] = ()
        self._summary: Callable[[results.Answer], Mapping[str, Any]] = lambda answer: {}
        self._progress, self._hidden, self._hidden_shown = 0.0, False, False
        self._seen = time.monotonic()
        self._gone_at: float | None = None
        self._failed = ""
        server.inboxes |= {
            "hello": Inbox(_SMALL, self._hello),
            "next": Inbox(_SMALL, self._next),
            "beat": Inbox(_SMALL, self._beat),
            "gone": Inbox(_SMALL, self._gone),
            "failed": Inbox(_SMALL, self._fail),
            "answer": Inbox(results.MOST_BYTES, self._take_answer),
        }

    def wait_for_browser(self, seconds: float) -> results.About:
        """What the browser reports about itself; DeviceError when nobody opens the page."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.about is not None, timeout=seconds):
                raise DeviceError(
                    f"{self.spec}: nobody opened {self._server.scheme}://{self._server.host}:{self._server.port} "
                    f"within {seconds:.0f} s; is the phone in the same network, and does a firewall or a guest network "
                    "stand between? Over a cable: browser:adb=1"
                )
            assert self.about is not None
            return self.about

    def start(
        self,
        job: Mapping[str, Any],
        columns: Mapping[str, int | None],
        count: int,
        summary: Callable[[results.Answer], Mapping[str, Any]],
    ) -> None:
        """Offer a job.  columns: artifact name -> width of its output where known.  count: images."""
        with self._changed:
            self._job, self._names, self._summary = job, list(columns), summary
            self.answer, self.outputs, self._progress = None, {}, 0.0
            self._seen = time.monotonic()
            for index, (name, width) in enumerate(columns.items()):
                self._server.inboxes[f"outputs/{index}"] = Inbox(
                    4 * count * (width or results.MOST_FEATURES), self._take_outputs(name, count, width)
                )

    def percents(self, limit_s: float) -> Iterator[int]:
        """Progress in percent, one by one, until the answer is there; DeviceError when it will not come."""
        deadline, shown = time.monotonic() + limit_s, 0
        while True:
            with self._changed:
                self._changed.wait(timeout=0.2)
                if self.answer is not None:
                    return
                percent = min(int(100 * self._progress), 99)
                self._check(deadline, limit_s, percent)
                if self._hidden and not self._hidden_shown:
                    say(
                        f"{self.spec}: the page is in the background or the phone is locked; bring it back to the front"
                    )
                self._hidden_shown = self._hidden
            yield from range(shown, percent)
            shown = max(shown, percent)

    def _check(self, deadline: float, limit_s: float, percent: int) -> None:
        now = time.monotonic()
        again = "keep it in front and the screen on until it says Done, then run this again"
        if self._failed:
            raise DeviceError(f"{self.spec}: the page failed at {percent} %: {self._failed}")
        if self._gone_at is not None and now - self._gone_at > RETURN_S:
            raise DeviceError(f"{self.spec}: the page was closed at {percent} %; {again}")
        if now - self._seen > SILENT_S:
            raise DeviceError(
                f"{self.spec}: the page stopped answering at {percent} % (phone locked, page in the background, out "
                f"of memory or out of the network); {again}"
            )
        if now > deadline:
            raise DeviceError(f"{self.spec}: no result within {limit_s:.0f} s (at {percent} %); use a shorter preset")

    def _alive(self) -> None:
        self._seen, self._gone_at = time.monotonic(), None
        self._changed.notify_all()

    def _hello(self, body: bytes) -> Mapping[str, Any]:
        about = results.read(results.About, body)
        with self._changed:
            if self.about is None:  # a reload changes nothing about the device
                self.about = about
            self._failed = ""
            self._alive()
        return {}

    def _next(self, body: bytes) -> Mapping[str, Any]:
        with self._changed:
            self._alive()
            if self._job is None:
                return {}
            if self.answer is not None:
                return {"over": "This benchmark is over; start it again on your computer."}
            return {"job": self._job}

    def _beat(self, body: bytes) -> Mapping[str, Any]:
        beat = results.read(results.Beat, body)
        with self._changed:
            self._progress, self._hidden = beat.progress, beat.hidden
            self._alive()
        return {}

    def _gone(self, body: bytes) -> Mapping[str, Any]:
        with self._changed:
            self._gone_at = time.monotonic()
            self._changed.notify_all()
        return {}

    def _fail(self, body: bytes) -> Mapping[str, Any]:
        reason = results.read(results.Failure, body).reason
        with self._changed:
            self._failed = results.printable({"reason": reason})["reason"]
            self._alive()
        return {}

    def _take_outputs(self, name: str, count: int, columns: int | None) -> Callable[[bytes], Mapping[str, Any]]:
        def take(body: bytes) -> Mapping[str, Any]:
            values = results.outputs(body, count, columns)
            with self._changed:
                self.outputs[name] = values
                self._alive()
            return {}

        return take

    def _take_answer(self, body: bytes) -> Mapping[str, Any]:
        answer = results.read(results.Answer, body)
        with self._changed:
            if self._job is None or [row.name for row in answer.rows] != list(self._names):
                raise Refused(400, "the posted answer is not about this benchmark's models")
            missing = [row.name for row in answer.rows if not row.skipped and row.name not in self.outputs]
            if missing:
                raise Refused(400, f"the outputs of {', '.join(missing)} did not arrive")
            summary = self._summary(answer)
            self.answer = answer
            self._alive()
        return summary
