"""Latency against the obvious rival over a slow link: ``python -m tests.benchmarks.rival [--data DIR]``.

The rival sends the same crop as a JPEG of quality 75 to the same Triton, which decodes it and runs the whole network.
Both sides go over the same shaped link, call by call in turns. Without ``--data`` the shipped sample is all there is.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL
import tritonclient.grpc as triton

from dcp_sdk import Manifest, PrivateClient, Timeouts, load_image
from dcp_sdk.bench import paired_times
from dcp_sdk.preprocess import Image, preprocess
from dcp_sdk.serving import TritonServer
from dcp_sdk.stats import Percentiles
from tests.benchmarks.record import record
from tests.benchmarks.whole_network import write_whole_network
from tests.e2e.link import link
from tests.tiny import ROOT, SHIPPED

MBIT_S, ROUND_TRIP_MS, QUALITY = 10.0, 20.0, 75
_CONFIG = """
name: "whole"
backend: "python"
max_batch_size: 0
input {{ name: "jpeg" data_type: TYPE_UINT8 dims: [-1] }}
output {{ name: "probabilities" data_type: TYPE_FP32 dims: [1, {classes}] }}
instance_group {{ count: 1 kind: KIND_CPU }}
parameters {{ key: "decoder" value {{ string_value: "{decoder}" }} }}
"""


def write_repository(bundle: Path, folder: Path) -> tuple[str, str]:
    """Put the bundle's head and the whole network side by side; gives their names."""
    manifest = Manifest.load(bundle)
    head = manifest.contract.head.model
    shutil.copytree(ROOT / "triton_models" / head, folder / head)
    version = folder / "whole" / "1"
    version.mkdir(parents=True)
    write_whole_network(manifest, version / "model.onnx")
    shutil.copyfile(Path(__file__).with_name("rival_model.py"), version / "model.py")
    decoder = Path(PIL.__file__).parents[1]
    config = _CONFIG.format(classes=len(manifest.contract.task.labels), decoder=decoder)
    (folder / "whole" / "config.pbtxt").write_text(config, encoding="utf-8")
    return head, "whole"


def jpeg_of(crop: Image) -> Any:
    """Encode as the rival's device does: uint8 ``(bytes,)``."""
    return cv2.imencode(".jpg", crop[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].ravel()


def rival_of(address: str, classes: int) -> Callable[[Image], Any]:
    """Connect the rival; what it gives answers for a crop."""
    client = triton.InferenceServerClient(address)

    def answer(crop: Image) -> Any:
        jpeg = jpeg_of(crop)
        sent = triton.InferInput("jpeg", jpeg.shape, "UINT8")
        sent.set_data_from_numpy(jpeg)
        probabilities = client.infer("whole", [sent]).as_numpy("probabilities")
        assert probabilities.shape == (1, classes)
        return probabilities

    return answer


def compare(bundle: Path, crops: list[Image], calls: int, *, mbit_s: float, round_trip_ms: float) -> dict[str, Any]:
    """Measure both sides on the same pictures."""
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder)
        models = write_repository(bundle, repository)
        with TritonServer(repository, models=models, venv=ROOT / ".venv-triton") as server:
            port = int(server.grpc_address.rpartition(":")[2])
            with link(port, mbit_s=mbit_s, round_trip_ms=round_trip_ms) as near:
                address = f"127.0.0.1:{near}"
                with PrivateClient(bundle, address, device="cpu", timeouts=Timeouts(predict_s=30)) as client:
                    contract = client.manifest.contract
                    rival = rival_of(address, len(contract.task.labels))
                    ours, theirs = (itertools.cycle(crops) for _ in range(2))
                    times = paired_times(
                        [lambda: client.predict(next(ours)), lambda: rival(next(theirs))],
                        calls,
                    )
    ours_ms, theirs_ms = times
    return {
        "bundle": bundle.name,
        "calls": calls,
        "pictures": len(crops),
        "link": {"mbit_s": mbit_s, "round_trip_ms": round_trip_ms},
        "predict": {**_rounded(Percentiles.of(ours_ms)), "payload_bytes": contract.payload_bytes},
        "rival": {
            **_rounded(Percentiles.of(theirs_ms)),
            "median_jpeg_bytes": int(np.median([jpeg_of(c).size for c in crops])),
        },
        "predict_less_rival": _rounded(Percentiles.of(ours_ms - theirs_ms)),
    }


def _rounded(times: Percentiles) -> dict[str, float]:
    return {name: round(value, 3) for name, value in asdict(times).items()}


def main() -> None:
    """Measure, and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=SHIPPED)
    parser.add_argument("--data", type=Path, help="folder with pictures, searched to any depth")
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--calls", type=int, default=500)
    options = parser.parse_args()
    sample = [ROOT / "examples" / "data" / "astronaut.jpg"]
    files = sorted(options.data.rglob("*.jpg"))[: options.pictures] if options.data else sample
    spec = Manifest.load(options.bundle).contract.preprocessing
    crops = [preprocess(load_image(file), spec) for file in files]
    figures = compare(options.bundle, crops, options.calls, mbit_s=MBIT_S, round_trip_ms=ROUND_TRIP_MS)
    record("rival", f"python -m tests.benchmarks.rival{' --data DIR' if options.data else ''}", figures)


if __name__ == "__main__":
    main()
