"""The whole network, torch behind FastAPI, one worker: ``python -m tests.benchmarks.serving_fastapi BUNDLE PORT``."""

import sys
from pathlib import Path

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool

from dcp_sdk.bundles.manifest import Manifest
from tests.benchmarks.whole_network import whole_network

torch.set_num_threads(1)  # requests run beside each other; threads of their own would only get in each other's way
app = FastAPI()
manifest = Manifest.load(Path(sys.argv[1]))
network = whole_network(manifest)
shape = (1, *manifest.contract.input.shape)


@torch.inference_mode()
def predict(body: bytes) -> list[float]:
    """Answer for the bytes of one picture, uint8 ``(S, S, 3)``."""
    answer: list[float] = network(torch.from_numpy(np.frombuffer(body, np.uint8).reshape(shape).copy()))[0].tolist()
    return answer


@app.get("/ready")
def ready() -> str:
    """Say that the network is loaded."""
    return "ready"


@app.post("/predict")
async def answer(request: Request) -> list[float]:
    """Answer for the picture in the body."""
    return await run_in_threadpool(predict, await request.body())


if __name__ == "__main__":
    predict(bytes(int(np.prod(shape))))  # the first one allocates
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
