"""The page shows what the report holds, for a bundle that was really trained, and needs nothing from elsewhere."""

from __future__ import annotations

import html.parser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dcp_sdk.bundles.manifest import Manifest
from dcp_sdk.bundles.measurements import Certificate, Interval, Panels, Reconstruction
from dcp_sdk.bundles.privacy_report import PrivacyReport
from tests.tiny import PAPER, ROOT, SHIPPED
from training.attacks import COPIES
from training.reports.html_page import HTML_REPORT_FILE, render, write
from training.reports.panels import png
from training.reports.results import RESULTS, rows_of
from training.reports.trade_off import TradeOffPoint

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


class _Page(html.parser.HTMLParser):
    """Collects the text, and everything that a browser would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.loaded: list[str] = []
        self.pictures: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in {"script", "link", "iframe"}:
            self.loaded.append(tag)
        for key, value in attrs:
            if tag == "img" and key == "src" and str(value).startswith("data:image/png;base64,"):
                self.pictures.append(str(value))
            elif key in {"src", "href"} and "#" not in str(value):
                self.loaded.append(f"{key}={value}")

    def handle_data(self, data: str) -> None:
        self.text += data


def test_no_report_that_is_published_shows_a_leaked_picture() -> None:
    bundles = [PrivacyReport.load(folder, Manifest.load(folder).contract) for folder in (SHIPPED, PAPER)]
    for report in (*bundles, *(row.report for row in rows_of(RESULTS))):
        assert report is not None
        shown = [drawing.name for drawing in report.reconstructions if drawing.panels]
        assert not set(shown) & COPIES


@pytest.fixture(scope="module")
def shipped() -> tuple[Manifest, PrivacyReport]:
    manifest = Manifest.load(PAPER)
    report = PrivacyReport.load(PAPER, manifest.contract)
    assert report is not None
    return manifest, report


def test_the_verdict_comes_first_and_nothing_is_loaded(shipped: tuple[Manifest, PrivacyReport]) -> None:
    manifest, report = shipped
    page = _Page()
    page.feed(render(manifest, report))
    assert page.loaded == []
    assert report.verdict in page.text
    assert page.text.index(report.verdict) < page.text.index("fresh adversary")
    for word in [attack.name for attack in report.attacks] + [group.label for group in report.utility.groups]:
        assert word in page.text
    assert report.command in page.text


def test_panels_stand_beside_what_was_recovered_of_them(shipped: tuple[Manifest, PrivacyReport]) -> None:
    manifest, report = shipped
    original, first, second = (png(np.full((8, 8, 3), level, np.uint8)) for level in (0, 100, 200))
    drawing = Reconstruction(name="a", pictures=1, ssim=0.7, psnr_db=20, mean_picture_ssim=0.5, panels=(first,))
    shown = report.model_copy(
        update={
            "panels": Panels(origin="drawn by hand", pictures=(original,)),
            "reconstructions": (drawing, drawing.model_copy(update={"name": "b", "panels": (second,), "lpips": 0.125})),
        }
    )
    page = _Page()
    page.feed(render(manifest, PrivacyReport.model_validate_json(shown.model_dump_json())))
    assert page.loaded == []
    assert [picture.partition(",")[2] for picture in page.pictures] == [original, first, second]
    assert "drawn by hand" in page.text
    assert "not measured" in page.text
    assert "0.12" in page.text


def test_other_bundles_stand_beside_this_one(shipped: tuple[Manifest, PrivacyReport]) -> None:
    manifest, report = shipped
    share = Interval(value=0.5, low=0.45, high=0.55)
    page = _Page()
    page.feed(render(manifest, report, [TradeOffPoint(name="no pruning at all", task=share, sensitive=share)]))
    assert "no pruning at all" in page.text
    assert "What privacy costs" in page.text
    assert "What privacy costs" not in render(manifest, report)


def test_what_holds_for_any_attacker_comes_with_its_condition(shipped: tuple[Manifest, PrivacyReport]) -> None:
    manifest, report = shipped
    certificate = Certificate(
        capacity_bits=16,
        reconstruction_mse=0.0123,
        delta=1e-5,
        epsilons={1: 3.5, 100: 190.0},
        best_accuracy=0.261,
        information_bits=0.02,
        information_error=0.005,
    )
    page = _Page()
    page.feed(render(manifest, report.model_copy(update={"certificate": certificate})))
    assert "WRONG" in page.text, "the shipped bundle's adversaries read more than the 26.1 % invented here"
    for text in ("16", "26.1 %", "0.020 ± 0.010", "3.5", "190.0", "too large to mean anything", "0.0123"):
        assert text in page.text
    assert "any attacker" not in render(manifest, report.model_copy(update={"certificate": None}))


def test_names_are_escaped(shipped: tuple[Manifest, PrivacyReport]) -> None:
    manifest, report = shipped
    renamed = manifest.model_copy(update={"name": "<script>alert(1)</script>"})
    assert "<script" not in render(renamed, report)


def test_the_same_report_gives_the_same_page(shipped: tuple[Manifest, PrivacyReport]) -> None:
    assert render(*shipped) == render(*shipped)


@pytest.mark.parametrize("bundle", [SHIPPED, PAPER], ids=lambda path: path.name)
def test_the_shipped_page_is_that_of_its_report(bundle: Path, tmp_path: Path) -> None:
    """Figures aside: another version of matplotlib draws them with other numbers."""
    for file in bundle.iterdir():
        shutil.copy(file, tmp_path)
    manifest = Manifest.load(tmp_path)
    report = PrivacyReport.load(tmp_path, manifest.contract)
    assert report is not None
    write(tmp_path, manifest, report)
    fresh, committed = (
        re.sub("<svg.*?</svg>", "", (folder / HTML_REPORT_FILE).read_text(), flags=re.DOTALL)
        for folder in (tmp_path, bundle)
    )
    assert fresh == committed


def test_the_page_can_be_written_again(tmp_path: Path) -> None:
    for file in ("manifest.json", "device.onnx", "privacy_report.json"):
        (tmp_path / file).write_bytes((PAPER / file).read_bytes())
    command = [sys.executable, "-m", "training.reports.html_page"]
    done = subprocess.run([*command, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "What gender_112_paper hides" in (tmp_path / "privacy_report.html").read_text()
    (tmp_path / "privacy_report.json").unlink()
    done = subprocess.run([*command, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert "training.evaluate" in done.stderr


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: sudo apt install chromium")
@pytest.mark.parametrize("bundle", [SHIPPED, PAPER], ids=lambda path: path.name)
def test_a_browser_draws_it(bundle: Path, tmp_path: Path) -> None:
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", (bundle / HTML_REPORT_FILE).as_uri()]
    drawn = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120).stdout
    manifest = Manifest.load(bundle)
    report = PrivacyReport.load(bundle, manifest.contract)
    assert report is not None
    assert report.verdict in drawn
    assert drawn.count("<svg") >= 3
