"""How often does Triton keep a lone client waiting for half a second? ``python -m tests.benchmarks.stalls``.

Triton's dynamic batcher looks after its queue when it is woken, or every 500 ms; where the queue has a policy (a size
or a timeout), it may miss that a request came (triton-inference-server/server#8870). The same head is served as
committed, with such a policy, and with that and a second instance, in turns; one client asks again and again.
"""

from __future__ import annotations

import argparse
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dcp_sdk import Manifest, PrivateClient
from dcp_sdk.bench import Bare
from dcp_sdk.serving import TritonServer
from tests.benchmarks.record import record
from tests.tiny import ROOT, SHIPPED

STALL_S = 0.4
_POLICY = "default_queue_policy { timeout_action: REJECT default_timeout_microseconds: 1000000 max_queue_size: 512 }"


def _with_policy(text: str) -> str:
    return re.sub(r"dynamic_batching \{\s*\}", f"dynamic_batching {{ {_POLICY} }}", text)


VARIANTS: dict[str, Callable[[str], str]] = {
    "as committed": lambda text: text,
    "with a queue policy": _with_policy,
    "with a queue policy and two instances": lambda text: _with_policy(text).replace("count: 1", "count: 2"),
}


def stalls(bundle: Path, change: Callable[[str], str], calls: int) -> dict[str, Any]:
    """Serve the head with a changed configuration, and count."""
    head = Manifest.load(bundle).contract.head.model
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "triton_models" / head, Path(folder) / head)
        configuration = Path(folder) / head / "configs" / "embedded.pbtxt"
        configuration.write_text(change(configuration.read_text(encoding="utf-8")), encoding="utf-8")
        with TritonServer(folder, models=(head,), venv=ROOT / ".venv-triton") as server:
            with PrivateClient(bundle, server.grpc_address, device="cpu", threads=1) as client:
                times_s, bare = [], Bare(client)
                side = client.manifest.contract.preprocessing.size_px
                crop = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
                for _ in range(calls):
                    start = time.perf_counter()
                    bare(crop)
                    times_s.append(time.perf_counter() - start)
                bare.close()
    return {"calls": calls, "stalls": int((np.array(times_s) > STALL_S).sum())}


def main() -> None:
    """Count, and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=SHIPPED)
    parser.add_argument("--calls", type=int, default=900)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    counted: dict[str, list[dict[str, Any]]] = {name: [] for name in VARIANTS}
    for _ in range(options.turns):
        for name, change in VARIANTS.items():
            counted[name].append(stalls(options.bundle, change, options.calls))
    figures = {
        name: {key: sum(one[key] for one in turns) for key in ("calls", "stalls")} for name, turns in counted.items()
    }
    record("stalls", "python -m tests.benchmarks.stalls", {"longer_than_s": STALL_S, **figures})


if __name__ == "__main__":
    main()
