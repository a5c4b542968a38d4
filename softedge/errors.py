"""The two ways a command ends early on purpose. Everything else is a bug and keeps its traceback."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can mend: one line that says what was asked, what was found, what to do. Exit code 2."""


class GateFailed(Exception):
    """The work was done and the answer is no: a check, a verification or a gate failed. Exit code 1."""


def did_you_mean(word: str, known: list[str] | tuple[str, ...]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest known word, else a list of what is known."""
    import difflib

    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; known: {', '.join(sorted(known))}"
