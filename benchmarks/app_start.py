"""How long the web app of ``softedge try --app`` takes to its first answer, in Chromium on one core.

python benchmarks/app_start.py SITE --starts 5     # SITE: what softedge try RUN --app SITE wrote

Server and browser share the core.  First visits have a fresh profile; later ones come from the browser's own storage.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "live"))
from chromium import Chromium  # type: ignore[import-not-found]

CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
ANSWERED = "!!document.getElementById('label').textContent"
KEPT = "document.getElementById('about').textContent.includes('kept on this device')"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("site", type=Path)
    parser.add_argument("--starts", type=int, default=5)
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    handler = functools.partial(Quiet, directory=str(options.site))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/"
    seconds: dict[str, list[float]] = {"first visit": [], "later visit": []}
    for _ in range(options.starts):
        with tempfile.TemporaryDirectory() as profile:
            browser = Chromium(Path(profile), *CAMERA)
            for visit in seconds:
                begun = time.monotonic()
                browser.open(url)
                browser.wait(ANSWERED)
                seconds[visit].append(time.monotonic() - begun)
                browser.wait(KEPT)
                browser.call("Page.navigate", url="about:blank")
            browser.close()
    for visit, values in seconds.items():
        print(f"{visit}: median {statistics.median(values):.2f} s ({min(values):.2f} to {max(values):.2f})")


if __name__ == "__main__":
    main()
