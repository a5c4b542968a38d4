"""Files that the locale of this process cannot name: Python speaks of files in its encoding, and recipes in UTF-8."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Iterable

from softedge.errors import UserError


def refuse_unnamable(names: Iterable[str]) -> None:
    """UserError for a name with letters that the locale has not, as ``LC_ALL=C`` with ``PYTHONUTF8=0`` has only ASCII.

    names: as the system or the command line gave them, or as text.
    """
    encoding = sys.getfilesystemencoding()
    if codecs.lookup(encoding).name == "utf-8":
        return
    for name in names:
        text = name.encode(errors="surrogateescape").decode(errors="backslashreplace")
        try:
            os.fsencode(text)
        except UnicodeEncodeError as error:
            raise UserError(
                f"the locale of this process ({encoding}) cannot name files such as {text}; "
                "set LC_ALL=C.UTF-8, or PYTHONUTF8=1"
            ) from error
