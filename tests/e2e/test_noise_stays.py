"""Whoever has the random numbers, or what lies under them, undoes the noise: neither leaves the device."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest

from dcp_sdk import PrivateClient, load_image, obfuscate
from dcp_sdk.bundles.bundle import DEVICE_GRAPH_FILE
from dcp_sdk.bundles.manifest import Manifest
from dcp_sdk.preprocess import preprocess
from dcp_sdk.serving import TritonServer
from tests.e2e.tap import port_of, tap
from tests.tiny import ROOT, SHIPPED

pytestmark = [pytest.mark.triton, pytest.mark.parametrize("scheme", ["grpc", "http"])]

FRAMES = 40


def under_the_noise(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Compute what the shipped bundle's graph gives before it adds noise."""
    graph = onnx.load(SHIPPED / DEVICE_GRAPH_FILE)
    graph.graph.output.append(onnx.ValueInfoProto(name="activations"))
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    numbers, shape = session.get_inputs()[1].name, session.get_inputs()[1].shape[1:]
    (values,) = session.run(["activations"], {"image": pixels[None], numbers: np.zeros((1, *shape), np.float32)})
    return np.asarray(values, np.float32)


def test_neither_the_random_numbers_nor_what_they_cover_leave(
    scheme: str, shipped_server: TritonServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[npt.NDArray[np.float32]] = []
    draw = obfuscate.draw_uniform

    def remember(shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        drawn.append(draw(shape))
        return drawn[-1]

    monkeypatch.setattr(obfuscate, "draw_uniform", remember)
    picture = load_image(ROOT / "examples" / "data" / "astronaut.jpg")
    payloads: list[bytes] = []
    with tap(port_of(shipped_server, scheme)) as wire:
        with PrivateClient(SHIPPED, f"{scheme}://127.0.0.1:{wire.port}", device="cpu") as client:
            list(client.stream([picture] * FRAMES, observe=lambda _, sent, __: payloads.append(sent[-1].tobytes())))
            client.predict_batch([picture] * FRAMES)
    assert all(payload in wire.sent for payload in payloads), "the tap hears what leaves"
    assert len(set(payloads)) > FRAMES // 2, "noise is at work, so there is something to hide"
    numbers = [number.tobytes() for batch in drawn for number in batch.ravel() if number]
    assert len(numbers) > 2 * FRAMES
    contract = Manifest.load(SHIPPED).contract
    covered = under_the_noise(preprocess(picture, contract.preprocessing)).tobytes()
    together = [frame.tobytes() for batch in drawn for frame in batch.reshape(len(batch), -1)]
    assert [secret for secret in (covered, *together) if secret in wire.sent] == []
    assert sum(number in wire.sent for number in numbers) <= 1, "four bytes may meet by chance among some thousand"
