"""A kind of notice for one thing: kinds are written for several, "pictures have copies", and are often counted once."""

from __future__ import annotations

import re

_PHRASES = {  # what follows "their" and "whether" goes on about several, or about one
    "their images are": "its image is",
    "their annotations say": "its annotation says",
    "their boxes were": "its boxes were",
    "of their name": "of its name",
    "to their image's": "to its image's",
    "whether the boxes are": "whether the boxes\0are",
    "those around their masks": "the one around its mask",
    "of them have": "of them has",
}
_NOUNS = {"boxes": "box"} | {
    f"{noun}s": noun for noun in ("annotation", "image", "kind", "mask", "object", "photo", "picture")
}
_VERBS = {"are": "is", "have": "has", "do": "does", "reach": "reaches", "boxes\0are": "boxes are"}
_VERBS |= {verb: f"{verb}s" for verb in ("duplicate", "give", "list", "share", "stay")}


def counted(count: int, kind: str) -> str:
    """``2 pictures have copies: each counts``; ``1 picture has copies: each counts``."""
    if count != 1:
        return f"{count} {kind}"
    head, colon, rest = kind.partition(":")
    for several, one in _PHRASES.items():
        head = head.replace(several, one)
    words = re.split(" ", head)
    first = next((index for index, word in enumerate(words[:2]) if word in _NOUNS), None)
    if first is not None:
        words[first] = _NOUNS[words[first]]
    words = [_VERBS.get(word.rstrip(","), word.rstrip(",")) + "," * word.endswith(",") for word in words]
    return f"1 {' '.join(words)}{colon}{rest}"
