from __future__ import annotations

import math
import traceback

import pytest

from dcp_sdk import ConfigError, ServerAddress, Timeouts


@pytest.mark.parametrize(
    ("text", "scheme", "target"),
    [
        ("grpc://localhost:8001", "grpc", "localhost:8001"),
        ("http://10.0.0.7:8000", "http", "10.0.0.7:8000"),
        ("triton.example.org:9001", "grpc", "triton.example.org:9001"),
        ("grpc://[::1]:8001", "grpc", "[::1]:8001"),
        (" grpc://my_triton:1 ", "grpc", "my_triton:1"),
        ("grpcs://triton.example.org:8001", "grpcs", "triton.example.org:8001"),
        ("https://[::1]:443", "https", "[::1]:443"),
        ("memory://triton_models", "memory", "triton_models"),
        ("memory:///srv/models", "memory", "/srv/models"),
    ],
)
def test_address(text: str, scheme: str, target: str) -> None:
    address = ServerAddress.parse(text)
    assert (address.scheme, address.target) == (scheme, target)
    assert ServerAddress.parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "localhost",
        "grpc://localhost",
        "grpc://localhost:",
        "grpc://localhost:0",
        "grpc://localhost:65536",
        "grpc://:8001",
        "grpc://host name:8001",
        "http://localhost:8000/v2",
        "http://user:key@localhost:8000",
        "ftp://localhost:21",
        "memory://",
        "::1:8001",
    ],
)
def test_address_that_makes_no_sense(text: str) -> None:
    with pytest.raises(ConfigError, match="expected grpc://HOST:PORT") as caught:
        ServerAddress.parse(text)
    assert "user:key" not in "".join(traceback.format_exception(caught.value))


def test_address_of_the_wrong_type() -> None:
    with pytest.raises(ConfigError, match="got int"):
        ServerAddress.parse(8001)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [0, -1, 86_401, math.inf, math.nan, "soon", None])
@pytest.mark.parametrize("field", ["connect_s", "predict_s"])
def test_timeouts_are_positive_and_finite(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"Timeouts.{field}"):
        Timeouts(**{field: value})


def test_options_cannot_be_edited_or_misspelt() -> None:
    with pytest.raises(ConfigError, match="predict"):
        Timeouts(predict=1)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="frozen"):
        Timeouts().predict_s = 1.0  # type: ignore[misc]
