"""Which layers of an ncnn network compute in 8 bits, and what set their ranges."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

from softedge.export.counting import entry, in_order
from softedge.export.ncnn.network import INT8_TERM, WEIGHTED, Network

_CALIBRATION = "calibration:"  # begins the name of the input layer, the one place in the files for words


def integer_operations(path: Path) -> dict[str, int]:
    """See ``Format.integer_operations``.  Layers whose weights are in 8 bits also round what enters them."""
    layers = Network.read(path).weighted()
    in_integers = [bool(layer.number(INT8_TERM)) for layer in layers]
    return in_order(Counter(entry(WEIGHTED[layer.kind], yes, yes) for layer, yes in zip(layers, in_integers)))


def with_calibration(network: Network, text: str) -> Network:
    """``network`` with these words in the name of its input layer; names hold no spaces."""
    named = (
        dataclasses.replace(layer, name=_CALIBRATION + "_".join(text.split())) if layer.kind == "Input" else layer
        for layer in network.layers
    )
    return Network(tuple(named)) if text else network


def calibration(network: Network) -> str:
    """The words given to ``with_calibration``, or ""."""
    names = (layer.name for layer in network.layers if layer.kind == "Input")
    return next((n.removeprefix(_CALIBRATION).replace("_", " ") for n in names if n.startswith(_CALIBRATION)), "")
