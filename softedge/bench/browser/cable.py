"""A page over the cable: ``adb reverse`` makes this computer's port the phone's own ``localhost``.

To a browser localhost is a secure place, so threads and WebGPU work without a certificate.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from softedge.bench.android.adb import Adb, quoted
from softedge.bench.base import DeviceError
from softedge.bench.browser.server import Server
from softedge.progress import say


@contextlib.contextmanager
def opened_on_phone(spec: str, serial: str, server: Server) -> Iterator[str]:
    """Forward the server's port and open the page on the phone; yields the address.  serial "": the only phone."""
    client = Adb(spec, serial)
    client.connect()
    try:
        port = f"tcp:{server.port}"
        client.run("reverse", port, port)
        try:
            url = f"{server.scheme}://localhost:{server.port}/{server.token}/"
            client.shell(quoted("am", "start", "-a", "android.intent.action.VIEW", "-d", url))
            say(f"{spec}: opening the page in the browser of {client.serial}; if it does not appear, open {url} there")
            yield url
        finally:
            with contextlib.suppress(DeviceError):  # a phone that is gone forwards nothing
                client.run("reverse", "--remove", port)
    finally:
        client.close()
