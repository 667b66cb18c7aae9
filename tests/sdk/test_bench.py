"""``dcp bench``: the program that the SDK is compared with does the same work, and all that was measured is shown."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest

from dcp_sdk import ConfigError, PrivateClient, ServerUnavailable
from dcp_sdk.bench import Bare, measure
from dcp_sdk.preprocess import Image
from dcp_sdk.serving import TritonServer
from tests.e2e.tap import port_of, tap
from tests.sdk.helpers import address_of, memory, run
from tests.tiny import LABELS, SIZE, Tiny

SCHEMES = pytest.mark.parametrize("scheme", ["grpc", "http"])


@pytest.fixture
def crop() -> Image:
    return np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)


@SCHEMES
@pytest.mark.triton
def test_a_bare_call_gives_the_very_same_answer(
    scheme: str, tiny: Tiny, tiny_server: TritonServer, crop: Image
) -> None:
    with PrivateClient(tiny.bundle, address_of(tiny_server, scheme), device="cpu") as client:
        bare = Bare(client)
        answer = bare(crop)
        bare.close()
        assert dict(zip(LABELS, answer[0].tolist(), strict=True)) == client.predict(crop).probabilities


@SCHEMES
@pytest.mark.triton
def test_the_command_shows_every_stage_and_the_tax(scheme: str, tiny: Tiny, tiny_server: TritonServer) -> None:
    result = run("bench", tiny.bundle, address_of(tiny_server, scheme), "--calls", 4)
    assert result.exit_code == 0, result.output
    shown = re.findall(r"^(\w[\w ]*?) +-?\d+\.\d\d ms +-?\d+\.\d\d ms", result.output, re.MULTILINE)
    stages = ["capture", "preprocess", "obfuscate", "guard", "network", "decode", "queue", "total"]
    assert shown == [*stages, "predict", "bare", "SDK tax", "noise"]


@pytest.mark.triton
def test_only_calls_after_the_warm_up_count(tiny: Tiny, tiny_server: TritonServer) -> None:
    with PrivateClient(tiny.bundle, tiny_server.grpc_address, device="cpu") as client:
        budget = measure(client, calls=1)
        assert client.stats().predictions == 21
    assert budget.stages["total"].p50_ms == budget.stages["total"].p99_ms, "one call has one time"
    assert budget.tax.p50_ms == pytest.approx(budget.predict.p50_ms - budget.bare.p50_ms)
    assert budget.predict.p50_ms >= budget.stages["total"].p50_ms


def test_what_cannot_be_measured_is_said(tiny: Tiny) -> None:
    with PrivateClient(tiny.bundle, memory(tiny), device="cpu") as client:
        with pytest.raises(ConfigError, match="dcp serve"):
            measure(client)
        with pytest.raises(ConfigError, match="calls"):
            measure(client, calls=0)


@SCHEMES
@pytest.mark.triton
def test_a_server_that_goes_is_a_typed_error(scheme: str, tiny: Tiny, tiny_server: TritonServer, crop: Image) -> None:
    with tap(port_of(tiny_server, scheme)) as wire:
        with PrivateClient(tiny.bundle, f"{scheme}://127.0.0.1:{wire.port}", device="cpu") as client:
            bare = Bare(client)
            bare(crop)
            wire.refuse()
            with pytest.raises(ServerUnavailable, match="bare request"):
                bare(crop)
            bare.close()


@pytest.mark.triton
def test_without_nvidias_http_client_it_says_what_to_install(
    tiny: Tiny, tiny_server: TritonServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device has no use for it: it brings gevent and aiohttp."""
    for name in [name for name in sys.modules if name.startswith(("tritonclient.http", "geventhttpclient"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "geventhttpclient", None)
    with PrivateClient(tiny.bundle, tiny_server.http_address, device="cpu") as client:
        with pytest.raises(ConfigError, match=r"pip install 'tritonclient\[http\]'"):
            Bare(client)
