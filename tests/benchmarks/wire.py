"""Bytes of one picture on the wire, against JPEG and dense features: ``python -m tests.benchmarks.wire --data DIR``.

Beside them stands how often each answers right, of the same validation pictures: bundles as their reports say, the
whole network as its row of ``docs/results`` does, which saw the crops before any JPEG. Without ``--data`` the shipped
sample is the only picture.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from dcp_sdk import load_image
from dcp_sdk.bundles.manifest import Manifest
from dcp_sdk.bundles.privacy_report import PrivacyReport
from dcp_sdk.preprocess import preprocess
from tests.benchmarks.record import record
from tests.tiny import PAPER, ROOT, SHIPPED
from training.reports.results import RESULTS, Row

WHOLE_NETWORK = RESULTS / "utkface_gender_112-none-r00-s1.json"


def task_accuracy(report: PrivacyReport | None) -> dict[str, float] | None:
    """Balanced accuracy of the task with its interval, rounded."""
    if report is None:
        return None
    return {bound: round(share, 4) for bound, share in report.utility.balanced_accuracy.model_dump().items()}


def main() -> None:
    """Measure, and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", type=Path, nargs="*", default=[SHIPPED, PAPER], metavar="BUNDLE")
    parser.add_argument("--data", type=Path, help="folder with pictures, searched to any depth")
    options = parser.parse_args()
    manifests = {folder: Manifest.load(folder) for folder in options.bundles}
    contracts = {manifest.name: manifest.contract for manifest in manifests.values()}
    reports = {manifest.name: PrivacyReport.load(folder, manifest.contract) for folder, manifest in manifests.items()}
    (preprocessing,) = {contract.preprocessing for contract in contracts.values()}
    files = sorted(options.data.rglob("*.jpg")) if options.data else [ROOT / "examples" / "data" / "astronaut.jpg"]
    sizes: dict[int, list[int]] = {75: [], 90: []}
    for file in files:
        crop = preprocess(load_image(file), preprocessing)
        for quality, counts in sizes.items():
            counts.append(len(cv2.imencode(".jpg", crop[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]))
    medians = {quality: float(np.median(counts)) for quality, counts in sizes.items()}
    record(
        "wire",
        f"python -m tests.benchmarks.wire{' --data DIR' if options.data else ''}",
        {
            "pictures": len(files),
            **{f"jpeg_q{quality}_median_bytes": int(median) for quality, median in medians.items()},
            "whole_network_task": task_accuracy(Row.model_validate_json(WHOLE_NETWORK.read_bytes()).report),
            "bundles": {
                name: {
                    "task": task_accuracy(reports[name]),
                    "payload_bytes": contract.payload_bytes,
                    "dense_float32_bytes": contract.dense_bytes,
                    "payload_to_dense": round(contract.payload_bytes / contract.dense_bytes, 4),
                    **{
                        f"payload_to_jpeg_q{quality}": round(contract.payload_bytes / median, 4)
                        for quality, median in medians.items()
                    },
                }
                for name, contract in contracts.items()
            },
        },
    )


if __name__ == "__main__":
    main()
