"""What the documents tell a reader to type works: every ``sh`` block, every ``python`` block, every link to a file.

Blocks marked ``console`` are for reading: they install, wait for Ctrl-C, or train for an hour.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dcp_sdk.bundles.manifest import Manifest
from dcp_sdk.bundles.measurements import Interval, percent, share
from dcp_sdk.bundles.privacy_report import PrivacyReport
from dcp_sdk.serving import TritonServer
from tests.tiny import PAPER, ROOT, SHIPPED
from training.reports.results import RESULTS, rows_of

DOCUMENTS = sorted(
    path
    for path in [
        *ROOT.glob("*.md"),
        *ROOT.glob("*/*.md"),
        *ROOT.glob("examples/data/*.md"),
        *ROOT.glob("tests/benchmarks/*.md"),
    ]
    if not {part for part in path.relative_to(ROOT).parts if part.startswith((".", "runs"))}
)
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FEW = ("the device graph against", "SDK overhead", "latency over", "200,000 calls")
"""Rows of the README's table of benchmarks, as they begin."""
_POINTS = (("deep", "-long"), ("balanced", "-long"), ("light", ""))
"""What the table of aims has, and the variant of its rows."""
_LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")


def blocks(document: Path, language: str) -> list[str]:
    found = _BLOCK.findall(document.read_text(encoding="utf-8"))
    return [text for kind, text in found if kind == language]


def having(language: str) -> list[Path]:
    return [document for document in DOCUMENTS if blocks(document, language)]


def name(document: Path) -> str:
    return str(document.relative_to(ROOT))


@pytest.mark.triton
@pytest.mark.timeout(600)  # the guide trains, exports and audits: four minutes where a machine is slow
@pytest.mark.parametrize("document", having("sh"), ids=name)
def test_commands_run(document: Path, tmp_path: Path) -> None:
    """Run all ``sh`` blocks of a document in one shell, from the repository's folder, with files in ``$WORK``."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "WORK": str(tmp_path),
        "COLUMNS": "120",
    }
    script = "set -eu\n" + "\n".join(blocks(document, "sh"))
    done = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=580
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.triton
@pytest.mark.parametrize("document", having("python"), ids=name)
def test_python_runs(document: Path, shipped_server: TritonServer) -> None:
    """Run each ``python`` block against a real Triton at another port than the usual one."""
    for block in blocks(document, "python"):
        code = block.replace("grpc://localhost:8001", shipped_server.grpc_address)
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_lead_somewhere(document: Path) -> None:
    links = [link for link in _LINK.findall(document.read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_each_test_that_a_document_names_exists() -> None:
    named = [
        (document, *reference)
        for document in DOCUMENTS
        for reference in re.findall(r"(tests/[\w/]+\.py)::(\w+)", document.read_text(encoding="utf-8"))
    ]
    assert len(named) > 30, "docs/security.md rests on them"
    missing = [
        (name(document), path, function)
        for document, path, function in named
        if f"\ndef {function}(" not in (ROOT / path).read_text(encoding="utf-8")
    ]
    assert missing == []


def test_nobody_is_told_to_install_a_strangers_package() -> None:
    wrong = re.compile(r"pip install[^\n`]*\bdcp[-_]sdk\b")
    texts = [*DOCUMENTS, *ROOT.glob("sdk/**/*.py"), *ROOT.glob("examples/*.py"), ROOT / "setup.cfg", ROOT / "Makefile"]
    assert [name(path) for path in texts if wrong.search(path.read_text(encoding="utf-8"))] == []


def test_the_readme_tells_what_was_measured() -> None:
    """Its figures are those of the reports beside it, no better."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for bundle, title in ((SHIPPED, "`gender_112`, **shipped**"), (PAPER, "`gender_112_paper`, the paper's method")):
        contract = Manifest.load(bundle).contract
        report = PrivacyReport.load(bundle, contract)
        assert report is not None
        frames = "the same: nothing is random"
        if report.many_frames:
            seen = report.most_from_frames[0]
            frames = f"{percent(seen.balanced_accuracy)}, from {seen.frames}"
        facts = (title, f"{contract.payload_bytes:,} bytes", percent(report.utility.balanced_accuracy))
        assert f"| {' | '.join((*facts, percent(report.strongest), frames))} |" in readme
    report = PrivacyReport.load(SHIPPED, Manifest.load(SHIPPED).contract)
    assert report is not None
    assert report.certificate is not None
    security = " ".join((ROOT / "docs" / "security.md").read_text(encoding="utf-8").split())
    assert f"reads race from one frame with {percent(report.strongest)} and from" in security
    still, moving = report.most_from_frames
    assert f"from {still.frames} frames with {percent(still.balanced_accuracy)}; guessing gives" in security
    said = f"frames of a face that moves give it away with {percent(moving.balanced_accuracy)}"
    assert f"{moving.frames} {said}" in security
    best = f"would read {share(report.certificate.best_accuracy)} from one payload"
    assert f"An attacker who knew the noise and every one of the {report.tested:,} tested pictures {best}" in security


def test_what_was_aimed_at_is_set_against_what_was_measured() -> None:
    """Three seeds of each operating point, and the shipped bundle, as their reports have them."""
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    _, begins, rest = page.partition("## What was aimed at, and what was reached\n")
    assert begins
    plain = rest[: rest.index("\n## ")].replace("**", "")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in plain.splitlines() if line.startswith("| ")]
    measured = {row[0].split(",")[0].split(" (")[0]: row[2:6] for row in rows}
    names = [f"utkface_gender_64_{point}-latent_pruning-r00-s{{}}{long}" for point, long in _POINTS]
    found = {row.name: row.report for row in rows_of(RESULTS)}
    reports = [[found[name.format(seed)] for seed in range(3)] for name in names]
    shipped = PrivacyReport.load(SHIPPED, Manifest.load(SHIPPED).contract)
    assert shipped is not None

    def told(figure: Callable[[PrivacyReport], float]) -> list[str]:
        return [", ".join(f"{100 * figure(report):.1f}" for report in three) for three in [*reports, [shipped]]]

    def from_a_hundred(report: PrivacyReport) -> float:
        return max(seen.balanced_accuracy.value for seen in report.many_frames if not seen.moving)

    assert measured["race from one frame"] == told(lambda report: report.strongest.value)
    assert measured["race from 100 frames of one picture"] == told(from_a_hundred)
    answered = told(lambda report: report.utility.balanced_accuracy.value)
    assert [cell.partition(" (")[0] for cell in measured["gender"]] == answered
    exposed = told(lambda report: report.most_exposed[1].value if report.most_exposed else 0.0)
    assert [cell.partition(";")[0] for cell in measured["most exposed group"]] == exposed
    assert measured["age"] == told(lambda report: report.others[0].balanced_accuracy.value)


def test_what_held_noise_tells_is_what_was_measured() -> None:
    cases = json.loads((ROOT / "tests" / "benchmarks" / "results" / "held_noise.json").read_text())["cases"]
    notebook = (ROOT / "docs" / "lab-notebook.md").read_text(encoding="utf-8")
    for found in cases.values():
        strongest, luck = (Interval.model_validate(one["balanced_accuracy"]) for one in (found, found["luck"]))
        most = f"{share(luck.high)}, {found['luck']['auc']['high']:.3f}"
        assert f"| {percent(strongest)} | {found['auc']:.3f} | {most} |" in notebook


def test_the_page_of_benchmarks_tells_what_was_measured() -> None:
    benchmarks = ROOT / "tests" / "benchmarks"
    page, results = (benchmarks / "README.md").read_text(encoding="utf-8"), benchmarks / "results"
    speed = json.loads((results / "speed.json").read_text())
    assert f"| {max(cost['ratio_p50'] for cost in speed['device_cost']):.2f} times as long or less |" in page
    for bundle, taxes in speed["sdk_tax"].items():
        medians = [f"{taxes[scheme]['tax']['p50_ms']:.2f} ms over" for scheme in ("grpc", "http")]
        assert "{} gRPC, {} HTTP (`{}`)".format(*medians, bundle) in page
    grpc = speed["sdk_tax"][SHIPPED.name]["grpc"]
    late = [f"{found['noise']['p99_ms']:.1f} ms" for taxes in speed["sdk_tax"].values() for found in taxes.values()]
    assert f"differs by {', '.join(late[:-1])} and {late[-1]}" in page
    for bundle, taxes in speed["sdk_tax"].items():
        tails = [f"{taxes[scheme]['tax']['p99_ms']:.1f} ms over" for scheme in ("grpc", "http")]
        assert "{} gRPC and {} HTTP (`{}`)".format(*tails, bundle) in " ".join(page.split())
    assert f"{grpc['predict']['p99_ms']:.1f} ms against {grpc['bare']['p99_ms']:.1f} ms" in page
    shares = json.loads((results / "device_share.json").read_text())["bundles"]
    of_whole = {one["bundle"]: one["share_p50"] for one in shares}
    assert "{gender_112:.2f} of the time (`gender_112`), {gender_112_paper:.2f} (".format(**of_whole) in page
    stream, rival = (json.loads((results / f"{name}.json").read_text()) for name in ("stream", "rival"))
    computing, waiting = stream["cases"]
    assert (computing["slowest_stage"], waiting["slowest_stage"]) == ("device", "network")
    assert f"| {computing['stream_to_camera_p50']:.2f} of the pace |" in page
    for end, case in (("alone: the network", waiting), ("the same two cores", computing)):
        assert f"{end} | {case['stream_to_slowest_stage_p50']:.2f} |" in page
    for q in ("p50", "p99"):
        assert f"{rival['predict'][f'{q}_ms']:.0f} ms against {rival['rival'][f'{q}_ms']:.0f} ms" in page
    for scheme, name in (("grpc", "gRPC"), ("http", "HTTP")):
        soak = json.loads((results / f"soak_{scheme}.json").read_text())
        assert soak["wrong_answers"] == soak["later_than_deadline_and_100_ms"] == 0
        assert f"{soak['first_answer_after_restart_s']['max']:.2f} s over {name}" in page
    absent = json.loads((results / "hard_mask.json").read_text())
    assert set(absent["hard_means_absent"].values()) == {10_000}
    assert sum(value for name, value in absent["batch_invariance"].items() if name.startswith("flips")) == 0
    wire = json.loads((results / "wire.json").read_text())
    shipped, paper = wire["bundles"]["gender_112"], wire["bundles"]["gender_112_paper"]
    said = f"{shipped['payload_bytes']} bytes: {shipped['payload_to_jpeg_q75']:.3f} of the median JPEG of quality 75"
    right = f"gender {shipped['task']['value']:.1%}, the whole network".replace("%", " %")
    assert f"{said} of the same crop ({wire['jpeg_q75_median_bytes']:,} bytes); {right}" in page
    assert f"{paper['payload_bytes']:,} bytes: {paper['payload_to_dense']}" in page
    assert f"{paper['payload_to_jpeg_q90']:.2f} of the median JPEG of quality 90" in page
    assert f"{paper['payload_to_jpeg_q75']:.2f} of quality 75" in page
    rows = [line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    kept = [
        row.strip("|").split(" | ")[-1].strip() for row in rows if any(row.startswith(f"| {what}") for what in _FEW)
    ]
    assert len(kept) == len(_FEW)
    assert [figure for figure in kept if figure not in page] == [], "the README's few are among them"
