"""Learning-based reconstruction: a decoder from payload to picture, trained on leaked pairs (an expected pre-image)."""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure as ssim

from ..config import OptimConfig
from ..payloads import Payloads
from ..schedule import learning_rate
from .base import hold_out_indices
from .neural import conv_block, forward
from .reconstruction import Knowledge, Pictures, as_pictures, as_tensor
from .scaling import standardised

__all__ = ["decoder"]

_BATCH = 32
_LEARNING_RATE = 2e-3
_SMALLEST = 4
_SSIM_WEIGHT = 0.5
"""The attacker optimises what is measured, beside the absolute error."""
_WIDTHS = (128, 96, 64, 32, 24)


def decoder(knowledge: Knowledge, target: Payloads) -> Pictures:
    """Reconstruct the pictures behind ``target``.

    Args:
        knowledge: The leaked pairs, and ``decoder_epochs`` and ``seed`` of its settings, are used.
        target: M payloads never seen.

    Returns:
        uint8 ``(M, S, S, 3)``.
    """
    leaked, pictures, settings = knowledge.leaked, knowledge.pictures, knowledge.settings
    torch.manual_seed(settings.seed)
    scale = standardised(leaked)
    scaled = scale(leaked)
    learned, chooser = hold_out_indices(len(leaked), settings.seed, settings.classes)
    chooser = chooser[:256]
    network = _network((leaked.total_channels, *leaked.features.shape[2:]), pictures.shape[1])
    network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-3, fused=True)
    batch_size = max(2, min(_BATCH, len(learned) // 16))
    steps = len(learned) // batch_size
    plan = OptimConfig(epochs=settings.decoder_epochs, batch_size=batch_size, learning_rate=_LEARNING_RATE)
    best, best_loss = network, math.inf
    for epoch in track(range(settings.decoder_epochs), "decoder", transient=True):
        network.train()
        shuffled = np.random.default_rng((settings.seed, epoch)).permutation(learned)
        for step in range(steps):
            index = shuffled[step * batch_size : (step + 1) * batch_size]
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(plan, epoch * steps + step, steps)
            with torch.autocast("cpu", torch.bfloat16):
                drawn = network(scaled[index].dense().contiguous(memory_format=torch.channels_last))
            loss = _loss(drawn.float(), as_tensor(pictures[index]))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        with torch.no_grad():
            held_loss = float(_loss(forward(network, scaled[chooser]), as_tensor(pictures[chooser])))
        if held_loss < best_loss:
            best, best_loss = copy.deepcopy(network), held_loss
    return as_pictures(forward(best, scale(target)))


def _network(shape: tuple[int, int, int], size_px: int) -> nn.Module:
    """Double the side until it reaches the picture's, then resize what is left."""
    channels, height, _ = shape
    layers: list[nn.Module] = [
        nn.BatchNorm2d(channels),
        *conv_block(channels, _WIDTHS[0], 1),
        *conv_block(*_WIDTHS[:1] * 2, 3),
    ]
    width, side = _WIDTHS[0], height
    if side < _SMALLEST:  # every place of the first map gets weights of its own: convolutions alone know no place
        layers += [nn.ConvTranspose2d(width, width, _SMALLEST - side + 1)]
        layers += [nn.BatchNorm2d(width), nn.ReLU()]
        side = _SMALLEST
    for following in _WIDTHS[1:]:
        if side >= size_px:
            break
        layers += [nn.Upsample(scale_factor=2), *conv_block(width, following, 3), *conv_block(following, following, 3)]
        width, side = following, 2 * side
    layers += [nn.Conv2d(width, 3, 3, padding=1), nn.Upsample(size=(size_px, size_px), mode="bilinear"), nn.Sigmoid()]
    return nn.Sequential(*layers)


def _loss(drawn: Tensor, truth: Tensor) -> Tensor:
    similarity = ssim(drawn, truth, data_range=1.0)
    assert isinstance(similarity, Tensor)
    return F.l1_loss(drawn, truth) + _SSIM_WEIGHT * (1 - similarity)
