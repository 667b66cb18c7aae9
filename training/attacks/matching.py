"""How far the payload of a picture is from one that was seen: what every search for the picture minimises."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dcp_sdk.contract import Contract

from ..payloads import Payloads
from ..pruning import straight_through_mask
from .device_twin import DeviceTwin

__all__ = ["PayloadMatch", "straight_through_steps", "total_variation"]

_TEMPERATURE = 0.3
"""Of the soft mask that carries the gradient: the trainings' default."""
_MASK_WEIGHT = 1.0


class PayloadMatch:
    """Distance between payloads that were seen and those that pictures would give.

    Args:
        twin: The device graph.
        contract: Of its bundle.
        target: M payloads.
    """

    def __init__(self, twin: DeviceTwin, contract: Contract, target: Payloads) -> None:
        self._twin = twin
        self._pruning = contract.pruning
        self._top = 2.0**contract.bits - 1
        self._channels = torch.from_numpy(target.channels.astype(np.int64))
        self._steps = torch.from_numpy(target.features.astype(np.float32))
        self._mask = torch.from_numpy(target.mask())
        self._energy = self._steps.square().mean((1, 2, 3)).clamp_min(1.0)

    def __call__(self, pictures: Tensor, which: Tensor) -> Tensor:
        """Compare pictures with payloads.

        Args:
            pictures: float ``(N, 3, S, S)``, 0..1.
            which: int64 ``(N,)``, the payload that each is compared with.

        Returns:
            float32 ``(N,)``: squared error over the payload's own square, plus the squared error of the mask where the
            picture decides it. 0 for a picture that would give this very payload.
        """
        with torch.autocast("cpu", torch.bfloat16):
            activations, scores = self._twin(pictures)
        index = self._channels[which][:, :, None, None].expand(-1, -1, *activations.shape[2:])
        seen = self._steps[which]
        steps = activations.float().gather(1, index) / self._pruning.scale
        error = straight_through_steps(steps, seen, self._top) - seen
        distance = error.square().mean((1, 2, 3)) / self._energy[which]
        if scores is not None:
            mask = straight_through_mask(scores.float(), self._pruning.kept, _TEMPERATURE)
            distance = distance + _MASK_WEIGHT * (mask - self._mask[which]).square().mean(1)
        return distance


def straight_through_steps(values: Tensor, seen: Tensor, top: float = 255.0) -> Tensor:
    """Quantise as the device does, with the gradient of the identity.

    Args:
        values: Activations in steps of the quantiser, any shape.
        seen: The steps that were received, same shape. A saturated one says *at least the top*: values above it count
            as the top, without gradient. Elsewhere values above the top keep theirs, to come down.
        top: The highest step.
    """
    rounded = values + (values.round() - values).detach()
    return torch.where(seen >= top, rounded.clamp(max=top), rounded)


def total_variation(pictures: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels (anisotropic), of each picture ``(N, 3, S, S)``: ``(N,)``."""
    down = (pictures[:, :, 1:] - pictures[:, :, :-1]).abs().mean((1, 2, 3))
    right = (pictures[..., 1:] - pictures[..., :-1]).abs().mean((1, 2, 3))
    return down + right
