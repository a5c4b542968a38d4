"""What is in ncnn's two files: layers as text, weights, and the integers of int8."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from softedge.errors import UserError
from softedge.export import parity
from softedge.export.contract import artifact_of
from softedge.export.deployed import Deployed
from softedge.export.ncnn import int8, weights
from softedge.export.ncnn.candidates import NcnnCandidates
from softedge.export.ncnn.format import Ncnn
from softedge.export.ncnn.network import Layer, Network
from softedge.export.ncnn.weights import Block
from softedge.export.rounding import rounded
from softedge.records import InputSpec


def test_a_line_of_a_network_is_read_and_written_again():
    line = "Convolution conv_3 1 1 a b 0=16 1=3 -23310=2,0.000000e+00,6.000000e+00 9=3"
    layer = Layer.of(line)
    assert (layer.inputs, layer.outputs, layer.number(0), layer.floats(10)) == (("a",), ("b",), 16, [0.0, 6.0])
    assert layer.line().split() == line.split()
    expression = 'Reshape r 1 1 a b 6="0w,320"'
    assert Layer.of(expression).line().split() == expression.split()
    assert layer.having(int8_term=2, activation=0).line().split() == line.replace("9=3", "8=2").split()


@pytest.mark.parametrize("text", ["", "7767517\n", "# a photo\n1 1\n", "7767517\n1 1\nInput in0 nothing\n", "\0\xff"])
def test_what_is_no_network_is_one_line(tmp_path, text):
    path = tmp_path / "model.param"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match="is not an ncnn network"):
        Network.read(path)


def test_weights_of_every_type_are_read_as_they_were_written(tmp_path):
    """Nine values each, so that halves and integers end between two multiples of four bytes."""
    network = Network(
        (
            Layer("Input", "image", (), ("image",)),
            Layer("Convolution", "c", ("image",), ("a",), {0: "1", 1: "3", 5: "1", 6: "9", 8: "102"}),
            Layer("InnerProduct", "l", ("a",), ("b",), {0: "1", 1: "0", 2: "9"}),
        )
    )
    values, one = np.arange(9, dtype=np.float32) - 4, Block(np.array([0.5], np.float32), False)
    blocks = {"c": [Block(values.astype(np.int8), True), one, one, one, one], "l": [Block(values, True)]}
    weights.write(network, blocks, tmp_path / "model.param")
    data = (tmp_path / "model.bin").read_bytes()
    assert len(data) == (4 + 12) + 4 * 4 + (4 + 36) and data[:4] == bytes.fromhex("384b0d00")
    assert data[4:13] == bytes(range(252, 256)) + bytes(range(5))
    found = weights.read(Network.read(tmp_path / "model.param"), tmp_path / "model.bin")
    assert [b.values.tolist() for b in found["c"]] == [values.tolist(), [0.5], [0.5], [0.5], [0.5]]
    half = bytes.fromhex("476b3001") + values.astype(np.float16).tobytes() + b"\0\0"
    (tmp_path / "model.bin").write_bytes(data[:-40] + half)
    found = weights.read(network, tmp_path / "model.bin")
    assert found["l"][0].values.tolist() == values.tolist() and found["l"][0].values.dtype == np.float32
    (tmp_path / "model.bin").write_bytes(data + b"more")
    with pytest.raises(UserError, match="in an order that softedge does not know; the layers: Convolution, InnerPr"):
        weights.read(network, tmp_path / "model.bin")


def test_the_range_with_the_least_distortion_gives_up_a_lone_outlier():
    bulk, outlier = np.random.default_rng(0).normal(0, 1, 20000), 40.0
    counts, _ = np.histogram(np.abs([*bulk, outlier]), int8.BINS, (0, outlier))
    found = int8.Statistics(("a",), np.array([[4.0], [outlier]]), counts[None])

    def distortion(end: float) -> float:
        rounded = np.clip(np.round(bulk * 127 / end), -127, 127) * end / 127
        return float(((bulk - rounded) ** 2).sum()) + max(0.0, outlier - end) ** 2

    assert found.largest("minmax") == {"a": outlier} and found.largest("mean") == {"a": 22.0}
    assert found.largest("percentile")["a"] < 5
    assert distortion(found.largest("mse")["a"]) <= 1.05 * min(distortion(end) for end in np.linspace(8, 40, 100))


@pytest.mark.skipif(Ncnn().missing() is not None, reason="needs ncnn and pnnx: pip install 'softedge[ncnn]'")
def test_an_int8_layer_multiplies_the_integers_that_the_file_says(tmp_path, pictures):
    """A network of one convolution and one linear layer, against the arithmetic written out in NumPy."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.relu(self.conv(x)).mean((2, 3)))

    spec = InputSpec(16, 18, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    network = Deployed(Two(), spec, output="features")
    candidates = Ncnn().candidates(network, "int8", pictures[:8])
    assert candidates is not None
    option = next(candidates.calibrations())
    conv, head = candidates.layers()

    def rounded(x: np.ndarray, largest: float) -> tuple[np.ndarray, float]:
        return np.clip(np.round(x * np.float32(127 / largest)), -127, 127), largest / 127

    def integers(module: nn.Module) -> tuple[np.ndarray, np.ndarray]:
        weight = module.weight.detach().numpy()  # type: ignore[union-attr,operator]
        steps = np.abs(weight.reshape(len(weight), -1)).max(1) / 127
        return np.round(weight / steps.reshape(-1, *[1] * (weight.ndim - 1))), steps

    image = pictures[60:61]
    planes = network.normalised(torch.from_numpy(image).permute(0, 3, 1, 2).float()).numpy()
    two = network.model
    x, step = rounded(planes, option.model.largest[conv])
    w, steps = integers(two.conv)
    sums = torch.nn.functional.conv2d(torch.from_numpy(x).double(), torch.from_numpy(w).double(), padding=1).numpy()
    y = sums * step * steps[:, None, None] + two.conv.bias.detach().numpy()[:, None, None]
    pooled = np.maximum(y, 0).mean((2, 3)).astype(np.float32)
    x, step = rounded(pooled, option.model.largest[head])
    w, steps = integers(two.head)
    wanted = (x @ w.T) * step * steps + two.head.bias.detach().numpy()
    np.testing.assert_allclose(candidates.predict(option, image), wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())
    in_float = candidates.with_float(option, candidates.layers())
    assert in_float is not None and candidates.float_layers(in_float) == {conv, head}
    difference = parity.difference(candidates.predict(in_float, image), network.predict(image), "features")
    assert difference <= 1e-5, "no layer is rounded"
    kept = candidates.with_float(option, [conv])
    path = candidates.write(kept, tmp_path)
    like = artifact_of(path, "ncnn", "int8", spec, output="features")
    again = Ncnn().candidates(network, "int8", pictures[:8], like)
    assert again is not None and {again.float_layers(o) for o in again.calibrations()} == {frozenset({conv})}


@pytest.mark.skipif(Ncnn().missing() is not None, reason="needs ncnn and pnnx: pip install 'softedge[ncnn]'")
def test_the_integers_that_rounding_chose_are_those_of_the_file(deployed, pictures, tmp_path):
    """The grid of this format is the one that ``rounding`` assumes: integers up to 127, one scale a channel."""
    candidates = Ncnn().candidates(deployed, "int8", pictures[:40])
    assert isinstance(candidates, NcnnCandidates)
    option, network = next(candidates.calibrations()), rounded(deployed, pictures[:40])
    assert candidates.largest_weight(option) == 127
    tuned = candidates.reweighted(option, network, {})
    assert tuned is not None
    path = candidates.write(tuned, tmp_path)
    written = Network.read(path)
    blocks = weights.read(written, path.with_suffix(".bin"))
    modules = dict(network.named_modules())
    for name, layer in zip(parity.reference_layers(network, pictures[:1]), written.weighted(), strict=True):
        integers, scales = blocks[layer.name][0].values, blocks[layer.name][2].values
        assert integers.dtype == np.int8
        wanted = modules[name].weight.detach().numpy().reshape(len(scales), -1)
        found = integers.reshape(len(scales), -1) / scales[:, None]
        assert (np.abs(found - wanted).max(1) < 0.01 / scales).all(), "a hundredth of a step"
    reference = deployed.predict(pictures)
    nearest, chosen = (parity.compare(candidates.predict(o, pictures), reference).sqnr_db for o in (option, tuned))
    assert chosen > nearest
    other = Deployed(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), deployed.spec)
    assert candidates.reweighted(option, other, {}) is None
