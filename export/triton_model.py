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

    def violation(self, values: np.ndarray) -> str | None:
        """Say, without naming a value, how ``values`` (batch first) break these limits; None if they do not."""
        if not (values.min() >= self.low and values.max() <= self.high):  # false for NaN too
            return f"{self.name}: a value lies outside [{self.low:g}, {self.high:g}]"
        if self.ascending and (values[..., 1:] <= values[..., :-1]).any():
            return f"{self.name}: values must be strictly ascending and unique"
        return None


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
        received = [self._read(request) for request in requests]
        together = _together(received)
        # Nearly always all are valid: found out at once. Only where they are not is each looked at.
        wrong = {}
        if self._violation(together):
            wrong = {number: why for number, arrays in enumerate(received) if (why := self._violation(arrays))}
            self._refused.increment(len(wrong))
            valid = [arrays for number, arrays in enumerate(received) if number not in wrong]
            together = _together(valid) if valid else {}
        (answer,) = self._session.run([self._output], together) if together else [np.empty(0)]
        responses, start = [], 0
        for number, arrays in enumerate(received):
            if number in wrong:
                refusal = pb_utils.TritonError(wrong[number], pb_utils.TritonError.INVALID_ARG)
                responses.append(pb_utils.InferenceResponse(error=refusal))
                continue
            end = start + len(arrays[self._inputs[0].name])
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor(self._output, answer[start:end])]))
            start = end
        return responses

    def _read(self, request: pb_utils.InferenceRequest) -> dict[str, np.ndarray]:
        """Return the request's arrays by name."""
        names = [limits.name for limits in self._inputs]
        return {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in names}

    def _violation(self, arrays: dict[str, np.ndarray]) -> str | None:
        """Say how one of ``arrays`` breaks its limits; None if none does."""
        return next((why for limits in self._inputs if (why := limits.violation(arrays[limits.name]))), None)


def _together(batches: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Put arrays of the same name behind each other."""
    if len(batches) == 1:
        return batches[0]
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def _limits(name: str, parameters: dict[str, str]) -> Limits:
    return Limits(
        name=name,
        low=float(parameters[f"{name}.low"]),
        high=float(parameters[f"{name}.high"]),
        ascending=parameters[f"{name}.order"] == "strictly_ascending",
    )
