"""What OpenTelemetry gets: the stages of each call, the numbers of ``stats()``, and never a byte of a picture."""

from __future__ import annotations

import asyncio
import dataclasses
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import baggage, context
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, format_span_id, format_trace_id

from dcp_sdk import AsyncPrivateClient, DCPError, PrivacyGuardError, PrivateClient, Retries, Stats, Telemetry, Timeouts
from dcp_sdk.calls import stages as stages_module
from dcp_sdk.preprocess import Image
from dcp_sdk.telemetry import COUNTERS
from tests.e2e import fault
from tests.e2e.secrets import Secrets
from tests.e2e.tap import Tap
from tests.tiny import ROOT, Tiny

STAGES = ["dcp.capture", "dcp.preprocess", "dcp.obfuscate", "dcp.guard", "dcp.network", "dcp.decode"]
ATTRIBUTES = {
    "dcp.bundle": str,
    "dcp.provider": str,
    "dcp.pictures": int,
    "dcp.sends": int,
    "server.address": str,
    "error.type": str,
}


@dataclass
class Observed:
    """Exporters that keep everything, and the telemetry that writes to them."""

    spans: InMemorySpanExporter
    reader: InMemoryMetricReader
    telemetry: Telemetry
    tracer_provider: TracerProvider

    def calls(self) -> list[ReadableSpan]:
        return [span for span in self.spans.get_finished_spans() if span.name == "dcp.predict"]

    def below(self, call: ReadableSpan) -> list[ReadableSpan]:
        assert call.context is not None
        found = [span for span in self.spans.get_finished_spans() if span.parent and span.parent == call.context]
        return sorted(found, key=lambda span: span.start_time or 0)

    def metrics(self) -> dict[str, dict[str, Any]]:
        """Return value by metric, and by the attribute besides the bundle where there is one."""
        data, read = self.reader.get_metrics_data(), {}
        for metric in data.resource_metrics[0].scope_metrics[0].metrics if data else ():
            points = {
                "".join(str(value) for key, value in (point.attributes or {}).items() if key != "dcp.bundle"): point
                for point in metric.data.data_points
            }
            read[metric.name] = {key: point.value for key, point in points.items()}  # type: ignore[union-attr]
        return read


@pytest.fixture
def observed() -> Iterator[Observed]:
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers, meters = TracerProvider(), MeterProvider([reader])
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    yield Observed(spans, reader, Telemetry(tracer_provider=tracers, meter_provider=meters), tracers)
    tracers.shutdown()
    meters.shutdown()


def connect(tiny: Tiny, wire: Tap, scheme: str, **options: Any) -> PrivateClient:
    timeouts = Timeouts(connect_s=5, predict_s=1)
    return PrivateClient(tiny.bundle, f"{scheme}://127.0.0.1:{wire.port}", device="cpu", timeouts=timeouts, **options)


def nothing_private(observed: Observed, secrets: Secrets) -> None:
    """Look through all that was exported: known attributes of known types, and no piece of a secret in any form."""
    spans, data = observed.spans.get_finished_spans(), observed.reader.get_metrics_data()
    points = [
        point.attributes or {}
        for metrics in (data.resource_metrics if data else ())
        for scope in metrics.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    ]
    for attributes in [*(span.attributes or {} for span in spans), *points]:
        assert {name: type(value) for name, value in attributes.items()}.items() <= ATTRIBUTES.items()
    assert all(not span.events and not span.links and span.status.description is None for span in spans)
    texts = [
        f"{name} {value}" for each in (*(s.attributes or {} for s in spans), *points) for name, value in each.items()
    ]
    exported = " ".join([*texts, *(span.name for span in spans)])
    for form in (exported.encode(), exported.encode("latin-1", "replace")):
        assert secrets.found_in(form) == []
        assert secrets.kept not in form


@pytest.mark.triton
@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_call_is_a_span_with_its_stages_and_the_server_joins_the_trace(
    scheme: str, wire: Tap, observed: Observed, tiny: Tiny, noise: Image, secrets: Secrets
) -> None:
    tracer = observed.tracer_provider.get_tracer("the caller's program")
    token = context.attach(baggage.set_baggage("visitor", "not for the server"))
    with connect(tiny, wire, scheme, telemetry=observed.telemetry) as client:
        with tracer.start_as_current_span("visit") as visit:
            client.predict(noise)
            list(client.stream([noise, noise]))
    context.detach(token)
    calls = observed.calls()
    assert len(calls) == 3
    for call in calls:
        assert call.parent == visit.get_span_context()
        below = observed.below(call)
        assert [span.name for span in below] == STAGES
        assert all(span.end_time for span in below)
        network = below[STAGES.index("dcp.network")]
        assert network.kind is SpanKind.CLIENT
        assert network.context is not None
        parent = f"00-{format_trace_id(network.context.trace_id)}-{format_span_id(network.context.span_id)}-"
        assert wire.sent.count(parent.encode()) == 1, "with the payload, and nowhere else"
        assert (call.attributes or {})["server.address"] == f"{scheme}://127.0.0.1:{wire.port}"
    assert b"tracestate" not in wire.sent
    assert b"visitor" not in wire.sent
    assert wire.sent.count(b"traceparent") in (1, 3), "HTTP/2 sends a name once"
    nothing_private(observed, secrets)
    assert secrets.found_in(wire.sent) == []


@pytest.mark.triton
@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_what_fails_is_marked_and_the_metrics_are_the_statistics(
    scheme: str,
    wire: Tap,
    observed: Observed,
    tiny: Tiny,
    noise: Image,
    secrets: Secrets,
    refuse: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with connect(tiny, wire, scheme, telemetry=observed.telemetry, retries=Retries(attempts=2)) as client:
        client.predict_batch([noise, noise])
        with monkeypatch.context() as patch, pytest.raises(PrivacyGuardError):
            patch.setattr(stages_module, "check_payload", refuse)
            client.predict(noise)
        wire.fault = fault.ResetAfterRequest()
        for _ in range(5):
            with suppress(DCPError):
                client.predict(noise)
        stats, read = client.stats(), observed.metrics()
    wire.fault = fault.Fault()
    assert (stats.predictions, stats.guard_refusals) == (2, 1)
    assert stats.retries > 0
    assert read["dcp.breaker.state"] in ({client.server: 2}, {client.server: 1})
    for after in (read, observed.metrics()):  # a client that was closed still counts
        assert {name: after[f"dcp.{name}"][""] for name in COUNTERS} == {n: getattr(stats, n) for n in COUNTERS}
        assert after["dcp.failures"] == stats.failures
        assert after.get("dcp.hidden_failures", {}) == stats.hidden_failures
    answered, refused, *broken = observed.calls()
    assert (answered.attributes or {})["dcp.pictures"] == 2
    assert answered.status.status_code is StatusCode.UNSET
    for call, stage in [(refused, "dcp.guard"), *((call, "dcp.network") for call in broken)]:
        last = observed.below(call)[-1]
        assert last.name == stage
        for span in (call, last):
            assert span.status.status_code is StatusCode.ERROR
            assert (span.attributes or {})["error.type"] in stats.failures
    nothing_private(observed, secrets)


def test_a_failure_that_nobody_saw_is_a_metric(observed: Observed, tiny: Tiny, noise: Image, tmp_path: Path) -> None:
    servers = [f"memory://{tmp_path / 'nothing'}", f"memory://{tiny.repository}"]
    with PrivateClient(tiny.bundle, servers, device="cpu", telemetry=observed.telemetry) as client:
        for _ in range(2):
            assert client.predict(noise).server == servers[1]
        read = observed.metrics()
    for after in (read, observed.metrics()):  # a client that was closed still counts
        assert after["dcp.hidden_failures"] == {"ServerUnavailable": 2}
        assert after.get("dcp.failures", {}) == {}


@pytest.mark.triton
@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_the_server_learns_no_trace_unless_it_is_wanted(
    scheme: str, wire: Tap, observed: Observed, tiny: Tiny, noise: Image
) -> None:
    silent = Telemetry(tracer_provider=observed.tracer_provider, propagate=False)
    for telemetry in (None, silent):
        with connect(tiny, wire, scheme, telemetry=telemetry) as client:
            client.predict(noise)
    assert len(observed.calls()) == 1
    assert b"traceparent" not in wire.sent


def test_an_awaited_call_belongs_to_the_span_of_its_task(observed: Observed, tiny: Tiny, noise: Image) -> None:
    tracer = observed.tracer_provider.get_tracer("the caller's program")

    async def visit(client: AsyncPrivateClient, number: int) -> None:
        with tracer.start_as_current_span(f"visit {number}"):
            await client.predict(noise)

    async def visits() -> None:
        memory = f"memory://{tiny.repository}"
        async with AsyncPrivateClient(tiny.bundle, memory, device="cpu", telemetry=observed.telemetry) as client:
            await asyncio.gather(*(visit(client, number) for number in range(6)))

    asyncio.run(visits())
    outer = {span.context.span_id for span in observed.spans.get_finished_spans() if span.name.startswith("visit")}
    assert {call.parent.span_id for call in observed.calls() if call.parent} == outer
    assert len(observed.calls()) == 6


PROGRAM = """
import sys, numpy as np
from dcp_sdk import ConfigError, PrivateClient, Telemetry
bundle, repository = sys.argv[1:]
with PrivateClient(bundle, f"memory://{repository}", device="cpu") as client:
    client.predict(np.zeros((32, 32, 3), np.uint8))
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
sys.modules["opentelemetry"] = None
try:
    Telemetry()
except ConfigError as error:
    assert "pip install 'dcp-private-client[telemetry]'" in str(error)
else:
    raise AssertionError
"""


def test_it_is_not_even_imported_unless_it_is_wanted(tiny: Tiny) -> None:
    command = [sys.executable, "-W", "error", "-c", PROGRAM, tiny.bundle, tiny.repository]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_count_of_the_statistics_is_a_metric() -> None:
    counts = {field.name for field in dataclasses.fields(Stats) if field.type == "int"}
    assert {*COUNTERS} == counts - {"deepest_queue"} | {"guard_refusals"}


def test_the_page_names_every_span_attribute_and_metric() -> None:
    page = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
    metrics = [f"dcp.{name}" for name in [*COUNTERS, "failures", "hidden_failures"]]
    assert [name for name in [*STAGES, *ATTRIBUTES, *metrics] if f"`{name}`" not in page] == []


def test_the_leak_would_be_found(observed: Observed, noise: Image, secrets: Secrets) -> None:
    tracer = observed.tracer_provider.get_tracer("careless")
    tracer.start_span("dcp.network", attributes={"server.address": noise.tobytes().decode("latin-1")}).end()
    with pytest.raises(AssertionError):
        nothing_private(observed, secrets)
