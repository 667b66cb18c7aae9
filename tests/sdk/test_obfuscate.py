from __future__ import annotations

import os

import numpy as np
import pytest

from dcp_sdk import BundleError
from dcp_sdk.obfuscate import Obfuscator, draw_uniform
from tests import tiny as graph
from tests.tiny import Tiny


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """64 noise pictures, and two on which every channel scores alike: black and white."""
    noise = np.random.default_rng(0).integers(0, 256, (62, graph.SIZE, graph.SIZE, 3), np.uint8)
    plain = np.stack([np.zeros_like(noise[0]), np.full_like(noise[0], 255)])
    return np.concatenate([noise, plain])


def test_payload_is_what_the_contract_says(tiny: Tiny, pixels: np.ndarray) -> None:
    contract = tiny.manifest.contract
    payload = Obfuscator(tiny.bundle, contract, device="cpu").run(pixels)
    assert len(payload) == len(contract.payload)
    for spec, tensor in zip(contract.payload, payload, strict=True):
        assert len(tensor) == len(pixels)
        assert spec.violation(tensor) is None


def test_a_picture_alone_gives_the_payload_that_it_gives_in_a_batch(tiny: Tiny, pixels: np.ndarray) -> None:
    obfuscator = Obfuscator(tiny.bundle, tiny.manifest.contract, device="cpu", threads=1)
    together = obfuscator.run(pixels)
    for row, picture in enumerate(pixels):
        for batch, single in zip(together, obfuscator.run(picture[None]), strict=True):
            np.testing.assert_array_equal(single[0], batch[row])


def test_edited_graph(broken: Tiny, other: Tiny) -> None:
    (broken.bundle / "device.onnx").write_bytes((other.bundle / "device.onnx").read_bytes())
    with pytest.raises(BundleError, match=r"device\.onnx: expected SHA-256"):
        Obfuscator(broken.bundle, broken.manifest.contract)


def test_noise_comes_from_the_operating_system_and_fills_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = draw_uniform((4, 50_000))
    assert drawn.dtype == np.float32
    assert 0 <= drawn.min() < 1e-4 < 1 - 1e-4 < drawn.max() < 1
    counts, _ = np.histogram(drawn, bins=20, range=(0, 1))
    assert abs(counts / counts.mean() - 1).max() < 0.06
    assert not np.array_equal(drawn, draw_uniform((4, 50_000)))
    monkeypatch.setattr(os, "urandom", lambda count: b"\xff" * count)
    assert draw_uniform((1, 3)).tolist() == [[1 - 2**-24] * 3]
