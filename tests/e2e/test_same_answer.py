"""The same pictures, over gRPC, over HTTP and in memory: the same answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dcp_sdk import Prediction, PrivateClient, load_image
from dcp_sdk.preprocess import Image
from dcp_sdk.serving import TritonServer
from tests.tiny import PAPER, ROOT, SHIPPED, Tiny

pytestmark = pytest.mark.triton

ASTRONAUT = ROOT / "examples" / "data" / "astronaut.jpg"


def pictures() -> list[Image]:
    """Crop, turn and darken a real face, and add noise and constants: answers far from 0 and 1 too."""
    face = load_image(ASTRONAUT)
    random = np.random.default_rng(3)
    views = [face[y : y + 96, x : x + 96] for y, x in random.integers(0, min(face.shape[:2]) - 96, (8, 2))]
    turned = [face, face[:, ::-1], face[::-1], (face * 0.3).astype(np.uint8)]
    drawn = [random.integers(0, 256, (64, 80, 3), np.uint8), *(np.full((9, 9, 3), v, np.uint8) for v in (0, 128, 255))]
    return [*views, *turned, *drawn]


def answers(bundle: Path, address: str) -> list[Prediction]:
    with PrivateClient(bundle, address, device="cpu") as client:
        alone = [client.predict(picture) for picture in pictures()]
        batch = client.predict_batch(pictures())
    assert [p.kept_channels for p in alone] == [p.kept_channels for p in batch]
    assert np.allclose(*([list(p.probabilities.values()) for p in ps] for ps in (alone, batch)), rtol=0, atol=1e-6)
    return alone


@pytest.mark.parametrize("pair", ["paper", "tiny"])
def test_triton_and_memory_agree(
    pair: str, shipped_server: TritonServer, tiny_server: TritonServer, tiny: Tiny
) -> None:
    bundle, repository, server = {
        "paper": (PAPER, ROOT / "triton_models", shipped_server),
        "tiny": (tiny.bundle, tiny.repository, tiny_server),
    }[pair]
    expected = answers(bundle, f"memory://{repository}")
    assert np.ptp([p.probability for p in expected]) > 0.01, "no constant answer"
    for address in (server.grpc_address, server.http_address):
        for mine, theirs in zip(answers(bundle, address), expected, strict=True):
            assert mine.server == address
            assert (mine.label, mine.kept_channels) == (theirs.label, theirs.kept_channels)
            assert mine.probabilities == pytest.approx(theirs.probabilities, rel=0, abs=1e-6)


def test_the_papers_pair_knows_the_astronaut(shipped_server: TritonServer) -> None:
    with PrivateClient(PAPER, shipped_server.grpc_address) as client:
        prediction = client.predict(ASTRONAUT)
        contract = client.manifest.contract
    assert prediction.label == "Female"
    assert prediction.probability > 0.8
    assert prediction.bytes_sent == contract.payload_bytes == 2561
    assert len(prediction.kept_channels) == contract.pruning.kept == 13
    assert all(0 <= channel < 128 for channel in prediction.kept_channels)


def test_the_shipped_pair_knows_the_astronaut_through_its_noise(shipped_server: TritonServer) -> None:
    with PrivateClient(SHIPPED, shipped_server.grpc_address) as client:
        predictions = client.predict_batch([ASTRONAUT] * 64)
    assert np.mean([prediction.label == "Female" for prediction in predictions]) > 0.6
    assert {prediction.bytes_sent for prediction in predictions} == {8}
    assert len({prediction.probability for prediction in predictions}) > 32, "the noise is drawn for each"
