"""int8 files by other tools, and the processor time of files beside each other: what int8_quality.py compares with."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, quant_pre_process, quantize_static

from softedge.export.deployed import Deployed
from softedge.export.onnx.ranges import session
from softedge.export.onnx.speed import Race
from softedge.export.openvino.core import core
from softedge.export.quiet import quiet

SAMPLE = 4.0  # ms of processor time that one sample takes at least


class Reader(CalibrationDataReader):
    def __init__(self, images: np.ndarray):
        self.images = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self.images, None)
        return None if image is None else {"image": image[None]}


def static_settings(graph: onnx.ModelProto) -> dict[str, tuple[bool, dict[str, Any]]]:
    """What to call it -> whether quant_pre_process comes before, and the settings of quantize_static.

    Its defaults, and what people use who read its documentation.  Their calibrations hold few images at a time: all
    tensors of 100 images at 260 pixels are 10 GB.
    """
    softmax = [node.name for node in graph.graph.node if node.op_type == "Softmax"]  # its rounding is not ours
    few = {"CalibMaxIntermediateOutputs": 10}
    best: dict[str, Any] = {"per_channel": True, "nodes_to_exclude": softmax}
    entropy, percentile = CalibrationMethod.Entropy, CalibrationMethod.Percentile
    return {
        "quantize_static, defaults": (False, {}),
        "quantize_static, pre-processed": (True, {}),
        "quantize_static, per channel": (True, best),
        "quantize_static, per channel, entropy": (True, {**best, "calibrate_method": entropy, "extra_options": few}),
        "quantize_static, per channel, percentile": (
            True,
            {**best, "calibrate_method": percentile, "extra_options": few},
        ),
    }


def onnxruntime_static(
    graph: onnx.ModelProto, calibration: np.ndarray, prepared: bool, **settings: Any
) -> onnx.ModelProto:
    """quantize_static; prepared: after the quant_pre_process that its documentation asks for."""
    with tempfile.TemporaryDirectory() as folder:
        source, ready, result = (str(Path(folder) / f"{name}.onnx") for name in ("source", "ready", "result"))
        onnx.save(graph, source)
        with quiet():
            if prepared:
                quant_pre_process(source, ready)
            quantize_static(ready if prepared else source, result, Reader(calibration), **settings)
        return onnx.load(result)


NNCF: dict[str, dict[str, Any]] = {
    "NNCF, defaults": {},
    "NNCF, full bias correction": {"fast_bias_correction": False},
    "NNCF, accuracy control": {"max_drop": 0.01},
}


def nncf_file(graph: onnx.ModelProto, calibration: np.ndarray, path: Path, **settings: Any) -> None:
    """nncf.quantize on the OpenVINO model, written to ``path`` (.xml).

    max_drop: nncf.quantize_with_accuracy_control, which puts layers back into float until at most so many of fp32's
    answers to the calibration images are lost.
    """
    with quiet():
        import nncf
        import openvino as ov

        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "source.onnx"
            onnx.save(graph, str(source))
            network = ov.convert_model(source)
        images = [image[None] for image in calibration]
        data = nncf.Dataset(images)
        if "max_drop" in settings:
            plain = session(graph, threads=1)
            wanted = {image.tobytes(): plain.run(None, {"image": image})[0].argmax() for image in images}

            def agreement(compiled: Any, items: Any) -> tuple[float, list[float]]:
                same = [float(compiled(i)[0].argmax() == wanted[np.asarray(i).tobytes()]) for i in items]
                return float(np.mean(same)), same

            network = nncf.quantize_with_accuracy_control(network, data, data, agreement, **settings)
        else:
            network = nncf.quantize(network, data, **settings)
        ov.save_model(network, path)


def size_of(path: Path) -> int:
    """Bytes of a file, of an IR with its weights, of a package."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size + (path.with_suffix(".bin").stat().st_size if path.suffix == ".xml" else 0)


def coremltools_file(deployed: Deployed, path: Path) -> None:
    """coremltools' own 8-bit weights, linear and symmetric per channel, at its defaults."""
    import coremltools.optimize.coreml as optimize

    from softedge.export.coreml import package as coreml

    with quiet():
        config = optimize.OptimizationConfig(global_config=optimize.OpLinearQuantizerConfig(mode="linear_symmetric"))
        made = optimize.linear_quantize_weights(coreml.program(deployed, "int8"), config)
        coreml.write(made, deployed, path, weights=False)


def runner(path: Path, image: np.ndarray) -> Callable[[], Any]:
    """Run one image (1, S, S, 3) through a file on one thread, in float32 or integers."""
    if path.suffix == ".onnx":
        run = session(onnx.load(path), threads=1)
        return lambda: run.run(None, {"image": image})
    network = core().read_model(path)
    network.reshape({0: list(image.shape)})
    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
    request = core().compile_model(network, "CPU", hints).create_infer_request()
    return lambda: request.infer({0: image}, share_inputs=True)


def times(files: Mapping[str, Path], base: str, image: np.ndarray, rounds: int) -> dict[str, dict[str, float]]:
    """Processor time of each file over that of ``base``: median of the ratios within a round, with a 95 % interval.

    Of the whole process, since OpenVINO computes in threads of its own; every round has a new order.
    """
    runners = {name: runner(path, image) for name, path in files.items()}
    calls: dict[str, int] = {}
    for name, run in runners.items():
        for _ in range(10):
            run()
        start = time.process_time()
        for _ in range(5):
            run()
        calls[name] = max(1, math.ceil(5 * SAMPLE / 1e3 / max(time.process_time() - start, 1e-6)))
    samples: dict[str, list[float]] = {name: [] for name in runners}
    rng = np.random.default_rng(0)
    for _ in range(rounds):
        for name in rng.permutation(list(runners)):
            run = runners[name]
            start = time.process_time()
            for _ in range(calls[name]):
                run()
            samples[name].append(1e3 * (time.process_time() - start) / calls[name])
    race = Race({name: np.array(values) for name, values in samples.items()})
    found = {}
    for name in runners:
        ratio = race.ratio(name, base)
        found[name] = {
            "ms": round(float(np.median(samples[name])), 4),
            "time_over_fp32": round(ratio.median, 3),
            "low": round(ratio.low, 3),
            "high": round(ratio.high, 3),
        }
    return found
