from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from training.small_maps import SmallMapConv2d, for_small_maps, with_plain_convolutions


def gradients(network: nn.Module, maps: Tensor) -> list[Tensor]:
    learning = maps.clone().requires_grad_()
    network.zero_grad()
    out = network(learning)
    weights = torch.sin(torch.arange(out.numel(), dtype=torch.float32)).view_as(out)
    (out * weights).sum().backward()
    assert learning.grad is not None
    return [out.detach(), learning.grad, *(parameter.grad.clone() for parameter in network.parameters())]


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (3, 5), (4, 4), (7, 4)])
def test_values_and_gradients_are_those_of_the_convolution(kernel: int, stride: int, shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(8, 512, kernel, stride, kernel // 2, bias=False)
    (ours,) = for_small_maps(nn.Sequential(copy.deepcopy(plain)))
    for one, other in zip(gradients(plain, maps := torch.randn(3, 8, *shape)), gradients(ours, maps), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_autocast_keeps_its_precision() -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(64, 512, 3, 2, 1, bias=False)
    maps = torch.randn(4, 64, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        one, other = plain(maps), for_small_maps(nn.Sequential(copy.deepcopy(plain)))(maps)
    assert one.dtype == other.dtype == torch.bfloat16
    torch.testing.assert_close(one, other, rtol=0.02, atol=0.02)


def test_weights_names_and_random_numbers_stay() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3, bias=False)), nn.Conv2d(4, 4, 1, bias=False))
    following = torch.rand(1)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3, bias=False)), nn.Conv2d(4, 4, 1, bias=False))
    for_small_maps(network)
    assert torch.equal(torch.rand(1), following)
    assert isinstance(network[0][0], SmallMapConv2d) and type(network[1]) is nn.Conv2d
    before, after = plain.state_dict(), network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(type(layer) is nn.Conv2d for layer in [with_plain_convolutions(network)[0][0], network[1]])
    assert all(torch.equal(before[name], network.state_dict()[name]) for name in before)
