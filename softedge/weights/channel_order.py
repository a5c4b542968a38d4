"""Weights that were trained on blue, green, red, as OpenCV reads images: turned to take red, green, blue."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from softedge.errors import UserError

TURNED = "the weights take blue first; the input channels of their first convolution have changed places"
_SAME = 1e-3  # of the answers' size: the sums of the first convolution come in another order


@torch.no_grad()
def red_first(net: nn.Module, size: int, where: str) -> None:
    """Turn the input channels of the first convolution round, in place: the answers to an image with its channels in
    the other order are then those that ``net`` gave before.

    size: height and width of an image.  UserError where the image does not go into convolutions alone.
    """
    image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    before, readers = net(image), _readers(net, image)
    for reader in readers:
        if not isinstance(reader, nn.Conv2d) or reader.in_channels != 3 or reader.groups != 1:
            readers = []
            break
        reader.weight.copy_(reader.weight.flip(1))
    if not readers or (net(image.flip(1)) - before).abs().max() > _SAME * before.abs().max():
        raise UserError(
            f"--bgr: {where} is of a network whose first layer is no convolution of the image alone; turn its input "
            "channels round in PyTorch, and leave --bgr out"
        )


def _readers(net: nn.Module, image: Tensor) -> list[nn.Module]:
    """The layers that take the image itself."""
    found: list[nn.Module] = []

    def look(module: nn.Module, inputs: tuple[object, ...]) -> None:
        if inputs and inputs[0] is image and not isinstance(module, nn.Identity | nn.Dropout):
            found.append(module)

    hooks = [m.register_forward_pre_hook(look) for m in net.modules() if next(m.children(), None) is None]
    net(image)
    for hook in hooks:
        hook.remove()
    return found
