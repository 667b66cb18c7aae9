"""What must never be found on the wire: pieces of a picture, and the channels that were pruned from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from dcp_sdk.bundles.bundle import DEVICE_GRAPH_FILE
from dcp_sdk.contract import Contract
from dcp_sdk.preprocess import Image

_WINDOW = 12
"""Bytes of a piece. Noise of this length is not met by chance."""


@dataclass(frozen=True)
class Secrets:
    """Byte strings by which a leak is recognised."""

    picture: list[bytes]
    pruned: list[bytes]
    """Pruned channels, as float32 and as the quantiser would write them."""
    kept: bytes
    """The payload's features: these may leave, and show that the tap hears."""

    def found_in(self, sent: bytes | bytearray) -> list[str]:
        """Name the kinds of secret that occur in ``sent``."""
        return [
            kind
            for kind, pieces in (("picture", self.picture), ("pruned channels", self.pruned))
            if any(piece in sent for piece in pieces)
        ]


def pieces(data: bytes) -> list[bytes]:
    """Cut ``data`` into the pieces that a leak of any part of it would show, constant ones left out."""
    cut = [data[at : at + _WINDOW] for at in range(0, len(data) - _WINDOW + 1, _WINDOW)]
    return [piece for piece in cut if len(set(piece)) > _WINDOW // 3]


def secrets_of(bundle: Path, contract: Contract, picture: Image) -> Secrets:
    """Compute what a correct device keeps to itself about ``picture`` (the crop itself, uint8 ``(S, S, 3)``)."""
    graph = onnx.load(bundle / DEVICE_GRAPH_FILE)
    graph.graph.output.append(onnx.ValueInfoProto(name="activations"))
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [spec.name for spec in contract.payload]
    channels, features, activations = session.run([*names, "activations"], {contract.input.name: picture[None]})
    dropped: npt.NDArray[np.float32] = np.delete(activations[0], channels[0], axis=0)
    steps = np.clip(np.round(dropped / contract.pruning.scale), 0, 255).astype(np.uint8)
    return Secrets(
        picture=pieces(picture.tobytes()),
        pruned=pieces(dropped.tobytes()) + [piece for channel in steps for piece in pieces(channel.tobytes())],
        kept=features.tobytes(),
    )
