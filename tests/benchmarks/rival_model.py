"""The obvious rival on Triton's Python backend: it gets a JPEG file, decodes it, and runs the whole network."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Triton's interface: ``initialize`` once per instance, ``execute`` once per batch."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the graph; the decoder is borrowed from the environment that the configuration names."""
        sys.path.append(json.loads(args["model_config"])["parameters"]["decoder"]["string_value"])
        from PIL import Image

        self._open = Image.open
        graph = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self._session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """Answer each request."""
        return [pb_utils.InferenceResponse([self._answer(request)]) for request in requests]

    def _answer(self, request: pb_utils.InferenceRequest) -> pb_utils.Tensor:
        jpeg = pb_utils.get_input_tensor_by_name(request, "jpeg").as_numpy()
        picture = np.asarray(self._open(io.BytesIO(jpeg.tobytes())).convert("RGB"))
        (probabilities,) = self._session.run(None, {"image": picture[None]})
        return pb_utils.Tensor("probabilities", probabilities)
