"""The text of the page, as a browser sets it."""

from __future__ import annotations

import re

_OTHER = re.compile(r"(<(style|script|svg|title|pre)\b.*?</\2>|<!--.*?-->|<[^>]*>)", re.DOTALL)  # and any tag
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")


def unbroken(page: str) -> str:
    """The page with each option in its text set so that no line breaks within it; else ``--minutes`` does after ``--``.

    An element does it, and no word joiner: that would be copied with a command.
    """
    parts = _OTHER.split(page)  # text, what is none, the name of its element
    del parts[2::3]
    parts[::2] = [_OPTION.sub(r'<span class="option">\g<0></span>', text) for text in parts[::2]]
    return "".join(parts)
