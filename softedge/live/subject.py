"""Which exported file is tried, and everything that its page needs to know."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from softedge.bench.browser import ort_web
from softedge.bench.browser.device import Browser, integers
from softedge.bench.browser.server import Page
from softedge.errors import UserError, did_you_mean, quoted
from softedge.eval.measures import PRESENT
from softedge.export import contract
from softedge.export.base import open_format
from softedge.live.corrections import folder_names
from softedge.progress import say
from softedge.records import LABELLED, Artifact
from softedge.run import Run

_BACKEND = "wasm"
_PRECISIONS = ("int8", "int8-search", "fp16", "fp32")  # the first that is there and was not refused is shown
_HERE = Path(__file__).parent
_BROWSER = Path(ort_web.__file__).parent


@dataclass(frozen=True)
class LiveModel:
    """An ONNX classifier with its golden images."""

    artifact: Artifact
    golden: contract.Golden

    @property
    def labels(self) -> tuple[str, ...]:
        return self.artifact.labels

    def without_photos(self) -> LiveModel:
        """The same file with coloured noise as golden images: an app is published, the user's pictures are not."""
        rng, size = np.random.default_rng(0), self.artifact.spec.size
        coarse = rng.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
        images = np.stack([np.asarray(Image.fromarray(image).resize((size, size))) for image in coarse])
        expected = open_format(self.artifact.target).load(self.artifact)(images)
        return LiveModel(self.artifact, contract.Golden(images, expected, expected))

    def about(self, app: bool) -> dict[str, Any]:
        """What the page knows: no path and no name of this machine in it.  app: without a computer behind it."""
        return {
            "name": self.artifact.name,
            "sha256": self.artifact.sha256,
            "size_bytes": self.artifact.size_bytes,
            "labels": list(self.labels),
            "integers": integers(self.artifact),
            "present_from": PRESENT if self.artifact.output == "scores" else None,
            "folders": folder_names(self.labels),
            "preprocessing": self.artifact.spec.to_dict(),
            "tolerance": open_format(self.artifact.target).tolerance(self.artifact.precision).replay,
            "golden": [[float(value) for value in row] for row in self.golden.expected],
            "runtime": ort_web.VERSION,
            "int8": self.artifact.is_int8,
            "app": app,
        }

    def pages(self, app: bool = False) -> dict[str, Page]:
        """Address below the page -> what is there; fetches onnxruntime-web where the cache has none."""
        names = ("page.css", "page.js", "classifier.js", "worker.js", "pixels.js", "keeping.js")
        runtime = ort_web.files(_BACKEND)
        return {
            "": Page.of(_HERE / "page.html"),
            **{name: Page.of(_HERE / name) for name in names},
            **{name: Page.of(_BROWSER / name) for name in ("integers.js", "sha256.js")},
            **{f"ort/{name}": Page.of(path) for name, path in runtime.items()},
            "model.onnx": Page.of(self.artifact.path),
            "golden.bin": Page("application/octet-stream", self.golden.images.tobytes()),
            "about.json": Page("application/json", json.dumps(self.about(app)).encode()),
        }


def choose(run: Path, file: str | None = None) -> LiveModel:
    """The file ``export/<file>`` of a run: int8 where none is asked for, else fp16, else fp32; none that failed a gate
    of ``check`` while another did not.  A line says so where the file that is taken failed.

    UserError when there is none, it is not an ONNX file in one piece, or it is not a classifier.
    """
    exports = Path(run) / "export"
    if not Path(run).is_dir():
        raise UserError(f"{run} is not there; give a run folder, e.g. runs/mine")
    if not exports.is_dir() and not (Path(run) / "recipe.toml").is_file():
        raise UserError(f"{run} is not a softedge run (it has no recipe.toml); give a run folder, e.g. runs/mine")
    known = sorted(path.parent.name for path in exports.glob(f"*/{contract.FILE}"))
    targets = {name: contract.describe(exports / name).get("target") for name in known}
    usable = [name for name in known if targets[name] in Browser.formats]
    if not usable:
        raise UserError(f"{run} has no exported ONNX file; run: softedge export {quoted(run)} --targets onnx")
    refused = _refused(run)
    wanted = [f"{target}-{precision}" for precision in _PRECISIONS for target in Browser.formats]
    there = [name for name in wanted if name in usable] or usable
    name = file or next((name for name in there if name not in refused), there[0])
    if name not in usable:
        why = " is not an ONNX file, and browsers run only those" if name in known else " is not there"
        raise UserError(f"--file {name}: {exports / name}{why}{did_you_mean(name, usable)}")
    artifact = contract.read(exports / name)
    if artifact.output not in LABELLED or not artifact.labels:
        raise UserError(
            f"{name} gives {artifact.output}, and there are labels to show for classifiers only; label some images, "
            f"then: softedge probe {quoted(run)}, softedge export {quoted(run)}"
        )
    if len(contract.model_files(artifact.path, artifact.target)) > 1:
        raise UserError(f"{name} is kept in several files, which the page cannot load; export a smaller network")
    if artifact.sha256 == refused.get(name, ("", ""))[0]:
        say(f"caution: {name} failed the check: {refused[name][1]}")
    elif file is None and name != there[0]:
        say(f"try: {there[0]} failed the check, so this is {name}; to see it all the same: --file {there[0]}")
    return LiveModel(artifact, contract.read_golden(exports / name))


def _refused(run: Path) -> dict[str, tuple[str, str]]:
    """Files that failed a gate -> their sha256 then, and why; empty where nothing was checked."""
    checked = Run(run).result("check")
    try:
        rows = checked.details["rows"] if checked else []
        return {row["artifact"]: (row["sha256"], row["why"]) for row in rows if row.get("passed") is False}
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{run / 'check/result.json'} is damaged; run: softedge check {quoted(run)} --force") from error
