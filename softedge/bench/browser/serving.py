"""A server on this machine's address in the network, with a certificate where https is asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from softedge.bench.browser import address
from softedge.bench.browser.server import Server
from softedge.errors import UserError
from softedge.files import temporary_folder
from softedge.progress import say


@contextlib.contextmanager
def serving(who: str, host: str, port: int = 0, *, https: bool = False, one_browser: bool = True) -> Iterator[Server]:
    """A running server on ``host`` (0.0.0.0: all networks; port 0: any), closed at the end.

    who: what messages begin with.  UserError when the address cannot be listened on.
    """
    with contextlib.ExitStack() as stack:
        pair = None
        if https:
            folder = stack.enter_context(temporary_folder("https"))
            certificate, key, fingerprint = address.certificate(host, folder)
            pair = str(certificate), str(key)
            say(f"{who}: the phone will warn of an unknown certificate; its SHA-256 is {fingerprint}")
        try:
            server = Server(host, port, pair, one_browser=one_browser)
        except (OSError, OverflowError) as error:  # a port beyond 65535
            where, why = f"{host}:{port or 'any port'}", getattr(error, "strerror", None) or error
            raise UserError(f"{who}: cannot listen on {where} ({why})") from error
        stack.callback(server.close)
        if host == "0.0.0.0":  # on all networks; the address to show is still one
            server.host = address.lan_address()
        yield server
