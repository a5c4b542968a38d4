"""Ready code beside an exported model: makes of a photo what the model expects, and runs it; checks itself on a golden
image.

The templates are files in the ``snippets`` folder of each format, whole programs with a few @NAMES@ to fill in from
the contract. @PHOTO@ is the preprocessing, one text a language in ``photos``: orientation, transparency, resizing and
crop as ``softedge.data.decoding`` does them, so that an app cannot get them wrong. What else the programs of a language
share, whatever runs the model, is in ``programs``: @BEGIN@ reads the files beside the model, @NAME@ says an answer in
words, @INTEGERS@ makes the output of a tensor of integers, @END@ checks the golden image, @ANDROID@ says how the files
get into an app. What depends on the model stands between lines @IF fact@ and @FI@ (``facts``): a program has the code
of its own model alone. The compiled ones read the names of the outputs from ``labels.txt``, one on each line: C++ and
Kotlin bring no JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from softedge.export import contract
from softedge.export.base import open_format
from softedge.records import InputSpec
from softedge.run import write_text

PHOTOS = Path(__file__).parent / "photos"
PROGRAMS = Path(__file__).parent / "programs"

_CONDITION = re.compile(r"^@IF ([a-z ]+)@\n(.*?)^@FI@(?:\n|\Z)", re.MULTILINE | re.DOTALL)


def preprocessing(ending: str, *parts: str) -> str:
    """What makes of a photo what a model expects, in the language of ``ending`` (``.py.txt``, ``.cpp`` ...).

    parts: the names of some of its files; all by default.
    """
    files = sorted(PHOTOS.glob(f"*{ending}"), reverse=True)  # upright before photo, which calls it
    return "\n\n\n".join(f.read_text().rstrip("\n") for f in files if not parts or f.name.split(".")[0] in parts)


def chosen(text: str, facts: Collection[str]) -> str:
    """``text`` with the lines between ``@IF a b@`` and ``@FI@`` where one of the names is among ``facts``."""
    return _CONDITION.sub(lambda found: found[2] if {*found[1].split()} & {*facts} else "", text)


def facts(values: Mapping[str, Any]) -> set[str]:
    """What templates ask of a contract: the kind of the output; whether its tensor is "float" or "integers", and then
    what the program computes of them ("softmax", "sigmoid" or "identity"); "white" and "runtime" where these are known.
    """
    kind = values["output"]["name"]
    known = {name for name, value in (("white", values.get("white")), ("runtime", runtime(values))) if value}
    if values["output"]["dtype"] != "uint8":
        return {kind, "float", *known}
    return {kind, "integers", values["output"].get("activation", "identity"), *known}


def runtime(values: Mapping[str, Any]) -> str:
    """What runs the file, with the version that was installed at export: "onnxruntime 1.32.0"; "" where unknown."""
    known = values.get("versions", {})
    name = next(iter(open_format(values["target"]).board_packages.values()), "")
    return f"{name} {known[name]}" if name in known else ""


def white(values: Mapping[str, Any]) -> str:
    """The value of white by the first letter of Pillow's mode, in Python."""
    return json.dumps(values.get("white", {}))


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
        "@TENSOR@": values["output"].get("tensor", values["output"]["name"]),
        "@SCALE@": repr(float(values["output"].get("scale", 1))),
        "@ZERO@": str(values["output"].get("zero_point", 0)),
        "@WHITE@": white(values),
        "@RUNTIME@": runtime(values),
        "@TOLERANCE@": repr(float(values["tolerance"]["replay"])),
    }
    written = []
    for template in open_format(values["target"]).snippets():
        text = template.read_text()
        ending = template.name.removeprefix("run")
        for part in ("android", "begin", "name", "integers", "end"):
            if (mark := f"@{part.upper()}@") in text:
                text = text.replace(mark, (PROGRAMS / f"{part}{ending}").read_text().rstrip("\n"))
        if "@PHOTO@" in text:
            text = text.replace("@PHOTO@", preprocessing(ending))
        text = chosen(text, facts(values))
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
