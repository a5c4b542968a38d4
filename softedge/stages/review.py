"""``softedge review``: look through the images of a folder, and decide."""

from __future__ import annotations

import os
from pathlib import Path

from softedge.data.label_table import FILE
from softedge.errors import UserError
from softedge.files import expanded
from softedge.progress import plural, say

_LOCAL = ("127.0.0.1", "localhost", "::1")


def review(
    data: str | Path, order: str | Path | None = None, *, https: bool = False, host: str = "127.0.0.1", port: int = 0
) -> tuple[int, Path]:
    """Show the images of the folder ``data`` in a browser until Ctrl-C; returns the decisions made, and their file.

    order: a CSV file with the names of images: these, in this order.  host: where to listen; 0.0.0.0 lets phones in.
    """
    from softedge.bench.browser import address
    from softedge.live import review as live
    from softedge.live import review_order
    from softedge.live.serve import until_interrupted

    root = expanded(data).resolve()
    if not root.is_dir():
        raise UserError(f"review goes through a folder of image files, and '{data}' is none")
    if not os.access(root, os.W_OK):
        raise UserError(f"review writes {FILE} into {data}, which cannot be written to; copy the folder")
    reviewed = live.Review(root)
    chosen = review_order.Order()
    if order is not None:
        chosen = review_order.read(Path(order), {name: i for i, name in enumerate(reviewed.names)})
        if chosen.missing:
            say(f"review: {plural(chosen.missing, 'row')} of {order} without an image of {data} left out")
    with live.page(reviewed, chosen, host, port, https=https) as server:
        say(f"review: {plural(len(reviewed.names), 'image')}; open {server.url}")
        if host not in _LOCAL:
            address.show_qr(server.url)
        until_interrupted("review: Ctrl-C ends it; every decision is kept at once")
    return reviewed.count, root / FILE
