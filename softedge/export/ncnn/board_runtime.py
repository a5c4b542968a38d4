"""ncnn files on a device, on its processor.

Travels to boards: Python 3.8, NumPy and ncnn; no softedge import.  See ``bench/board/worker.py``.
"""

from __future__ import annotations

import re
import time
from typing import Any

import kernels  # type: ignore[import-not-found]
import numpy

# The last parameter of a layer, 31, forbids: 1 fp16 arithmetic, 2 fp16 between layers, 4 bf16, 64 Winograd's algorithm.
SIXTEEN_BITS = re.compile(" 31=[1-7]$", re.MULTILINE)
FLOAT32_ONLY = ("31=5", "31=7", "31=71")
HEAVY = {"Convolution": "Convolution", "ConvolutionDepthWise": "Convolution", "InnerProduct": "FullyConnected"}


class Runtime:
    """An ``ncnn.Net`` with the threads that were asked for."""

    def __init__(self, path: str, settings: dict[str, Any]):
        import ncnn

        self.module, self.output = ncnn, settings["output"]
        begun = time.perf_counter()
        with open(path, encoding="utf-8") as file:
            self.network = file.read()
        if settings.get("precision", "f32") != "f32":
            self.network = SIXTEEN_BITS.sub("", self.network).replace(" 31=71", " 31=64")
        self.net = ncnn.Net()
        self.net.opt.num_threads = settings["threads"]
        self.net.opt.use_bf16_storage = settings.get("precision") == "bf16"
        if self.net.load_param_mem(self.network) or self.net.load_model(path[: -len("param")] + "bin"):
            raise LookupError(f"this ncnn ({ncnn.__version__}) does not load the files")
        self.load_ms = (time.perf_counter() - begun) * 1000

    def infer(self, image: Any) -> Any:
        """uint8 (1, size, size, 3) -> float32 (1, classes)."""
        height, width = image.shape[1:3]
        mat = self.module.Mat.from_pixels(image[0], self.module.Mat.PixelType.PIXEL_RGB, width, height)
        extractor = self.net.create_extractor()
        extractor.input("image", mat)
        code, answer = extractor.extract(self.output)
        if code:
            raise LookupError(f"ncnn stopped with code {code}")
        return numpy.array(answer, "float32")[None]

    def effective(self, image: Any) -> dict[str, Any]:
        """What the file says of its layers; ncnn does not report which kernels it ran."""
        answer = {
            "runtime": "ncnn " + self.module.__version__,
            "accelerator": "CPU",
            "threads": self.net.opt.num_threads,
        }
        layers = [line.split() for line in self.network.splitlines()[2:]]
        if all(words[-1] in FLOAT32_ONLY for words in layers):
            heavy = [words for words in layers if words[0] in HEAVY]
            types = ["int8" if any(word.startswith("8=") for word in words) else "f32" for words in heavy]
            answer.update(kernels.summary([(HEAVY[words[0]], kind) for words, kind in zip(heavy, types)]))
        return answer
