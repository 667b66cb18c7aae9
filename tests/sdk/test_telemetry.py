"""A trace whose tracer fails: the call never notices. What a trace holds is tested in tests/e2e/test_telemetry.py."""

from __future__ import annotations

import time
from unittest.mock import Mock

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Span, Tracer

from dcp_sdk import PrivateClient, Telemetry
from dcp_sdk.preprocess import Image
from tests.tiny import Tiny

METHODS = ["get_span_context", "set_attribute", "set_status", "end"]


class Provider(TracerProvider):
    """Gives spans that are somebody's own, one of whose methods fails."""

    def __init__(self, broken: str) -> None:
        super().__init__()
        self.broken = broken
        self.spans: list[Mock] = []

    def get_tracer(self, *_: object, **__: object) -> Tracer:
        return Mock(spec=Tracer, start_span=self._start)

    def _start(self, *_: object, **__: object) -> Span:
        if self.broken == "start_span":
            raise OSError("no collector")
        span = Mock(spec=Span)
        span.get_span_context.return_value = Mock(is_valid=False)
        getattr(span, self.broken).side_effect = OSError("no collector")
        self.spans.append(span)
        return span


@pytest.mark.parametrize("broken", ["start_span", *METHODS])
def test_whatever_of_a_tracer_fails_calls_are_answered(broken: str, tiny: Tiny, picture: Image) -> None:
    provider = Provider(broken)
    telemetry = Telemetry(tracer_provider=provider)
    with PrivateClient(tiny.bundle, f"memory://{tiny.repository}", device="cpu", telemetry=telemetry) as client:
        assert client.predict(picture).label
        assert len(client.predict_batch([picture, picture])) == 2
        assert len(list(client.stream([picture, picture]))) == 2
        assert client.stats().failures == {}
    assert all(span.end.called for span in provider.spans), "one that is not ended is never exported"


@pytest.mark.parametrize("broken", ["start_span", *METHODS])
def test_a_stage_raises_its_own_error(broken: str) -> None:
    provider = Provider(broken)
    trace = Telemetry(tracer_provider=provider).tracing("tiny", "cpu")(time.perf_counter())
    failure = ValueError("the stage's own")
    with pytest.raises(ValueError, match="the stage's own"), trace.stage("network", time.perf_counter()):
        raise failure
    trace.end({"dcp.pictures": 1}, failure)
    assert all(span.end.called for span in provider.spans)
