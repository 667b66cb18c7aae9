"""The task head on Triton's Python backend: ONNX Runtime over this folder's ``model.onnx``.

For servers without the onnxruntime backend (configuration ``embedded``). Names, limits and hash come from the
model configuration; Triton has checked types and shapes before a request arrives here. Nothing of a request
is stored or logged; how many were refused is counted, because Triton counts a refusal as a success.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils


@dataclass(frozen=True)
class Limits:
    """What one input tensor may hold."""

    name: str
    low: float
    high: float
    ascending: bool

    def check(self, values: np.ndarray) -> None:
        """Raise ValueError, without naming a value, if ``values`` (batch first) breaks these limits."""
        if not np.all((values >= self.low) & (values <= self.high)):  # false for NaN too
            raise ValueError(f"{self.name}: a value lies outside [{self.low:g}, {self.high:g}]")
        if self.ascending and np.any(values[..., 1:] <= values[..., :-1]):
            raise ValueError(f"{self.name}: values must be strictly ascending and unique")


class TritonPythonModel:
    """Triton's interface: ``initialize`` once per instance, ``execute`` once per dynamic batch."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the graph if it is the one that the configuration was rendered for."""
        config = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in config["parameters"].items()}
        self._inputs = [_limits(tensor["name"], parameters) for tensor in config["input"]]
        self._output = config["output"][0]["name"]
        expected = parameters[f"model_sha256.{args['model_version']}"]

        graph = (Path(args["model_repository"]) / args["model_version"] / "model.onnx").read_bytes()
        if hashlib.sha256(graph).hexdigest() != expected:
            raise RuntimeError("model.onnx is not the file that this configuration was rendered for; export again")
        options = ort.SessionOptions()
        # As many as Triton's own backend takes: else one for each core of the node, whatever the pod may use.
        options.intra_op_num_threads = int(parameters["intra_op_thread_count"])
        # Threads that spin between batches take twice the processor's time for the same answers.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        # A family that nobody holds is deleted, and its metrics with it.
        self._family = pb_utils.MetricFamily(
            name="dcp_requests_refused",
            description="Requests outside of the contract, refused by the model",
            kind=pb_utils.MetricFamily.COUNTER,
        )
        labels = {"model": args["model_name"], "version": args["model_version"], "reason": "OUTSIDE_CONTRACT"}
        self._refused = self._family.Metric(labels=labels)

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """Answer all valid requests with one run of the graph, and each invalid one with INVALID_ARG."""
        responses: list[pb_utils.InferenceResponse | None] = [None] * len(requests)
        valid: dict[int, dict[str, np.ndarray]] = {}
        for index, request in enumerate(requests):
            try:
                valid[index] = self._read(request)
            except ValueError as error:
                refusal = pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
                responses[index] = pb_utils.InferenceResponse(error=refusal)
                self._refused.increment(1)
        if valid:
            for index, answer in zip(valid, self._run(list(valid.values())), strict=True):
                responses[index] = pb_utils.InferenceResponse([pb_utils.Tensor(self._output, answer)])
        return responses

    def _read(self, request: pb_utils.InferenceRequest) -> dict[str, np.ndarray]:
        """Return the request's arrays by name. Raises ValueError if one breaks its limits."""
        arrays = {}
        for limits in self._inputs:
            array = pb_utils.get_input_tensor_by_name(request, limits.name).as_numpy()
            limits.check(array)
            arrays[limits.name] = array
        return arrays

    def _run(self, batches: list[dict[str, np.ndarray]]) -> list[np.ndarray]:
        """Run the graph once over ``batches`` and split the answer again, one array per batch."""
        feed = {limits.name: np.concatenate([batch[limits.name] for batch in batches]) for limits in self._inputs}
        (answer,) = self._session.run([self._output], feed)
        first = self._inputs[0].name
        ends = np.cumsum([len(batch[first]) for batch in batches])
        return np.split(answer, ends[:-1])


def _limits(name: str, parameters: dict[str, str]) -> Limits:
    return Limits(
        name=name,
        low=float(parameters[f"{name}.low"]),
        high=float(parameters[f"{name}.high"]),
        ascending=parameters[f"{name}.order"] == "strictly_ascending",
    )
