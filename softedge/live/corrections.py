"""Pictures that were answered wrongly, kept under their right label in the layout that ``softedge data`` reads."""

from __future__ import annotations

import hashlib
import io
import json
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from softedge.bench.browser.server import Refused
from softedge.data.decoding import BadImage, decode
from softedge.run import write_bytes

AT_MOST = 20_100_000  # bytes of one post: the label and a picture of 20 MB
MOST = 2000  # pictures of one start
_LINE = 1000  # bytes before the picture
_ENDINGS = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "MPO": ".jpg"}  # MPO: JPEG of a phone with a second picture


def folder_names(labels: Sequence[str]) -> list[str]:
    """A folder name for each label, all different: the label itself where it can be one."""
    names: list[str] = []
    for label in labels:
        name = re.sub(r'[\x00-\x1f\x7f/\\:*?"<>|]', "_", label).strip(" .")[:100] or "_"
        while name.casefold() in {other.casefold() for other in names}:
            name += "_"
        names.append(name)
    return names


class Corrections:
    """The folder ``corrections/`` of a run; ``take`` is what the page posts to, from any of the server's threads."""

    def __init__(self, folder: Path, labels: Sequence[str]):
        self.folder, self.names = Path(folder), folder_names(labels)
        self.count = 0  # of this start
        self._lock = threading.Lock()

    def take(self, body: bytes) -> Mapping[str, Any]:
        """``{"label": index}``, a line break, the bytes of a JPEG, PNG or WebP.  Returns how many were kept.

        The file is named by its content, so a second tap is one picture, and the last label of a picture counts.
        Raises Refused.
        """
        head, _, picture = body.partition(b"\n")
        name = self._name(head[:_LINE])
        try:
            ending = _ending(picture)
            decode(picture)
        except BadImage as error:
            raise Refused(400, f"the picture cannot be read: {error}") from error
        with self._lock:
            if self.count >= MOST:
                raise Refused(429, f"{MOST} pictures are kept already; start softedge try again for more")
            file = hashlib.sha256(picture).hexdigest()[:16] + ending
            earlier = [path for path in self.folder.glob(f"*/{file}") if path.parent.name != name]
            known = (self.folder / name / file).exists() or earlier
            write_bytes(self.folder / name / file, picture)
            for path in earlier:
                path.unlink()
            self.count += not known
            return {"kept": self.count}

    def _name(self, head: bytes) -> str:
        try:
            label = json.loads(head)["label"]
        except (ValueError, KeyError, TypeError) as error:
            raise Refused(400, "the post does not begin with a label") from error
        if type(label) is not int or not 0 <= label < len(self.names):
            raise Refused(400, "the posted label is not one of the model's")
        return self.names[label]


def _ending(picture: bytes) -> str:
    """The ending by what the bytes are, never by what a browser says."""
    try:
        with Image.open(io.BytesIO(picture), formats=("JPEG", "PNG", "WEBP", "MPO")) as image:
            return _ENDINGS[str(image.format)]
    except Exception as error:  # Pillow's readers raise many kinds
        raise BadImage("not a JPEG, PNG or WebP") from error
