"""The figures of ``docs/serving.md`` are those of the recorded runs, no better."""

from __future__ import annotations

import json

from tests.tiny import ROOT

PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
RESULTS = ROOT / "tests" / "benchmarks" / "results"


def test_the_knees_and_costs_are_those_that_were_measured() -> None:
    measured = json.loads((RESULTS / "serving.json").read_text())
    for found in measured["summary"].values():
        latencies = " / ".join(f"{found[f'{name}_ms_at_knee']:.0f}" for name in ("p50", "p95", "p99"))
        cost = f"{found['usd_per_thousand']:.7f}".rstrip("0")
        cells = (f"{found['knee_per_s']:,.0f}", latencies, f"{found['predictions_per_core_second']:,.0f}", cost)
        assert f"| {' | '.join(cells)} |" in PAGE
    for heads in measured["ceiling_by_batch"].values():
        for batch, found in heads.items():
            served, nothing = found["triton"], found["triton_without_head"]
            shares = f"{served['ratio']:.2f}; {served['ratio_per_core_second']:.2f}"
            cells = (batch, shares, f"{served['pictures_in_a_run']:.0f}", f"{nothing['ratio_per_core_second']:.2f}")
            assert f"| {' | '.join(cells)} |" in PAGE
    least = min(found["triton"]["ratio"] for heads in measured["ceiling_by_batch"].values() for found in heads.values())
    assert f"the least is {least:.2f}" in PAGE


def test_the_memory_is_that_of_a_million_requests() -> None:
    measured = json.loads((RESULTS / "server_memory.json").read_text())
    memory = measured["resident_mib"]
    assert f"{memory['after_a_tenth']} MiB after a tenth of {measured['answered']:,} answered" in PAGE
    assert f"{memory['last']} MiB" in PAGE
    assert measured["failed"] == 0 and "none failed" in PAGE


def test_the_fleets_are_those_that_were_simulated() -> None:
    simulated = json.loads((RESULTS / "fleet.json").read_text())
    assert f"carries {simulated['devices_per_core']:,}" in PAGE.replace("\n", " ")
    for fleet in simulated["fleets"]:
        away = fleet["one_away"]
        assert away["late"] == fleet["all_there"]["late"] == 0
        cells = (f"{fleet['devices']:,}", f"{fleet['requests_per_s_at_peak']:,.0f}", str(fleet["pods"]))
        assert f"| {' | '.join(cells)} | {fleet['all_there']['p99_ms']} | {away['p99_ms']} |" in PAGE


def test_late_requests_are_those_that_were_counted() -> None:
    counted = json.loads((RESULTS / "late_requests.json").read_text())
    left, ended = counted["left to their end"], counted["ended at their deadline"]
    kept = f"{left['late']:,} late requests that were left to their end crashed it {left['crashes']} times"
    assert f"{kept}, {ended['late']:,} that ended at their deadline {ended['crashes']} times" in PAGE.replace("\n", " ")
