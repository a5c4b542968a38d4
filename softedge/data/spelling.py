"""When two names of classes may be one class: what is left of a name without its spelling."""

from __future__ import annotations

import re
import unicodedata

_NUMBER = re.compile(r"[+-]?\d{1,100}(?:\.0*)?")


def number_in(text: str) -> str | None:
    """``0`` of ``0``, ``00``, ``+0`` and ``0.0``; None for what is no whole number."""
    return str(int(text.partition(".")[0])) if _NUMBER.fullmatch(text) else None


def bare(name: str) -> str:
    """A class's name without capitals, kinds of spaces and the zeros before a number: "Hot_dog 01" is "hot dog 1"."""
    words = re.split(r"[\s_]+|(?<=[^\W\d])-(?=[^\W\d])", unicodedata.normalize("NFKC", name).casefold().strip())
    return " ".join(number_in(word) or word for word in words) or name
