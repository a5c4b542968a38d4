"""ncnn files on a device, on its processor.

Travels to boards: Python 3.8, NumPy and ncnn; no softedge import.  See ``bench/board/worker.py``.
"""

from __future__ import annotations

import time
from typing import Any

import kernels  # type: ignore[import-not-found]
import numpy

HEAVY = {"Convolution": "Convolution", "ConvolutionDepthWise": "Convolution", "InnerProduct": "FullyConnected"}


class Runtime:
    """An ``ncnn.Net`` with the threads that were asked for."""

    def __init__(self, path: str, settings: dict[str, Any]):
        import ncnn

        self.module, self.path, self.output = ncnn, path, settings["output"]
        begun = time.perf_counter()
        self.net = ncnn.Net()
        self.net.opt.num_threads = settings["threads"]
        if self.net.load_param(path) or self.net.load_model(path[: -len("param")] + "bin"):
            raise LookupError(f"this ncnn ({ncnn.__version__}) does not load the files")
        self.load_ms = (time.perf_counter() - begun) * 1000

    def infer(self, image: Any) -> Any:
        """uint8 (1, size, size, 3) -> float32 (1, classes)."""
        height, width = image.shape[1:3]
        mat = self.module.Mat.from_pixels(image[0], self.module.Mat.PixelType.PIXEL_RGB, width, height)
        extractor = self.net.create_extractor()
        extractor.input("image", mat)
        code, found = extractor.extract(self.output)
        if code:
            raise LookupError(f"ncnn stopped with code {code}")
        return numpy.array(found, "float32")[None]

    def effective(self, image: Any) -> dict[str, Any]:
        """What the file says of its layers; ncnn itself tells nobody which kernels it took."""
        answer = {
            "runtime": "ncnn " + self.module.__version__,
            "accelerator": "CPU",
            "threads": self.net.opt.num_threads,
        }
        with open(self.path, encoding="utf-8") as file:
            layers = [line.split() for line in list(file)[2:]]
        if all("31=7" in words or "31=71" in words for words in layers):  # 16 bits are forbidden
            heavy = [words for words in layers if words[0] in HEAVY]
            types = ["int8" if any(word.startswith("8=") for word in words) else "f32" for words in heavy]
            answer.update(kernels.summary([(HEAVY[words[0]], kind) for words, kind in zip(heavy, types)]))
        return answer
