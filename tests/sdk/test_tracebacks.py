"""An error that a crash reporter sends away, with the local variables of each function, holds no picture."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from itertools import repeat

import numpy as np
import pytest

from dcp_sdk import AsyncPrivateClient, DCPError, PrivateClient, Timeouts
from dcp_sdk.preprocess import Image
from tests.sdk.transport.hostile import SERVERS, Refusal
from tests.tiny import Tiny

Use = Callable[[PrivateClient, Image], object]

USES: dict[str, Use] = {
    "predict": lambda client, picture: client.predict(picture),
    "predict_batch": lambda client, picture: client.predict_batch([picture, picture]),
    "stream": lambda client, picture: list(client.stream(repeat(picture, 3))),
}


def sent_away(error: BaseException) -> str:
    """Tell what a crash reporter sees, but for this module's own functions."""
    behind = traceback.TracebackException.from_exception(error, capture_locals=True)
    said, remaining = [], [behind]
    while remaining:
        one = remaining.pop()
        said += [str(frame.locals) for frame in one.stack if __file__ not in frame.filename]
        remaining += [each for each in (one.__cause__, one.__context__) if each is not None]
    return "\n".join(said)


def named(picture: Image) -> list[str]:
    """Rows of numbers, as ``repr`` writes them of an array of any depth."""
    return [str(row.tolist()) for row in picture.reshape(-1, 3)[:3]]


@pytest.fixture
def picture() -> Image:
    return np.random.default_rng(7).integers(100, 256, (32, 32, 3), np.uint8)


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize("scheme", SERVERS)
@pytest.mark.parametrize("late", [False, True], ids=["refused", "no time"])
def test_no_error_carries_the_picture(use: Use, scheme: str, late: bool, tiny: Tiny, picture: Image) -> None:
    refusal = Refusal("INTERNAL", 500, "no")
    with SERVERS[scheme](tiny.manifest.contract, refusal) as address:
        with PrivateClient(tiny.bundle, address, device="cpu") as client:
            if late:
                client.timeouts = Timeouts(predict_s=1e-6)
            with pytest.raises(DCPError) as caught:
                use(client, picture)
        assert bool(refusal.asked) is not late
    said = sent_away(caught.value)
    assert "dcp_sdk" in str(traceback.format_tb(caught.value.__traceback__))
    assert [row for row in named(picture) if row in said] == []
    assert "array(" not in said


def test_nor_does_one_of_the_async_client(tiny: Tiny, picture: Image) -> None:
    async def fail() -> BaseException:
        async with AsyncPrivateClient(tiny.bundle, f"memory://{tiny.repository}", device="cpu") as client:
            client._client.timeouts = Timeouts(predict_s=1e-6)
            with pytest.raises(DCPError) as caught:
                await client.predict(picture)
            return caught.value

    assert "array(" not in sent_away(asyncio.run(fail()))


def test_this_test_would_see_a_picture(picture: Image) -> None:
    def careless(kept: Image) -> None:
        raise ValueError(kept.shape)

    with pytest.raises(ValueError, match="32") as caught:
        careless(picture)
    seen = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert any(row in str([frame.locals for frame in seen.stack]) for row in named(picture))
