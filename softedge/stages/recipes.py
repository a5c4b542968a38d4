"""``softedge recipes``: which there are, what one resolves to, and settings for a data set and a machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from softedge import config
from softedge.errors import positive, quoted, whole
from softedge.files import expanded


def available() -> dict[str, Path]:
    """The recipes that come with softedge: name -> file."""
    return config.available()


def show(name: str, set: Sequence[str] = ()) -> str:
    """A recipe as TOML, every default spelled out; comments say which values a file sets."""
    return config.shown(name, set)


def suggest(data: str, minutes: float = 30.0, size: int = 0) -> str:
    """The command that suits a data set, this machine and about ``minutes`` of pretraining, and why, as text.

    size: of the input in pixels; 0: chosen from the images.
    """
    from softedge.ssl.suggest import for_data
    from softedge.stages.planning import SSL_EPOCHS

    minutes, size = positive("minutes", minutes), whole("size", size, 0)
    config.build({"data": {"size": size or config.Data().size}}, source="--size")  # the largest is known there
    text = for_data(data, minutes, size, most=SSL_EPOCHS[1]).text(data)
    advice = f" The whole deployment: softedge plan --data {quoted(data)}" if expanded(data).is_dir() else ""
    return f"{text}\n\nThis is for pretraining from random weights.{advice}"
