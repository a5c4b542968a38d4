"""Grey levels on the grid of integers: images whose normalisation has its zero between two levels lose one bit else."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import fx, nn

from softedge.export.deployed import Deployed

_WHOLE = 1e-3  # of a grey level


def on_grey_levels(deployed: Deployed) -> Deployed:
    """The same function, with an image whose zero is a whole grey level.

    Zero is on every grid of integers.  Where all channels are normalised alike, the 256 levels lie on the grid as well,
    if zero is one of them; with a mean of 0.5 it is 127.5, every level falls between two integers, and rounding to even
    makes one of two.  So the image is shifted by 127, and what is left of the shift goes into the biases behind it:

        W x + b = W x' + (b − Σ W (m − m') / s),   x = (p − m) / s,  x' = (p − m') / s,  m' = ⌊m⌋

    What a convolution pads is half a grey level off then.  A network whose image is read by anything but convolutions,
    or that torch.fx cannot trace, and one whose channels are normalised each for itself, comes back as it is.
    """
    shift, scale = deployed.shift.reshape(-1), deployed.scale.reshape(-1)
    alike = bool((shift == shift[0]).all() and (scale == scale[0]).all())
    level = math.floor(float(shift[0]) + _WHOLE)
    rest = (float(shift[0]) - level) / float(scale[0])
    if not alike or rest * float(scale[0]) < _WHOLE:
        return deployed
    folded = deployed.folded()
    network = folded.model
    if not isinstance(network, fx.GraphModule) or not (readers := _readers(network)):
        return deployed
    with torch.no_grad():
        for convolution in readers:
            offset = rest * convolution.weight.sum((1, 2, 3))
            bias = convolution.bias if convolution.bias is not None else torch.zeros_like(offset)
            convolution.bias = nn.Parameter(bias - offset)
    spec = replace(deployed.spec, mean=(level / 255,) * 3)
    shifted = Deployed(network, spec, deployed.labels, deployed.output)
    shifted.about = deployed.about
    return shifted


def _readers(network: fx.GraphModule) -> list[nn.Conv2d]:
    """The convolutions that read the image, each called once; none where anything else reads it."""
    nodes = list(network.graph.nodes)
    modules = dict(network.named_modules())
    found = []
    for user in (user for node in nodes if node.op == "placeholder" for user in node.users):
        module = modules.get(str(user.target)) if user.op == "call_module" else None
        if not isinstance(module, nn.Conv2d) or sum(node.target == user.target for node in nodes) > 1:
            return []
        if module.padding_mode != "zeros":
            return []
        found.append(module)
    return found
