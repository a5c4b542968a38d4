"""Silence for third-party converters: their progress bars and version warnings mean nothing to a user."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[io.StringIO]:
    """Run the block without its prints, warnings and log lines; exceptions pass through untouched.

    Yields what would have gone to stderr, for libraries whose exceptions say less than what they print.
    """
    disabled, said = logging.root.manager.disable, io.StringIO()
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stderr(said),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield said
    finally:
        logging.disable(disabled)
