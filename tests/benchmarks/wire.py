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
from tests.tiny import PAPER, ROOT


def main() -> None:
    """Measure, and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=PAPER)
    parser.add_argument("--data", type=Path, help="folder with pictures, searched to any depth")
    options = parser.parse_args()
    contract = Manifest.load(options.bundle).contract
    files = sorted(options.data.rglob("*.jpg")) if options.data else [ROOT / "examples" / "data" / "astronaut.jpg"]
    sizes: dict[int, list[int]] = {75: [], 90: []}
    for file in files:
        crop = preprocess(load_image(file), contract.preprocessing)
        for quality, counts in sizes.items():
            counts.append(len(cv2.imencode(".jpg", crop[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]))
    payload = contract.payload_bytes
    record(
        "wire",
        f"python -m tests.benchmarks.wire{' --data DIR' if options.data else ''}",
        {
            "pictures": len(files),
            "payload_bytes": payload,
            "dense_float32_bytes": contract.dense_bytes,
            "payload_to_dense": round(payload / contract.dense_bytes, 4),
            **{
                f"jpeg_q{quality}": {
                    "median_bytes": int(np.median(counts)),
                    "payload_to_median": round(payload / float(np.median(counts)), 4),
                    "pictures_above_payload": int((np.array(counts) > payload).sum()),
                }
                for quality, counts in sizes.items()
            },
        },
    )


if __name__ == "__main__":
    main()
