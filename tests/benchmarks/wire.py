"""Bytes of one picture on the wire, against JPEG and dense features: ``python -m tests.benchmarks.wire --data DIR``.

Without ``--data`` the shipped sample is the only picture.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from dcp_sdk import load_image
from dcp_sdk.bundles.manifest import Manifest
from dcp_sdk.preprocess import preprocess
from tests.benchmarks.record import record
from tests.tiny import PAPER, ROOT, SHIPPED


def main() -> None:
    """Measure, and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", type=Path, nargs="*", default=[SHIPPED, PAPER], metavar="BUNDLE")
    parser.add_argument("--data", type=Path, help="folder with pictures, searched to any depth")
    options = parser.parse_args()
    contracts = {manifest.name: manifest.contract for manifest in map(Manifest.load, options.bundles)}
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
            "bundles": {
                name: {
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
