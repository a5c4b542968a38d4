"""Ready code beside an exported model: loads it, runs one golden image, says whether the answer is the expected one.

The templates are files in the ``snippets`` folder of each format, whole programs with a few @NAMES@ to fill in from
the contract. The compiled ones read the names of the outputs from ``labels.txt``, one on each line: C++ and Kotlin
bring no JSON.
"""

from __future__ import annotations

import re
from pathlib import Path

from softedge.export import contract
from softedge.export.base import open_format
from softedge.run import write_text


def write(folder: Path) -> list[Path]:
    """Fill in the templates of the format in ``folder``'s contract and write them to ``folder/snippets``."""
    values = contract.describe(folder)
    size = values["preprocessing"]["size"]
    filled = {
        "@MODEL@": values["model"],
        "@SIZE@": str(size),
        "@OUTPUT@": values["output"]["name"],
        "@OUTPUTS@": str(values["output"]["shape"][1]),
        "@TOLERANCE@": repr(float(values["tolerance"]["replay"])),
        "@BEFORE@": values["before_the_model"],
    }
    written = []
    for template in open_format(values["target"]).snippets():
        text = template.read_text()
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
