"""How the images of a model file are prepared, where the file comes from elsewhere: what the user, the file itself and
the files beside it say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from softedge.errors import UserError
from softedge.export.given_file import Interface
from softedge.progress import say
from softedge.records import InputSpec
from softedge.weights.preprocessing import Preprocessing, beside, by_name, warn_of_blue_first

_CROP = 0.875
_INSTEAD = "--mean and --std"
_NEAR = 1.1  # a factor between two ways to normalise that are the same


def stated(path: Path, asked: Mapping[str, Any]) -> Preprocessing | None:
    """What ``preprocessor_config.json`` or ``config.json`` beside the file says; None where the user says it all."""
    if all(asked.get(key) is not None for key in ("size", "mean", "std", "interpolation", "crop")):
        return None
    return beside(path, None, _INSTEAD)


def preprocessing(
    path: Path,
    interface: Interface,
    asked: Mapping[str, Any],
    own: Mapping[str, Any] | None = None,
    known: Preprocessing | None = None,
    white: float | None = None,
) -> tuple[InputSpec, str]:
    """What the user says, else what the file says of itself (``own``: keys as of ``InputSpec.to_dict``, some of them),
    else what stands beside it (``known``); and who says so.  A line says it, too.

    white: 255 or 1, where the network normalises images itself that reach up to that.
    Raises UserError where a file takes floats and nobody says how they are normalised.
    """
    sources: list[tuple[str, Mapping[str, Any]]] = [
        ("from {}", {key: asked.get(key) for key in ("mean", "std", "interpolation", "crop")}),
        ("from the file's own notes", own or {}),
    ]
    if known is not None:
        keys = ("mean", "std", "interpolation", "crop")
        sources.append((known.origin, {key: getattr(known, key) for key in keys}))
    if white is not None:
        itself = f"since it normalises values up to {white:g} itself"
        sources.append((itself, {"mean": (0.0,) * 3, "std": (1 / white,) * 3}))
    found: dict[str, Any] = {}
    origins: dict[str, None] = {}
    for origin, values in sources:
        new = [key for key, value in values.items() if value is not None and key not in found]
        if (new and "resize" in found) or "crop" in found:
            new = [key for key in new if key not in ("crop", "resize")]
        found |= {key: values[key] for key in new}
        named = [key for key in new if (key in ("mean", "std") and interface.kind != "uint8") or key == "interpolation"]
        if named:
            origins[origin.format(", ".join(f"--{key}" for key in named))] = None
    mean, std = found.get("mean"), found.get("std")
    if interface.kind == "uint8":
        if options := [f"--{key}" for key in ("mean", "std") if asked.get(key)]:
            raise UserError(f"{path} takes uint8 images and normalises them itself; leave out {' and '.join(options)}")
        mean, std = (0.0,) * 3, (1.0,) * 3
    elif mean is None or std is None:
        raise UserError(
            f"{path} takes float images, and does not say how they are normalised: give --mean and --std, of x / 255 "
            "(0.485,0.456,0.406 and 0.229,0.224,0.225 for most of ImageNet's weights, 0,0,0 and 1,1,1 for x / 255)"
        )
    elif interface.channels == 1 and len({*mean}) + len({*std}) > 2:
        raise UserError(f"{path} takes images of one channel, grey ones: give one value each with --mean and --std")
    elif white is not None and not (max(mean) == 0 and 1 / _NEAR < max(std) * white < _NEAR):
        say(
            f"warning: {path.name} normalises values up to {white:g} itself, and gets normalised ones; leave out "
            "--mean and --std if that is wrong"
        )
    if not interface.bgr and interface.channels == 3:
        warn_of_blue_first(mean, path.name, "the network takes")
    size, share = interface.size, found.get("crop") or _CROP
    resize = int(found["resize"]) if "resize" in found else max(size, round(size / share))
    spec = InputSpec(size, resize, tuple(mean), tuple(std), found.get("interpolation") or "bilinear")  # type: ignore[arg-type]
    origin = "; ".join(origins) or "assumed"
    if interface.kind == "uint8":
        say(f"{path.name}: images as they are, {spec.interpolation}, {origin}")
    else:
        say(f"{path.name}: {Preprocessing(spec.mean, spec.std, spec.interpolation, share, size, origin)}")
    return spec, by_name(origin, path)


def own_words(path: Path, text: str | None) -> Mapping[str, Any]:
    """The preprocessing in a file that softedge wrote, from its entry ``softedge.input``; {} in others."""
    if text is None:
        return {}
    try:
        return InputSpec.from_dict(json.loads(text)).to_dict()
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise UserError(f"{path}: its entry 'softedge.input' is damaged ({error}); export the file again") from error
