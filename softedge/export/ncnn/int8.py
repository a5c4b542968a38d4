"""int8 as ncnn computes it: symmetric integers for what enters a convolution or linear layer and for its weights.

A layer multiplies round(s_x · x), clipped to ±127, by its 8-bit weights and divides the sums by s_x · s_w; bias and
activation are float.  Between two such layers nothing else is rounded.  ncnn's own tools, ncnn2table and ncnn2int8,
make the same files, but no package on PyPI has them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from softedge.export.base import Uint8
from softedge.export.ncnn import weights as packed
from softedge.export.ncnn.network import FEATURES, NO_WINOGRAD, Layer, Network
from softedge.export.ncnn.predict import blobs, open_net
from softedge.export.ncnn.weights import Block
from softedge.progress import track

LEVELS = 127
BINS = 2048
HISTOGRAM_IMAGES = 100
METHODS = ("mean", "minmax", "percentile", "mse")


@dataclass(frozen=True)
class Quantized:
    """largest: absolute value of what enters each layer; more is clipped.  in_float: layers that are not rounded.
    weights: other weights (size,) and bias (outputs,) of some layers, where they are not those of the float network."""

    largest: Mapping[str, float]
    in_float: frozenset[str] = frozenset()
    weights: Mapping[str, list[Block]] = field(default_factory=dict)


@dataclass(frozen=True)
class Statistics:
    """Of what enters each of L layers.  names: (L,).  extremes: (N, L), the largest absolute value on each image.
    counts: (L, BINS), absolute values between 0 and the largest of all."""

    names: tuple[str, ...]
    extremes: NDArray[np.float64]
    counts: NDArray[np.int64]

    def largest(self, method: str) -> dict[str, float]:
        """mean: of the images' extremes.  minmax: of all images.  percentile: 99.99 % of the values are within.
        mse: rounding and clipping together distort least."""
        top = self.extremes.max(0)
        if method == "mean":
            limits = self.extremes.mean(0)
        elif method == "percentile":
            share = np.cumsum(self.counts, 1) / np.maximum(self.counts.sum(1, keepdims=True), 1)
            limits = top * ((share >= 0.9999).argmax(1) + 1) / BINS
        elif method == "mse":
            limits = np.array([_least_distortion(c, t) for c, t in zip(self.counts, top)])
        else:
            limits = top
        return {name: max(float(value), 1e-6) for name, value in zip(self.names, limits)}


def _least_distortion(counts: NDArray[np.int64], top: float) -> float:
    """Σ (x − q(x))² for 127 steps up to a share of ``top``: step² / 12 inside, the clipped part squared outside."""
    centre = (np.arange(BINS) + 0.5) * top / BINS

    def loss(end: float) -> float:
        outside = np.maximum(centre - end, 0) ** 2
        return float((counts * np.where(centre > end, outside, (end / LEVELS) ** 2 / 12)).sum())

    return min((top * share for share in np.linspace(1.0, 0.2, 41)), key=loss)


def measure(network: Network, path: Path, images: Uint8) -> Statistics:
    """Run the float network in ``path`` on images (N, S, S, 3), one by one."""
    layers = network.weighted()
    net, entries = open_net(path), [layer.inputs[0] for layer in layers]
    extremes = np.array(
        [[np.abs(x).max() for x in blobs(net, image, entries)] for image in track(images, "calibrating")], np.float64
    )
    top = np.maximum(extremes.max(0), 1e-12)
    counts = np.zeros((len(layers), BINS), np.int64)
    for image in images[:: max(1, len(images) // HISTOGRAM_IMAGES)]:
        for row, values in enumerate(blobs(net, image, entries)):
            bins = np.minimum(np.abs(values.reshape(-1)) * (BINS / top[row]), BINS - 1).astype(np.int64)
            counts[row] += np.bincount(bins, minlength=BINS)
    return Statistics(tuple(layer.name for layer in layers), extremes, counts)


def quantized(
    network: Network, blocks: Mapping[str, list[Block]], quantization: Quantized
) -> tuple[Network, dict[str, list[Block]]]:
    """The network with integers in every layer that ``quantization`` does not leave in float."""
    blocks = {**blocks, **quantization.weights}
    chosen = {layer.name: layer for layer in network.weighted() if layer.name not in quantization.in_float}
    layers, stored = [], dict(blocks)
    for layer in network.layers:
        if layer.name in chosen:
            integers, scales = packed.in_8_bits(blocks[layer.name][0].values, packed.rows_of(layer))
            entering = LEVELS / quantization.largest[layer.name]
            added = [Block(scales, flagged=False), packed.scalar(entering)]
            follower = _only_reader(network, layer)
            passes_on = follower in chosen
            if passes_on:  # it hands integers on, which the next layer would otherwise make of its floats
                added.append(packed.scalar(LEVELS / quantization.largest[follower]))
            term = 1 if layer.kind == "ConvolutionDepthWise" else 2
            stored[layer.name] = [Block(integers, flagged=True), *blocks[layer.name][1:], *added]
            # Winograd's transforms leave weights 6 bits (ncnn2table gives them no more): never for an int8 layer.
            mask = layer.number(FEATURES) | NO_WINOGRAD
            layer = layer.having(int8_term=term + 100 * passes_on, features=mask)
        layers.append(layer)
    return dataclasses.replace(network, layers=tuple(layers)), stored


def _only_reader(network: Network, layer: Layer) -> str:
    """The convolution that alone reads what a convolution gives: ncnn keeps integers between such two.  Or empty."""
    readers = [other for other in network.layers if layer.outputs[0] in other.inputs]
    alone = len(readers) == 1 and all(one.kind.startswith("Convolution") for one in (layer, *readers))
    return readers[0].name if alone else ""
