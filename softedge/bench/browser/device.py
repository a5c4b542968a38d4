"""Any phone or tablet as a device: it opens a page served from here, which runs the models in onnxruntime-web.

``browser:`` plain http in the local network (one thread: browsers give more to secure pages only), ``browser:https=1``
with a generated certificate (threads, WebGPU; the phone asks once whether to trust it), ``browser:adb=1`` over a cable
to Android's Chrome through ``adb reverse`` (threads, WebGPU).  ``threads=4``, ``backend=webgpu``, ``host=ADDRESS``,
``port=8080``, ``wait=600`` (seconds until somebody opens the page), ``adb=SERIAL``; ``name=pixel8`` files the results
of different phones apart.

Nothing is installed on the phone.  A browser has no public name for its processor and clocks, and its timer is coarse
(its step is recorded); what it measures is the model in that browser, not in a native app.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from softedge.bench import latency
from softedge.bench.base import DeviceError, FolderDevice, Measurement, TimingPlan, integer
from softedge.bench.browser import address as browser_address
from softedge.bench.browser import ort_web
from softedge.bench.browser.results import MOST_SAMPLES, Answer, Row, printable
from softedge.bench.browser.server import BINARY, KINDS, Page
from softedge.bench.browser.serving import serving
from softedge.bench.browser.visit import Visit
from softedge.errors import UserError, did_you_mean
from softedge.export.base import open_format
from softedge.progress import say, track
from softedge.records import LABELLED, Artifact

_PIECE_BYTES = 4 << 20  # of images per request
_CANVAS = "browser canvas: its smoothing is the browser's own, not the antialiased resize of the contract"


class Browser(FolderDevice):
    """Serves the page, waits for a browser, hands it the plan, checks what comes back."""

    formats = ("onnx",)
    called = "a browser"
    known_options = ("name", "threads", "backend", "host", "port", "https", "adb", "wait")
    silent_options = ("host", "port", "https", "adb", "wait")

    def __init__(self, spec: str, address: str, options: Mapping[str, str]):
        super().__init__(spec, address, options)
        if address:
            raise UserError(f"device {spec}: browser takes options only, for example browser:host={address}")
        self.backend = self.options.get("backend", "wasm")
        if self.backend not in ort_web.BACKENDS:
            raise UserError(
                f"device {spec}: backend={self.backend}{did_you_mean(self.backend, tuple(ort_web.BACKENDS))}"
            )
        for option in ("https", "adb"):
            if self.options.get(option) == "0":
                del self.options[option]
        if self.options.get("https", "1") != "1" or {"https", "adb"} <= set(self.options):
            raise UserError(f"device {spec}: use either https=1 or adb=1 (adb=SERIAL)")
        self.wait_s, self.port = integer(self.options, "wait", 300), integer({"port": "1", **options}, "port", 1)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with self._stack:
            files = ort_web.files(self.backend)
            cable = "adb" in self.options
            host = self.options.get("host") or ("127.0.0.1" if cable else browser_address.lan_address())
            port, https = self.port if "port" in self.options else 0, "https" in self.options
            self.server = self._stack.enter_context(serving(f"device {self.spec}", host, port, https=https))
            self.visit = Visit(self.server, self.spec)
            self.server.pages |= _page_files() | {f"ort/{name}": Page.of(path) for name, path in files.items()}
            self.server.pages["tiny.onnx"] = Page(BINARY, _tiny_model())
            self.url = self.server.url
            if cable:
                self.url = self._stack.enter_context(self._cable())
            else:
                say(f"{self.spec}: open this address on the phone (same network): {self.url}")
                browser_address.show_qr(self.url)
            self._stack = self._stack.pop_all()
        return self

    def _cable(self) -> contextlib.AbstractContextManager[str]:
        from softedge.bench.browser.cable import opened_on_phone

        serial = "" if self.options["adb"] == "1" else self.options["adb"]
        return opened_on_phone(self.spec, serial, self.server)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def describe(self) -> dict[str, Any]:
        """The browser's description of itself; waits until somebody opens the page."""
        about = printable(self.visit.wait_for_browser(self.wait_s).model_dump(exclude_none=True))
        values: dict[str, Any] = {
            "name": about["model"] or self.options.get("name") or f"a browser on {about['platform'] or 'this device'}",
            "os": about.pop("platform"),
            "cores": about.pop("cores", None),
            "runtimes": {ort_web.PACKAGE: ort_web.VERSION},
            **about,
        }
        return {key: value for key, value in values.items() if value not in (None, "")}

    def work(self, folder: Path, artifacts: Sequence[Artifact], plan: TimingPlan) -> list[Measurement]:
        self.visit.wait_for_browser(self.wait_s)
        images = np.load(plan.images, mmap_mode="r")
        columns = {a.name: len(a.labels) if a.output in LABELLED else None for a in artifacts}
        self.visit.start(self._job(artifacts, plan, images), columns, len(images), lambda a: self._summary(a, plan))
        for _ in track(self.visit.percents(plan.time_limit_s), f"bench {self.spec}", total=100):
            pass
        answer = self.visit.answer
        assert answer is not None
        return [
            self._measurement(artifact, row, answer, plan) for artifact, row in zip(artifacts, answer.rows, strict=True)
        ]

    def _job(self, artifacts: Sequence[Artifact], plan: TimingPlan, images: np.ndarray[Any, Any]) -> dict[str, Any]:
        """The plan for the page, and everything it will fetch into the server's table."""
        pages = self.server.pages
        entries = []
        for index, artifact in enumerate(artifacts):
            pages[f"model/{index}"] = Page.of(artifact.path)
            entries.append(
                {
                    "name": artifact.name,
                    "file": f"model/{index}",
                    "outputs": f"outputs/{index}",
                    "detections": artifact.output == "detections",
                    "integers": integers(artifact),
                }
            )
        piece = max(1, _PIECE_BYTES // int(np.prod(images.shape[1:])))
        for number, start in enumerate(range(0, len(images), piece)):
            pages[f"images/{number}"] = Page(BINARY, lambda s=start: images[s : s + piece].tobytes())  # type: ignore[misc]
        for index, path in enumerate(plan.encoded):
            pages[f"encoded/{index}"] = Page.of(path)
        keys = ("min_count", "min_seconds", "warmup", "slice_ms", "slice_count", "seed", "threads", "end_to_end_count")
        return {
            "artifacts": entries,
            "backend": self.backend,
            "module": next(iter(ort_web.BACKENDS[self.backend])),
            "images": {"count": len(images), "piece": piece, "shape": list(images.shape[1:])},
            "encoded": [KINDS.get(path.suffix.lower(), BINARY) for path in plan.encoded],
            "spec": plan.spec.to_dict(),
            **{key: getattr(plan, key) for key in keys},
            "most_samples": MOST_SAMPLES // 2,  # a slice more still fits into what is accepted
        }

    def _measurement(self, artifact: Artifact, row: Row, answer: Answer, plan: TimingPlan) -> Measurement:
        if row.skipped:
            return Measurement(artifact.name, artifact.sha256, skipped=f"failed: {printable({'': row.skipped})['']}")
        if row.sha256 != artifact.sha256:
            raise DeviceError(f"{artifact.name} was corrupted in transfer to the phone (its hash differs); try again")
        about = self.visit.wait_for_browser(0)
        adapter = printable({"": about.webgpu})[""]
        # Both keep float files in f32; the runtime does not report what it computes int8 and fp16 files in.
        precision = "f32" if artifact.precision == "fp32" else ""
        step, runs = answer.timer_resolution_ms, row.runs_per_sample
        means = f"this browser's clock has steps of {step:.3g} ms: each sample is the mean of {runs} runs"
        return Measurement(
            artifact.name,
            artifact.sha256,
            not_timed=self._why_not_timed(answer),
            samples_ms=row.samples_ms,
            rounds=row.rounds,
            runs_per_sample=runs,
            load_ms=row.load_ms,
            first_ms=row.first_ms,
            outputs=self.visit.outputs[artifact.name],
            end_to_end_ms={str(key): values for key, values in row.end_to_end_ms.items()},
            end_to_end_skipped=row.end_to_end_skipped,
            runtime=f"{ort_web.PACKAGE} {printable({'': answer.version})[''] or ort_web.VERSION}",
            accelerator=f"{self.backend} ({adapter})" if self.backend == "webgpu" else self.backend,
            threads=answer.threads,
            effective_precision=precision,
            details={
                "threads_asked": plan.threads,
                "cross_origin_isolated": about.cross_origin_isolated,
                "timer_resolution_ms": step,
                **({"caveat": means} if runs > 1 else {}),
                "hidden_ms": answer.hidden_ms,
                "seconds": answer.seconds,
                "prepared_with": _CANVAS,
            },
        )

    def _why_not_timed(self, answer: Answer) -> str:
        if not answer.hidden_ms:
            return ""
        return (
            f"not valid: the page was in the background for {answer.hidden_ms / 1000:.1f} s while it measured (phone "
            "locked, or another app in front); keep it in front and run this again"
        )

    def _summary(self, answer: Answer, plan: TimingPlan) -> dict[str, Any]:
        """What the page shows at the end: statistics come from latency.py, as everywhere."""
        notes = [why] if (why := self._why_not_timed(answer)) else []
        if answer.threads < plan.threads:
            notes.append(f"{answer.threads} thread, {plan.threads} were asked for: this needs https=1 or adb=1.")
        rows: list[dict[str, Any]] = []
        for row in answer.rows:
            if row.skipped or not row.samples_ms:
                rows.append({"name": row.name, "why": row.skipped or "no samples"})
            else:
                figures = latency.percentiles(row.samples_ms)
                rows.append({"name": row.name, "n": len(row.samples_ms), **figures})
        return {"rows": rows, "notes": notes}


def integers(artifact: Artifact) -> dict[str, Any] | None:
    """What the page makes of an output in integers: its scale, zero point and kind; None for one in float."""
    edge = open_format(artifact.target).integer_edges(artifact).get("output")
    return {**edge, "output": artifact.output} if edge else None


def _page_files() -> dict[str, Page]:
    here = Path(__file__).parent
    named = {"": "page.html", "page.css": "page.css", "page.js": "page.js"}
    named |= {name: name for name in ("worker.js", "integers.js", "sha256.js")}
    return {name: Page.of(here / file) for name, file in named.items()}


def _tiny_model() -> bytes:
    """The smallest ONNX file that runs: one Identity.  Loading it starts the runtime."""
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "tiny", [x], [y])
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()
    )
