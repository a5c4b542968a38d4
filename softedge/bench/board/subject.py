"""One artifact in one process: load it, run it when told, say what really ran.  The other half of ``worker.py``.

Travels to boards: Python 3.8, NumPy and what the format's own runtime needs; no softedge import.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import os
import sys
import time
from typing import Any

import numpy as np
import pictures  # type: ignore[import-not-found]
import system  # type: ignore[import-not-found]


def serve(folder: str, index: int) -> None:
    """Load artifact ``index`` of FOLDER/plan.json, then answer commands from stdin, one JSON line each."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # runtimes print to stdout; that channel is ours

    def answer(values: dict[str, Any]) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    try:
        with open(os.path.join(folder, "plan.json")) as file:
            plan = json.load(file)
        subject = Subject(folder, plan, plan["artifacts"][index])
        answer(subject.loaded)
        for line in sys.stdin:
            answer(getattr(subject, line.strip())())
    except Exception as error:
        # Any kind: runtimes raise their own. One line goes into the table, with what was being done in it.
        text = " ".join(str(error).split())[:400]
        answer({"failed": text if isinstance(error, LookupError) else f"{type(error).__name__}: {text}"})


STEPS = 20  # of the clock in a sample: a step is then at most a twentieth of what is measured
MOST_RUNS = 1000  # in a sample


def clock_step(clock: Any = time.perf_counter) -> float:
    """The smallest step of a clock, in its own unit, seen in 5 ms (or in one step, where that is longer)."""
    smallest = float("inf")
    begun = last = clock()
    while last - begun < 0.005:
        now = clock()
        if now > last:
            smallest, last = min(smallest, now - last), now
    return smallest


def runs_per_sample(run: Any, step: float, clock: Any = time.perf_counter) -> int:
    """How many runs are timed as one, so that a sample is long against a step of the clock."""
    enough, runs = STEPS * step, 1
    while True:
        begun = clock()
        for _ in range(runs):
            run()
        took = clock() - begun
        if took >= enough:
            return min(MOST_RUNS, math.ceil(runs * enough / took))
        if runs >= MOST_RUNS:
            return MOST_RUNS
        runs *= 2


class Subject:
    """The artifact under measurement.  Public methods are the commands of the protocol."""

    def __init__(self, folder: str, plan: dict[str, Any], artifact: dict[str, Any]):
        self.folder, self.plan, self.name = folder, plan, artifact["name"]
        self.images = pictures.RowReader(os.path.join(folder, plan["images"]))
        hashes = [_sha256(os.path.join(folder, file)) for file in artifact["files"]]
        settings = {**artifact["settings"], "threads": plan["threads"]}
        path = os.path.join(folder, artifact["files"][0])
        try:
            self.model = importlib.import_module(artifact["runtime"]).Runtime(path, settings)
        except ImportError as error:
            needed = " ".join(artifact["packages"])
            problem = f"{needed} is not installed here: {error}; install it: {sys.executable} -m pip install {needed}"
            raise LookupError(problem) from error
        self.outputs: list[Any] = []
        self.next = 0
        begun = time.perf_counter()
        first = self.model.infer(self.images[0])
        first_ms = (time.perf_counter() - begun) * 1000
        if first.dtype != np.float32 or first.ndim != 2:
            raise LookupError(f"the output is {first.dtype} {first.shape}, expected float32 (1, classes)")
        for step in range(plan["warmup"]):
            self.model.infer(self.images[step % len(self.images)])
        tick = clock_step()
        self.runs = runs_per_sample(lambda: self.model.infer(self.images[0]), tick)
        self.loaded = {
            "sha256": hashes,
            "load_ms": self.model.load_ms,
            "first_ms": first_ms,
            "timer_resolution_ms": tick * 1000,
            "runs_per_sample": self.runs,
        }

    def round(self) -> dict[str, Any]:
        """One slice: an untimed inference (others used the caches since), then timed ones on the next images."""
        self.model.infer(self.images[self.next % len(self.images)])
        samples: list[float] = []
        spent = 0.0
        while spent < self.plan["slice_ms"] or len(samples) < self.plan["slice_count"]:
            images = [self.images[(self.next + i) % len(self.images)] for i in range(self.runs)]
            outputs = []
            begun = time.perf_counter()
            for image in images:
                outputs.append(self.model.infer(image))
            took = (time.perf_counter() - begun) * 1000
            samples.append(round(took / self.runs, 5))
            spent += took
            self.outputs += outputs[: max(0, len(self.images) - self.next)]
            self.next += self.runs
        return {"samples_ms": samples}

    def end_to_end(self) -> dict[str, Any]:
        """Decode a file, resize and crop it, run the model: what an app does for a photo."""
        files = self.plan["encoded"]
        if not files:
            return {"end_to_end_skipped": "nothing to decode end to end: no encoded images in this benchmark"}
        try:
            decode, resize, with_what = pictures.preparation(self.plan["spec"])
        except ImportError:
            return {"end_to_end_skipped": "neither Pillow nor OpenCV on this device; install one: pip install pillow"}
        samples: dict[str, list[float]] = {"decode": [], "resize": [], "model": [], "total": []}
        for step in range(-1, self.plan["end_to_end_count"]):  # the first one warms up
            with open(os.path.join(self.folder, files[step % len(files)]), "rb") as file:
                encoded = file.read()
            times = [time.perf_counter()]
            image = decode(encoded)
            times.append(time.perf_counter())
            image = resize(image)
            times.append(time.perf_counter())
            self.model.infer(image)
            times.append(time.perf_counter())
            if step >= 0:
                parts = [round((b - a) * 1000, 5) for a, b in zip(times, times[1:])]  # noqa: RUF007  (3.8)
                for key, part in zip(("decode", "resize", "model"), parts):
                    samples[key].append(part)
                samples["total"].append(round((times[-1] - times[0]) * 1000, 5))
        return {"end_to_end_ms": samples, "prepared_with": with_what}

    def finish(self) -> dict[str, Any]:
        """Classify the images that no timed inference saw, write all outputs, say what ran and in how much memory."""
        for index in range(len(self.outputs), len(self.images)):
            self.outputs.append(self.model.infer(self.images[index]))
        np.save(os.path.join(self.folder, self.name + ".npy"), np.concatenate(self.outputs))
        memory = system.peak_memory()
        return {"peak_memory_bytes": memory, "n_outputs": len(self.outputs), **self.model.effective(self.images[0])}


def _sha256(path: str) -> str:
    """Of a file, or of a folder (an .mlpackage) by its sorted relative paths and contents, as softedge does."""
    digest = hashlib.sha256()
    if os.path.isdir(path):
        files = [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names]
        relative = {os.path.relpath(file, path).replace(os.sep, "/"): file for file in files}
        for name in sorted(relative, key=lambda name: name.split("/")):
            digest.update(name.encode() + b"\0" + bytes.fromhex(_sha256(relative[name])))
        return digest.hexdigest()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
