"""Servers to be damaged, a wire to be listened to and broken, and a picture that cannot be met by chance on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from dcp_sdk import PrivacyGuardError
from dcp_sdk.preprocess import Image
from dcp_sdk.serving import TritonServer
from tests.e2e.secrets import Secrets, secrets_of
from tests.e2e.tap import Tap, port_of, tap
from tests.tiny import ADMIN_KEY, ROOT, SIZE, Tiny


@pytest.fixture
def own_server(tiny: Tiny) -> Iterator[TritonServer]:
    """Start a server of the test's own, to be damaged."""
    with TritonServer(tiny.repository, venv=ROOT / ".venv-triton", admin_key=ADMIN_KEY) as server:
        yield server


@pytest.fixture(scope="session")
def noise() -> Image:
    """Draw a picture of the model's size, so that its pixels reach the graph unchanged."""
    return np.random.default_rng(7).integers(0, 256, (SIZE, SIZE, 3), np.uint8)


@pytest.fixture(scope="session")
def secrets(tiny: Tiny, noise: Image) -> Secrets:
    """Know what must stay on the device."""
    return secrets_of(tiny.bundle, tiny.manifest.contract, noise)


@pytest.fixture
def wire(tiny_server: TritonServer, scheme: str) -> Iterator[Tap]:
    """Listen to what goes to the tiny pair's server, and break it."""
    with tap(port_of(tiny_server, scheme)) as listening:
        yield listening


@pytest.fixture
def refuse(noise: Image) -> Callable[..., None]:
    """Give a guard that refuses whatever it gets, with the worst message that there could be."""

    def refuse(*_: object) -> None:
        raise PrivacyGuardError(f"features: {noise.tobytes()!r}")

    return refuse
