"""The page as a folder of static files: an installable web app that works offline, on any https host."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tempfile
from pathlib import Path

from softedge.bench.browser.server import POLICY
from softedge.errors import UserError
from softedge.files import a_place_for, make_folder
from softedge.live.subject import LiveModel

_MARK = "service-worker.js"  # a folder that has this and nothing foreign may be replaced
_HERE = Path(__file__).parent
# In a <meta> element browsers ignore frame-ancestors, with a warning.
_POLICY = POLICY.replace("; frame-ancestors 'none'", "") + "; manifest-src 'self'"
_GROUND, _ACCENT = "#0f1115", "#6ea8fe"


def write(subject: LiveModel, folder: Path, name: str) -> int:
    """Write the app into ``folder`` all at once; returns its size in bytes.

    name: what the phone's home screen shows.  An app there is replaced; UserError for a folder with other files.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--app {folder} is a file; give a new folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / _MARK).is_file():
        raise UserError(f"--app {folder} is not empty and holds no app of softedge; give a new folder")
    files = _files(subject.without_photos(), name)
    make_folder(folder.parent)
    with a_place_for(folder):
        beside = tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent)
    with beside as temporary:
        app = Path(temporary) / "app"
        for path, data in files.items():
            (app / path).parent.mkdir(parents=True, exist_ok=True)
            (app / path).write_bytes(data)
        if folder.exists():
            os.replace(folder, Path(temporary) / "earlier")
        shutil.move(app, folder)
    return sum(map(len, files.values()))


def _files(subject: LiveModel, name: str) -> dict[str, bytes]:
    """Path below the app -> content."""
    files = {path or "index.html": _bytes(page.body) for path, page in subject.pages(app=True).items()}
    head = f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n  <meta charset="utf-8">'
    links = '<link rel="manifest" href="manifest.webmanifest">\n  <link rel="apple-touch-icon" href="icon-192.png">'
    html = files["index.html"].decode()
    html = html.replace('<meta charset="utf-8">', head).replace('<link rel="icon" href="data:,">', _icon() + links)
    files["index.html"] = html.encode()
    files["manifest.webmanifest"] = json.dumps(_manifest(name), indent=1).encode()
    files |= {f"icon-{size}.png": _picture(size) for size in (192, 512)}
    files[_MARK] = _service_worker(files)
    return files


def _bytes(body: object) -> bytes:
    assert isinstance(body, bytes)
    return body


def _icon() -> str:
    return '<link rel="icon" href="icon-192.png">\n  '


def _manifest(name: str) -> dict[str, object]:
    icons = [
        {"src": f"icon-{size}.png", "sizes": f"{size}x{size}", "type": "image/png", "purpose": "any maskable"}
        for size in (192, 512)
    ]
    return {
        "name": name,
        "short_name": name[:12],
        "start_url": "./",
        "scope": "./",
        "display": "standalone",
        "background_color": _GROUND,
        "theme_color": _GROUND,
        "icons": icons,
    }


def _picture(size: int) -> bytes:
    """The icon, a PNG: a square with one softer corner, inside the circle that launchers may cut out."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (size, size), _GROUND)
    side = [size * 0.28, size * 0.28, size * 0.72, size * 0.72]
    draw = ImageDraw.Draw(image)
    draw.rounded_rectangle(side, size * 0.22, _ACCENT)
    draw.rounded_rectangle([side[0], side[1], size * 0.6, size * 0.6], size * 0.07, _ACCENT)
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()


def _service_worker(files: dict[str, bytes]) -> bytes:
    """Its version is the hash of everything it keeps, so that a browser sees a new app as new."""
    text = (_HERE / _MARK).read_text()
    digest = hashlib.sha256(text.encode())
    for path in sorted(files):
        digest.update(path.encode() + b"\0" + hashlib.sha256(files[path]).digest())
    listed = ", ".join(json.dumps(path) for path in ["./", *sorted(files.keys() - {"index.html"})])
    text = text.replace("/* files */", listed).replace("/* version */", digest.hexdigest()[:16])
    return text.replace("/* policy */", _POLICY).encode()
