"""Convolutions that stay fast where maps get small: on a CPU the last layers of a ResNet cost the most otherwise."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["SmallMapConv2d", "for_small_maps", "with_plain_convolutions"]

_PLACES, _CHANNELS = 16, 512
"""At most so many places and at least so many channels come out where a matrix product is faster:
``tests/benchmarks/small_maps.py``."""


class SmallMapConv2d(nn.Conv2d):
    """A convolution that is one matrix product while it learns on a CPU and at most 4 x 4 places come out of it.

    The same values, weights and gradients, up to rounding. oneDNN spends most of a training step of ResNet-18 at 64 px
    in the backward pass of 3 x 3 convolutions on maps of 2 x 2. An evaluated or exported network has plain ones.
    """

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
    return _replaced(network, nn.Conv2d, SmallMapConv2d)


def with_plain_convolutions(network: nn.Module) -> nn.Module:
    """Undo :func:`for_small_maps`: tools that look for ``nn.Conv2d`` itself, to fold what follows, find it again."""
    return _replaced(network, SmallMapConv2d, nn.Conv2d)


def _replaced(network: nn.Module, old: type[nn.Conv2d], new: type[nn.Conv2d]) -> nn.Module:
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if type(child) is old and child.kernel_size != (1, 1):
                setattr(parent, name, _like(child, new))
    return network


def _like(convolution: nn.Conv2d, kind: type[nn.Conv2d]) -> nn.Conv2d:
    """Take over a convolution's shape and its very weights; no random number is drawn."""
    (rows, columns), (down, right) = convolution.kernel_size, convolution.stride
    assert convolution.bias is None and convolution.groups == 1 and convolution.dilation == (1, 1)
    assert isinstance(convolution.padding, tuple)
    above, left = convolution.padding
    taken = kind(
        convolution.in_channels,
        convolution.out_channels,
        (rows, columns),
        stride=(down, right),
        padding=(above, left),
        bias=False,
        device="meta",
    )
    taken.weight = convolution.weight
    return taken.train(convolution.training)
