"""Ready code beside an exported model: makes of a photo what the model expects, and runs it; checks itself on a golden
image.

The templates are files in the ``snippets`` folder of each format, whole programs with a few @NAMES@ to fill in from
the contract. @PHOTO@ is the preprocessing, one text a language in ``photos``: orientation, transparency, resizing and
crop as ``softedge.data.decoding`` does them, so that an app cannot get them wrong. The compiled ones read the names of
the outputs from ``labels.txt``, one on each line: C++ and Kotlin bring no JSON.
"""

from __future__ import annotations

import re
from pathlib import Path

from softedge.export import contract
from softedge.export.base import open_format
from softedge.records import InputSpec
from softedge.run import write_text

PHOTOS = Path(__file__).parent / "photos"


def write(folder: Path) -> list[Path]:
    """Fill in the templates of the format in ``folder``'s contract and write them to ``folder/snippets``."""
    values = contract.describe(folder)
    spec = InputSpec.from_dict(values["preprocessing"])
    filled = {
        "@MODEL@": values["model"],
        "@SIZE@": str(spec.size),
        "@RESIZE@": str(spec.resize),
        "@CUBIC@": str(spec.interpolation == "bicubic").lower(),
        "@RESAMPLING@": spec.interpolation.upper(),
        "@OUTPUT@": values["output"]["name"],
        "@OUTPUTS@": str(values["output"]["shape"][1]),
        "@TOLERANCE@": repr(float(values["tolerance"]["replay"])),
    }
    written = []
    for template in open_format(values["target"]).snippets():
        text = template.read_text()
        if "@PHOTO@" in text:
            photo = PHOTOS / f"photo{template.name.removeprefix('run')}"
            text = text.replace("@PHOTO@", photo.read_text().rstrip("\n"))
        for key, value in filled.items():
            text = text.replace(key, value)
        path = folder / "snippets" / template.name.removesuffix(".txt")
        write_text(path, text)
        written.append(path)
    if values["labels"] and written:
        path = folder / "snippets" / "labels.txt"
        write_text(path, "".join(re.sub(r"[\r\n]+", " ", label) + "\n" for label in values["labels"]))
        written.append(path)
    return written
