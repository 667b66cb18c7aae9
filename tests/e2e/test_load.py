"""Instruments of the serving benchmarks: load that does not wait, a simulated pod that batches as Triton does."""

from __future__ import annotations

import pytest

from dcp_sdk.serving import TritonServer
from tests.benchmarks.fleet import Core, simulate
from tests.benchmarks.open_loop import Target, drive
from tests.benchmarks.serving import triton_body
from tests.tiny import Tiny


@pytest.mark.triton
def test_every_request_of_the_load_is_answered_or_counted(tiny: Tiny, tiny_server: TritonServer) -> None:
    contract = tiny.manifest.contract
    body = triton_body(contract, contract.head.model)
    outcome = drive(Target(tiny_server.grpc_address, body), 100, 0.5)
    assert (len(outcome.latencies_ms), outcome.failures) == (50, {})
    stranger = drive(Target(tiny_server.grpc_address, triton_body(contract, "absent")), 100, 0.2)
    assert (stranger.latencies_ms, stranger.failures) == ((), {"AioRpcError": 20})


def test_a_simulated_pod_is_quick_when_idle_and_late_when_it_is_too_much() -> None:
    core = Core.fit([{"server_cpu_ms_per_answer": 3.0}, {"server_cpu_ms_per_answer": 1.0}], max_batch_size=8)
    assert core.batch_s(1) * 1000 == pytest.approx(3, abs=1e-3)
    assert core.most_per_s == pytest.approx(1000, abs=1)
    idle = simulate(core, 10, seconds=20)
    assert idle["p50_ms"] == pytest.approx(3, abs=0.1)
    assert idle["late"] == 0
    busy = simulate(core, 2 * core.most_per_s, seconds=10)
    assert busy["answered"] == pytest.approx(10 * core.most_per_s, rel=0.01)
    assert busy["late"] > 0.5 * busy["answered"], "after four seconds whatever is answered has waited for two"
    assert simulate(core, 100, pods=2, away=1, seconds=20)["failovers"] > 0
