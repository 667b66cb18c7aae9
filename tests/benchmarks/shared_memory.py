"""What would shared memory save where client and server share a host? ``python -m tests.benchmarks.shared_memory``.

The same payload in the request, and in a region of system shared memory that the server maps, through a bare
tritonclient over gRPC, call by call in turns. The server is started with that protocol open, which ``dcp serve`` never
does.
"""

from __future__ import annotations

import argparse
import uuid
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient import grpc as triton
from tritonclient.utils import shared_memory

from dcp_sdk import Manifest
from dcp_sdk.bench import paired_times
from dcp_sdk.serving import TritonServer
from tests.benchmarks.record import record
from tests.benchmarks.speed import percentiles
from tests.tiny import PAPER, ROOT, SHIPPED


class _Open(TritonServer):
    def _flags(self, folder: Path) -> list[str]:
        return [flag.replace("trace,logging,shared-memory:", "trace,logging:") for flag in super()._flags(folder)]


def measure(bundle: Path, calls: int) -> dict[str, Any]:
    """Time requests that hold the payload, and requests that say where it lies."""
    contract = Manifest.load(bundle).contract
    arrays = [spec.smallest()[None] for spec in contract.payload]
    inline, mapped, regions = [], [], []
    with (
        _Open(ROOT / "triton_models", models=[contract.head.model], venv=ROOT / ".venv-triton") as server,
        triton.InferenceServerClient(server.grpc_address.removeprefix("grpc://")) as client,
    ):
        try:
            for spec, array in zip(contract.payload, arrays, strict=True):
                there, here = (triton.InferInput(spec.name, array.shape, "UINT8") for _ in range(2))
                here.set_data_from_numpy(array)
                inline.append(here)
                key = f"/dcp_benchmark_{uuid.uuid4().hex}"
                region = shared_memory.create_shared_memory_region(spec.name, key, array.nbytes)
                regions.append(region)
                shared_memory.set_shared_memory_region(region, [array])
                client.register_system_shared_memory(spec.name, key, array.nbytes)
                there.set_shared_memory(spec.name, array.nbytes)
                mapped.append(there)

            def again() -> None:  # as each new payload would be
                for region, array in zip(regions, arrays, strict=True):
                    shared_memory.set_shared_memory_region(region, [array])
                client.infer(contract.head.model, mapped)

            first, second = client.infer(contract.head.model, inline), client.infer(contract.head.model, mapped)
            np.testing.assert_array_equal(*(answer.as_numpy(contract.answer.name) for answer in (first, second)))
            times = paired_times([lambda: client.infer(contract.head.model, inline), again], calls)
        finally:
            for region in regions:
                shared_memory.destroy_shared_memory_region(region)
    inside, beside = times
    return {
        "payload_bytes": contract.payload_bytes,
        "calls": calls,
        "inline": percentiles(list(inside)),
        "shared": percentiles(list(beside)),
        "inline_less_shared_p50_ms": round(float(np.median(inside - beside)), 4),
    }


def main() -> None:
    """Measure both shipped bundles, and record them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2000)
    calls = parser.parse_args().calls
    figures = {bundle.name: measure(bundle, calls) for bundle in (SHIPPED, PAPER)}
    record("shared_memory", "python -m tests.benchmarks.shared_memory", figures)


if __name__ == "__main__":
    main()
