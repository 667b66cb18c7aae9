"""Convolutions that stay fast where maps get small: on a CPU the last layers of a ResNet cost the most otherwise."""

from __future__ import annotations

from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["SmallMapConv2d", "for_small_maps"]

_PLACES, _CHANNELS = 16, 512
"""At most so many places and at least so many channels come out where a matrix product is faster:
``tests/benchmarks/small_maps.py``."""


class SmallMapConv2d(nn.Conv2d):
    """A convolution that is one matrix product while it learns on a CPU and at most 4 x 4 places come out of it.

    The same values, weights and gradients, up to rounding. oneDNN spends most of a training step of ResNet-18 at 64 px
    in the backward pass of 3 x 3 convolutions on maps of 2 x 2. An evaluated or exported network has plain ones.
    """

    @classmethod
    def like(cls, convolution: nn.Conv2d) -> Self:
        """Take over a convolution's shape and its very weights; no random number is drawn."""
        assert isinstance(convolution.padding, tuple)
        taken = cls(
            convolution.in_channels,
            convolution.out_channels,
            (convolution.kernel_size[0], convolution.kernel_size[1]),
            stride=(int(convolution.stride[0]), int(convolution.stride[1])),
            padding=(int(convolution.padding[0]), int(convolution.padding[1])),
            bias=False,
            device="meta",
        )
        assert convolution.bias is None and convolution.groups == 1 and convolution.dilation == (1, 1)
        taken.weight = convolution.weight
        return taken

    def forward(self, maps: Tensor) -> Tensor:
        """``(N, C, h, w) -> (N, outputs, h', w')``."""
        height, width = maps.shape[2:]
        assert isinstance(self.padding, tuple)
        (rows, columns), (down, right), (above, left) = self.kernel_size, self.stride, self.padding
        out_height = (height + 2 * above - rows) // down + 1
        out_width = (width + 2 * left - columns) // right + 1
        if (
            not self.training
            or maps.device.type != "cpu"
            or out_height * out_width > _PLACES
            or self.out_channels < _CHANNELS
        ):
            convolved: Tensor = super().forward(maps)
            return convolved
        places, weight = maps.permute(0, 2, 3, 1), self.weight.permute(2, 3, 1, 0)
        if torch.is_autocast_enabled("cpu"):  # as the matrix product would, but before values are copied
            kind = torch.get_autocast_dtype("cpu")
            places, weight = places.to(kind), weight.to(kind)
        padded = F.pad(places, (0, 0, left, left, above, above))
        patches = torch.cat(
            [
                padded[:, row : row + down * out_height : down, column : column + right * out_width : right]
                for row in range(rows)
                for column in range(columns)
            ],
            dim=-1,
        )
        product = patches.flatten(0, 2) @ weight.flatten(0, 2)
        return product.view(len(maps), out_height, out_width, self.out_channels).permute(0, 3, 1, 2)


def for_small_maps(network: nn.Module) -> nn.Module:
    """Put :class:`SmallMapConv2d` in the place of every convolution of more than one tap; weights stay."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Conv2d and child.kernel_size != (1, 1):
                setattr(parent, name, SmallMapConv2d.like(child))
    return network
