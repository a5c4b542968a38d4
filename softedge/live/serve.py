"""The page in this network, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from softedge.bench.browser import address
from softedge.bench.browser.server import Inbox, Server
from softedge.bench.browser.serving import serving
from softedge.errors import Terminated
from softedge.live.corrections import AT_MOST, Corrections
from softedge.live.subject import LiveModel
from softedge.progress import say

_WHO = "try"


@contextlib.contextmanager
def page(
    subject: LiveModel, corrections: Path, host: str = "", port: int = 0, *, https: bool = False
) -> Iterator[tuple[Server, Corrections]]:
    """Serve the page of ``subject`` on ``host`` (by default the address in the local network).

    corrections: the folder for pictures that are marked as wrong.  Any browser that has the address may use it.
    """
    pages, kept = subject.pages(), Corrections(corrections, subject.labels)
    with serving(_WHO, host or address.lan_address(), port, https=https, one_browser=False) as server:
        server.inboxes["wrong"] = Inbox(AT_MOST, kept.take)
        server.pages |= pages
        yield server, kept


def until_interrupted(line: str) -> None:
    """Say ``line`` and wait for Ctrl-C or SIGTERM: they are how this command ends, and no error."""
    with contextlib.suppress(KeyboardInterrupt, Terminated):
        say(line)  # from here on: who reads it may press the keys at once
        threading.Event().wait()
