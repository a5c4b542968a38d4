"""One annotation file in Pascal VOC's format, as LabelImg, Roboflow, CVAT and the VOC devkit write it."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

from softedge.data import decoding
from softedge.data.decoding import BadImage

_LARGEST = 1e7  # pixels; beyond it a coordinate is damage
_DECLARED = re.compile(rb"""^\s*<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z0-9._-]+)["'][^>]*\?>""")
_DECLARATION = re.compile(r"^\s*<\?xml[^>]*\?>")

Box = tuple[float, float, float, float]


class BadAnnotation(Exception):
    """A file that cannot be read as an annotation; the message is the reason, for a person."""


@dataclass(frozen=True)
class Object:
    """box: corner coordinates x1 y1 x2 y2, pixels."""

    name: str
    box: Box
    difficult: bool


@dataclass(frozen=True)
class Annotation:
    """size: width and height as the file says, None where it does not.  unusable: objects without a name or a box.
    filename: of the picture, as the file says; programs that rename pictures leave it behind.
    """

    objects: tuple[Object, ...]
    size: tuple[int, int] | None
    unusable: int
    filename: str = ""


def read(path: Path) -> Annotation:
    """Raises ``BadAnnotation`` with the reason, FileNotFoundError when there is no such file."""
    root = _parse(path)
    objects, unusable = [], 0
    for element in root.iter("object"):
        name = (element.findtext("name") or "").strip()
        box = _box(element.find("bndbox"))
        if not name or box is None:
            unusable += 1
            continue
        objects.append(Object(name, box, (element.findtext("difficult") or "0").strip() == "1"))
    filename = (root.findtext("filename") or "").strip().replace("\\", "/")
    return Annotation(tuple(objects), _size(root.find("size")), unusable, filename.rpartition("/")[2])


def _parse(path: Path) -> ET.Element:
    """The tree, without namespaces and in whatever encoding the file declares: expat knows only a few."""
    try:
        path.stat()  # FileNotFoundError, or another reason, for the caller
        data = decoding.read(path)
    except FileNotFoundError:
        raise
    except (OSError, BadImage) as error:
        raise BadAnnotation(f"cannot be opened ({getattr(error, 'strerror', None) or error})") from error
    try:
        if declared := _DECLARED.match(data.removeprefix(b"\xef\xbb\xbf")):
            encoding = declared[1].decode("ascii")
            encoding = "utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding
            root = ET.fromstring(_DECLARATION.sub("", data.decode(encoding), count=1))
        else:
            root = ET.fromstring(data)
    except UnicodeDecodeError as error:
        raise BadAnnotation(f"is not text in {error.encoding}, as it declares") from error
    except LookupError as error:
        raise BadAnnotation(f"declares an unknown encoding ({error})") from error
    except (ET.ParseError, ValueError) as error:
        raise BadAnnotation(f"is not XML ({error})") from error
    for element in root.iter():
        if isinstance(element.tag, str):
            element.tag = element.tag.rsplit("}", 1)[-1]
    return root


def _box(element: ET.Element | None) -> Box | None:
    """1-based inclusive pixels to corner coordinates: (xmin - 1, ymin - 1, xmax, ymax), as in Detectron2."""
    if element is None:
        return None
    try:
        x1, y1, x2, y2 = (float(element.findtext(key) or "") for key in ("xmin", "ymin", "xmax", "ymax"))
    except ValueError:
        return None
    if not all(abs(value) < _LARGEST for value in (x1, y1, x2, y2)):  # not a number, infinite or damaged
        return None
    return x1 - 1, y1 - 1, x2, y2


def _size(element: ET.Element | None) -> tuple[int, int] | None:
    if element is None:
        return None
    try:
        width, height = (int(float(element.findtext(key) or "")) for key in ("width", "height"))
    except (ValueError, OverflowError):
        return None
    return width, height
