"""``softedge setup``: environments of their own, for formats whose packages cannot stand beside softedge's."""

from __future__ import annotations

from collections.abc import Iterator

from softedge import registry
from softedge.errors import UserError
from softedge.export.base import Environment, Format, open_format
from softedge.progress import say


def setup(name: str) -> str:
    """Make the environment of a format, where it is not complete; a line.  UserError for one that needs none."""
    format_ = open_format(name)
    wanted = format_.environment()
    if wanted is None:
        others = ", ".join(format_.name for format_, _ in _with_environments()) or "none here"
        raise UserError(f"{format_.title} needs no environment of its own; formats that need one: {others}")
    if not wanted.complete:
        say(f"making {format_.title}'s environment in {wanted.folder} ({wanted.size}, some minutes)")
        wanted.make()
    ready = f"{format_.title}'s environment is ready in {wanted.folder}"
    return f"{ready}; export with: softedge export RUN --targets {name}"


def text() -> str:
    """The formats that need an environment, a line each."""
    rows = {
        format_.name: f"ready in {wanted.folder}"
        if wanted.complete
        else f"not made yet ({wanted.size}); make it with: softedge setup {format_.name}"
        for format_, wanted in _with_environments()
    }
    width = max(map(len, rows), default=0)
    return "\n".join(f"{name:<{width}}  {row}" for name, row in rows.items()) or "no format needs one"


def _with_environments() -> Iterator[tuple[Format, Environment]]:
    for kind in registry.formats():
        format_ = open_format(kind.name)
        if (wanted := format_.environment()) is not None:
            yield format_, wanted
