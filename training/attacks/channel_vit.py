"""A small vision transformer whose patches are the channels themselves: it attends to what was kept, and to which."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..networks import Float32
from .base import AttackSettings
from .neural import neural

__all__ = ["channel_vit"]

_WIDTH, _HEADS, _LAYERS = 64, 4, 2
_DROPOUT = 0.1


class _ChannelTransformer(nn.Module):
    def __init__(self, channels: int, size: int, classes: int) -> None:
        super().__init__()
        self.embed = nn.Linear(size, _WIDTH)
        self.identity = nn.Parameter(torch.randn(channels, _WIDTH) * 0.02)
        # Dropout on tokens alone: inside the layers it takes half of the time on a CPU.
        self.dropout = nn.Dropout(_DROPOUT)
        layer = nn.TransformerEncoderLayer(
            _WIDTH, _HEADS, 2 * _WIDTH, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, _LAYERS, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(_WIDTH)
        self.classify = nn.Linear(_WIDTH, classes)

    def forward(self, values: Tensor) -> Tensor:
        """``(N, C, h, w)`` -> logits. A channel that is 0 everywhere is no token."""
        maps = values.flatten(2)
        present = maps.abs().amax(2) > 0
        count = max(1, int(present.sum(1).max()))
        chosen = present.float().topk(count, dim=1).indices  # as many tokens as the fullest payload needs
        tokens = maps.gather(1, chosen[:, :, None].expand(-1, -1, maps.shape[2]))
        used = present.gather(1, chosen)
        used = used | ~used.any(1, keepdim=True)  # attention over nothing would be NaN
        padding = None if bool(used.all()) else ~used
        embedded = self.dropout(self.embed(tokens) + self.identity[chosen])
        encoded = self.encoder(embedded, src_key_padding_mask=padding)
        weights = used.float()[:, :, None]
        pooled = (self.norm(encoded) * weights).sum(1) / weights.sum(1)
        logits: Tensor = self.classify(pooled)
        return logits


def _network(shape: tuple[int, int, int], settings: AttackSettings) -> nn.Module:
    channels, height, width = shape
    return Float32(_ChannelTransformer(channels, height * width, settings.classes))  # faster than bfloat16, so narrow


channel_vit = neural("ViT over channels", _network)
