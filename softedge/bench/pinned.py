"""Files made by others that a device needs: fetched once, checked against a hash in this code, then used offline."""

from __future__ import annotations

import base64
import hashlib
import urllib.error
import urllib.request
from pathlib import Path

from softedge.errors import UserError
from softedge.files import cache_folder as cache_folder  # where fetched files stay

_TIMEOUT_S = 60.0
_LARGEST = 400 << 20  # bytes; nothing that is pinned here comes near


def matches(data: bytes, pin: str) -> bool:
    """Whether ``data`` has the hash ``pin``: ``sha256:HEX`` or npm's ``sha512-BASE64``."""
    if pin.startswith("sha256:"):
        return hashlib.sha256(data).hexdigest() == pin.removeprefix("sha256:")
    return base64.b64encode(hashlib.sha512(data).digest()).decode() == pin.removeprefix("sha512-")


def holds(path: Path, pin: str) -> bool:
    """Whether the file is there, undamaged."""
    return path.is_file() and matches(path.read_bytes(), pin)


def download(urls: list[str], pin: str, what: str) -> bytes:
    """The content of the first address that gives exactly the pinned bytes; UserError with every reason otherwise."""
    reasons = []
    for url in urls:
        try:
            with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
                data = answer.read(_LARGEST)
        except (OSError, ValueError, urllib.error.URLError) as error:
            reasons.append(f"{url}: {getattr(error, 'reason', None) or error}")
            continue
        if matches(data, pin):
            return bytes(data)
        reasons.append(f"{url}: the {len(data)} bytes there do not have the expected hash")
    raise UserError(
        f"{what} could not be fetched ({'; '.join(reasons)}); connect to the internet once, or fill the cache"
    )
