"""The end of ``make lock``: requirements-test.lock holds what requirements.lock has not, and reads it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def rest(whole: str, users: str) -> str:
    """The lock file ``whole`` without the entries of ``users``; each is a package with its marker and hashes."""
    taken = set(_parts(users))
    head, *entries = _parts(whole)
    return (
        "\n".join([head, "--requirement requirements.lock", *(entry for entry in entries if entry not in taken)]) + "\n"
    )


def _parts(text: str) -> list[str]:
    """The comment at the top, then the entries."""
    return re.split(r"\n(?=\w)", text.rstrip("\n"))


if __name__ == "__main__":
    tests = ROOT / "requirements-test.lock"
    tests.write_text(rest(tests.read_text(), (ROOT / "requirements.lock").read_text()))
