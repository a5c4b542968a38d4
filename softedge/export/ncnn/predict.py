"""ncnn files run by ncnn's Python package, on one thread and without a GPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from softedge.errors import UserError
from softedge.export.base import Float32, Predictor, Uint8, needs
from softedge.export.contract import INPUT
from softedge.export.ncnn.network import Network, weights_of
from softedge.export.ncnn.weights import read, refuse_others
from softedge.files import temporary_folder


def open_net(path: Path, weights: Path | None = None) -> Any:
    """An ``ncnn.Net`` with the layers in ``path``; UserError when ncnn does not take the files."""
    if (why := needs("running an ncnn file", "ncnn", extra="ncnn")) is not None:
        raise UserError(why)
    import ncnn

    weights = weights or weights_of(path)
    refuse_others(Network.read(path), weights)  # what ncnn would print lines of its own for, or crash at
    net = ncnn.Net()
    net.opt.num_threads = 1
    if net.load_param(str(path)) or net.load_model(str(weights)):
        raise UserError(
            f"{path} and {weights.name} cannot be loaded by ncnn {ncnn.__version__}: damaged, or with a layer that it "
            "does not run; export again, or to another format"
        )
    return net


def extractor(net: Any, image: Uint8) -> Any:
    """An ``ncnn.Extractor`` that was given an image, uint8 RGB (S, S, 3): planes in 0..255, as every ncnn app makes."""
    import ncnn

    ex = net.create_extractor()
    height, width, _ = image.shape
    pixels = np.ascontiguousarray(image)
    ex.input(INPUT, ncnn.Mat.from_pixels(pixels, ncnn.Mat.PixelType.PIXEL_RGB, width, height))
    return ex


def load_model(path: Path, output: str) -> Predictor:
    """Run the files image by image: ncnn has no batches."""
    net = open_net(path)

    def predict(images: Uint8) -> Float32:
        return np.stack([blob(extractor(net, image), output) for image in images]).astype(np.float32)

    return predict


def blob(ex: Any, name: str) -> Float32:
    """The values of a blob, a copy; UserError when the network does not compute it."""
    code, value = ex.extract(name)
    if code:
        raise UserError(f"ncnn does not compute '{name}' of this network (code {code}); export the model again")
    return np.array(value, np.float32)


def blobs(net: Any, image: Uint8, names: Sequence[str]) -> Iterator[Float32]:
    """The values of several blobs on an image (S, S, 3), computed once."""
    ex = extractor(net, image)
    ex.set_light_mode(False)  # which recycles what later layers have read
    for name in names:
        yield blob(ex, name)


def layer_outputs(path: Path, image: Uint8) -> Iterator[tuple[Float32, Float32]]:
    """(weights, output) of each convolution and linear layer in order, on an image (S, S, 3), without activations."""
    network = Network.read(path).without_fused_activations()
    blocks = read(network, weights_of(path))
    with temporary_folder("ncnn") as folder:
        split = folder / "model.param"
        network.write(split)
        net = open_net(split, weights_of(path))
    layers = network.weighted()
    outputs = blobs(net, image, [layer.outputs[0] for layer in layers])
    yield from zip((blocks[layer.name][0].values for layer in layers), outputs)
