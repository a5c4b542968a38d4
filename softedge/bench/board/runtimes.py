"""One artifact in one process: load it, run it when told, say what really ran.  The other half of ``worker.py``.

Travels to boards: Python 3.8, NumPy and onnxruntime or openvino (coremltools on a Mac); no softedge import.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import sys
import tempfile
import time
from typing import Any

import kernels  # type: ignore[import-not-found]
import numpy as np
import pictures  # type: ignore[import-not-found]
import system  # type: ignore[import-not-found]


class OnnxRuntime:
    """A session of onnxruntime with the threads and the execution provider that were asked for."""

    def __init__(self, path: str, settings: dict[str, Any]):
        import onnxruntime

        self.module, self.path, self.settings = onnxruntime, path, settings
        self.provider = settings.get("provider") or "CPUExecutionProvider"
        known = onnxruntime.get_available_providers()
        if self.provider not in known:
            raise LookupError("this onnxruntime has no {}; it has: {}".format(self.provider, ", ".join(known)))
        begun = time.perf_counter()
        self.session = onnxruntime.InferenceSession(path, self._options(), providers=self._providers())
        self.load_ms = (time.perf_counter() - begun) * 1000
        self.input, self.output = self.session.get_inputs()[0].name, [self.session.get_outputs()[0].name]
        if settings.get("detections"):
            self.output = [output.name for output in self.session.get_outputs()]

    def _options(self) -> Any:
        options = self.module.SessionOptions()
        options.intra_op_num_threads = self.settings["threads"]
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        return options

    def _providers(self) -> list[str]:
        return [self.provider] + (["CPUExecutionProvider"] if self.provider != "CPUExecutionProvider" else [])

    def infer(self, image: Any) -> Any:
        """uint8 (1, size, size, 3) -> float32 (1, classes)."""
        values = self.session.run(self.output, {self.input: image})
        return detections(dict(zip(self.output, values))) if self.settings.get("detections") else values[0]

    def effective(self, image: Any) -> dict[str, Any]:
        """Which kernels an inference runs, by onnxruntime's own profiler in a second session (after the timing)."""
        with tempfile.TemporaryDirectory() as folder:
            options = self._options()
            options.enable_profiling = True
            options.profile_file_prefix = os.path.join(folder, "profile")
            session = self.module.InferenceSession(self.path, options, providers=self._providers())
            session.run(self.output, {self.input: image})
            with open(session.end_profiling()) as file:
                events = json.load(file)
        told, providers = kernels.of_profile(events)
        ran = [f"{name} ({count} kernels)" for name, count in providers.most_common()]
        return {
            "runtime": "onnxruntime " + self.module.__version__,
            "accelerator": self.provider if len(ran) == 1 else " + ".join(ran),
            "threads": self.session.get_session_options().intra_op_num_threads,
            **told,
        }


class OpenVino:
    """A compiled model of OpenVINO in latency mode, its batch fixed to 1 as an app would."""

    def __init__(self, path: str, settings: dict[str, Any]):
        import openvino

        self.module = openvino
        self.engine = openvino.Core()
        self.device = settings.get("device") or "CPU"
        if self.device not in self.engine.available_devices:
            known = ", ".join(self.engine.available_devices)
            raise LookupError(f"this OpenVINO sees no device {self.device}; it sees: {known}")
        options = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
        if self.device == "CPU":
            options["INFERENCE_NUM_THREADS"] = settings["threads"]
        if settings.get("precision"):
            options["INFERENCE_PRECISION_HINT"] = settings["precision"]
        begun = time.perf_counter()
        model = self.engine.read_model(path)
        shape = model.inputs[0].get_partial_shape()
        shape[0] = 1
        model.reshape({0: shape})
        self.compiled = self.engine.compile_model(model, self.device, options)
        self.request = self.compiled.create_infer_request()
        self.names = [output.any_name for output in self.compiled.outputs] if settings.get("detections") else []
        self.load_ms = (time.perf_counter() - begun) * 1000

    def infer(self, image: Any) -> Any:
        """uint8 (1, size, size, 3) -> float32 (1, classes)."""
        self.request.set_input_tensor(self.module.Tensor(image, shared_memory=True))
        self.request.infer()
        if self.names:
            return detections({name: self.request.get_output_tensor(i).data for i, name in enumerate(self.names)})
        return self.request.get_output_tensor(0).data.copy()

    def effective(self, image: Any) -> dict[str, Any]:
        """What the compiled model says of itself: precision and instruction set of every layer."""
        layers, primitives = [], set()
        for layer in self.compiled.get_runtime_model().get_ops():
            told = {key: _value(layer.get_rt_info()[key]) for key in ("layerType", "primitiveType")}
            # "brgconv_avx2_f32": what the kernel computes in; the layer's own type is only what it stores.
            layers.append((told["layerType"], told["primitiveType"].rpartition("_")[2].lower()))
            if told["layerType"] in kernels.HEAVY:
                primitives.add(told["primitiveType"])
        answer = {
            "runtime": "openvino " + self.module.__version__.split("-")[0],
            "accelerator": ", ".join(self.compiled.get_property("EXECUTION_DEVICES")),
            "primitives": sorted(primitives),
            **kernels.summary(layers),
        }
        if self.device == "CPU":
            answer["threads"] = int(self.compiled.get_property("INFERENCE_NUM_THREADS"))
        return answer


def detections(outputs: dict[str, Any], count: int = 100) -> Any:
    """A detector's answer as one row, float32 (1, 600): x1 y1 x2 y2 score label of each; label -1: none."""
    row = np.zeros((count, 6), np.float32)
    row[:, 5] = -1
    found = min(len(outputs["scores"]), count)
    row[:found, :4] = outputs["boxes"][:found]
    row[:found, 4], row[:found, 5] = outputs["scores"][:found], outputs["labels"][:found]
    return row.reshape(1, -1)


def _value(entry: Any) -> str:
    return str(getattr(entry, "value", entry))


class CoreMl:
    """A Core ML model through coremltools on a Mac, on the compute units that were asked for."""

    def __init__(self, path: str, settings: dict[str, Any]):
        import coremltools
        from PIL import Image

        self.module, self.picture = coremltools, Image.fromarray
        self.units, self.labels, self.output = settings["units"], settings["labels"], settings["output"]
        begun = time.perf_counter()
        self.model = coremltools.models.MLModel(path, compute_units=coremltools.ComputeUnit[self.units])
        self.load_ms = (time.perf_counter() - begun) * 1000

    def infer(self, image: Any) -> Any:
        """uint8 (1, size, size, 3) -> float32 (1, classes); a classifier answers label -> probability."""
        values = self.model.predict({"image": self.picture(image[0])})[self.output]
        row = [values[label] for label in self.labels] if isinstance(values, dict) else np.ravel(values)
        return np.asarray(row, np.float32)[None]

    def effective(self, image: Any) -> dict[str, Any]:
        """Core ML does not tell which unit ran a layer: what it was allowed to use."""
        import platform

        runtime = f"Core ML on macOS {platform.mac_ver()[0]}, coremltools {self.module.__version__}"
        return {"runtime": runtime, "accelerator": f"allowed: {self.units}"}


class ExecuTorch:
    """An ExecuTorch program on the XNNPACK backend, through its Python bindings (which bring torch for the tensors)."""

    def __init__(self, path: str, settings: dict[str, Any]):
        import torch
        from executorch.extension.pybindings import portable_lib

        self.tensor, self.library = torch.from_numpy, portable_lib
        portable_lib._unsafe_reset_threadpool(settings["threads"])
        begun = time.perf_counter()
        self.program = portable_lib._load_for_executorch(path)
        self.load_ms = (time.perf_counter() - begun) * 1000

    def infer(self, image: Any) -> Any:
        """uint8 (1, size, size, 3) -> float32 (1, classes)."""
        return self.program.forward([self.tensor(image)])[0].numpy().copy()

    def effective(self, image: Any) -> dict[str, Any]:
        """The runtime tells threads and backend; not which kernel of XNNPACK ran."""
        from importlib.metadata import version

        return {
            "runtime": "executorch " + version("executorch"),
            "accelerator": "XNNPACK",
            "threads": self.library._threadpool_get_thread_count(),
        }


RUNTIMES: dict[str, Any] = {
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
    "coreml": CoreMl,
    "executorch": ExecuTorch,
}


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
        told = " ".join(str(error).split())[:400]
        answer({"failed": told if isinstance(error, LookupError) else f"{type(error).__name__}: {told}"})


class Subject:
    """The artifact under measurement.  Public methods are the commands of the protocol."""

    def __init__(self, folder: str, plan: dict[str, Any], artifact: dict[str, Any]):
        self.folder, self.plan, self.name = folder, plan, artifact["name"]
        self.images = pictures.Images(os.path.join(folder, plan["images"]))
        hashes = [_sha256(os.path.join(folder, file)) for file in artifact["files"]]
        settings = {**artifact["settings"], "threads": plan["threads"]}
        path = os.path.join(folder, artifact["files"][0])
        try:
            self.model = RUNTIMES[artifact["runtime"]](path, settings)
        except ImportError as error:
            raise LookupError("{} is not installed here: {}".format(artifact["runtime"], error)) from error
        self.outputs: list[Any] = []
        self.next = 0
        begun = time.perf_counter()
        first = self.model.infer(self.images[0])
        first_ms = (time.perf_counter() - begun) * 1000
        if first.dtype != np.float32 or first.ndim != 2:
            raise LookupError(f"the output is {first.dtype} {first.shape}, expected float32 (1, classes)")
        for step in range(plan["warmup"]):
            self.model.infer(self.images[step % len(self.images)])
        self.loaded = {"sha256": hashes, "load_ms": self.model.load_ms, "first_ms": first_ms}

    def round(self) -> dict[str, Any]:
        """One slice: an untimed inference (others used the caches since), then timed ones on the next images."""
        self.model.infer(self.images[self.next % len(self.images)])
        samples: list[float] = []
        spent = 0.0
        while spent < self.plan["slice_ms"] or len(samples) < self.plan["slice_count"]:
            image = self.images[self.next % len(self.images)]
            begun = time.perf_counter()
            output = self.model.infer(image)
            took = (time.perf_counter() - begun) * 1000
            samples.append(round(took, 5))
            spent += took
            if self.next < len(self.images):
                self.outputs.append(output)
            self.next += 1
        return {"samples_ms": samples}

    def end_to_end(self) -> dict[str, Any]:
        """Decode a file, resize and crop it, run the model: what an app does for a photo."""
        files = self.plan["encoded"]
        if not files:
            return {"end_to_end_skipped": "no encoded images in this benchmark"}
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
                parts = [round((b - a) * 1000, 5) for a, b in itertools.pairwise(times)]
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
        found = [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names]
        relative = {os.path.relpath(file, path).replace(os.sep, "/"): file for file in found}
        for name in sorted(relative, key=lambda name: name.split("/")):
            digest.update(name.encode() + b"\0" + bytes.fromhex(_sha256(relative[name])))
        return digest.hexdigest()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
