"""Triton's model configuration, rendered from the contracts: no tensor name, shape or digest is typed by hand.

Three configurations describe one and the same model:

* ``config.pbtxt``: backend ``onnxruntime``, for NVIDIA's server image, on the GPUs where there are any, else the CPU.
* ``configs/tensorrt.pbtxt``: the same with TensorRT (chosen with ``--model-config-name=tensorrt``).
* ``configs/embedded.pbtxt``: backend ``python``, the thin ``model.py`` over ONNX Runtime, for a server without that
  backend (``--model-config-name=embedded``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from ..bundles.bundle import write_atomically
from ..contract import Contract, TensorSpec, digest_parameter

__all__ = [
    "CONFIG_FILES",
    "Backend",
    "files",
    "render",
    "served_versions",
    "sha256_parameter",
    "write",
]

Backend = Literal["onnxruntime", "tensorrt", "python"]

CONFIG_FILES: dict[Backend, str] = {
    "onnxruntime": "config.pbtxt",
    "tensorrt": "configs/tensorrt.pbtxt",
    "python": "configs/embedded.pbtxt",
}
"""Path of each configuration inside the model's folder."""

_HEADER = """\
# Generated from the contracts of the paired bundles (contract.json of each version). Do not edit: a device
# compares the digest of its contract with the one below before it sends anything.
"""


def sha256_parameter(version: int) -> str:
    """Key under ``parameters``: hash of a version's ``model.onnx``. ``model.py`` refuses to load any other file."""
    return f"model_sha256.{version}"


def render(contracts: Sequence[Contract], backend: Backend) -> str:
    """Return the configuration of one model, as protobuf text.

    Args:
        contracts: Of the versions to serve. All are of one :attr:`~dcp_sdk.Contract.family` and one model.
        backend: ``onnxruntime``, ``tensorrt`` (the same backend, accelerated) or ``python``.

    Returns:
        The text of a ``config.pbtxt``, ending in a newline. Equal contracts give equal texts.
    """
    served = sorted(contracts, key=lambda one: one.head.version)
    contract = served[0]
    config = pb.ModelConfig(
        name=contract.head.model,
        backend="python" if backend == "python" else "onnxruntime",
        max_batch_size=contract.head.max_batch_size,
        version_policy=pb.ModelVersionPolicy(specific={"versions": [one.head.version for one in served]}),
        input=[
            pb.ModelInput(name=spec.name, data_type=f"TYPE_{spec.triton_type}", dims=spec.shape)
            for spec in contract.payload
        ],
        output=[
            pb.ModelOutput(
                name=contract.answer.name,
                data_type=f"TYPE_{contract.answer.triton_type}",
                dims=contract.answer.shape,
            )
        ],
        # KIND_AUTO takes the GPUs where the server has any. model.py runs on the CPU.
        instance_group=[pb.ModelInstanceGroup(count=1, kind="KIND_CPU" if backend == "python" else "KIND_AUTO")],
        # What comes while the model is busy forms the next batch; a lone request never waits. No queue policy: with
        # one, Triton forgets to wake its batcher (triton-inference-server/server#8870, tests/benchmarks/stalls.py).
        # How long a request may take is the device's to say.
        dynamic_batching=pb.ModelDynamicBatching(),
        # Compute once before the model is ready: the first real request shall not pay for the allocations.
        model_warmup=[_warm_up(contract, batch_size) for batch_size in (1, contract.head.max_batch_size)],
    )
    if backend == "tensorrt":
        config.optimization.execution_accelerators.gpu_execution_accelerator.add(name="tensorrt")
    for key, value in _parameters(served, backend).items():
        config.parameters[key].string_value = value
    body: str = text_format.MessageToString(config, use_short_repeated_primitives=True)
    return _HEADER + body


def files(contracts: Sequence[Contract]) -> dict[str, bytes]:
    """Return all that describes a model, by path inside its folder: configurations, and the payload that warms it up.

    Args:
        contracts: As :func:`render` takes them.
    """
    # The smallest tensors that the contract allows: Triton's own zeros need not be.
    warm_up = {f"warmup/{spec.name}": spec.smallest().tobytes() for spec in contracts[0].payload}
    # The configuration that Triton looks for comes last: it names all others.
    return warm_up | {CONFIG_FILES[backend]: render(contracts, backend).encode() for backend in get_args(Backend)[::-1]}


def write(contracts: Sequence[Contract], repository: Path) -> None:
    """Write :func:`files` into the model's folder under ``repository``, each as a whole."""
    for name, content in files(contracts).items():
        path = repository / contracts[0].head.model / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)


def served_versions(text: str) -> tuple[int, ...]:
    """Return the versions that a configuration tells Triton to serve.

    Raises:
        text_format.ParseError: It is no model configuration.
    """
    return tuple(text_format.Parse(text, pb.ModelConfig()).version_policy.specific.versions)


def _warm_up(contract: Contract, batch_size: int) -> pb.ModelWarmup:
    warm_up = pb.ModelWarmup(name=f"batch of {batch_size}", batch_size=batch_size)
    for spec in contract.payload:
        tensor = pb.ModelWarmup.Input(data_type=f"TYPE_{spec.triton_type}", dims=spec.shape, input_data_file=spec.name)
        warm_up.inputs[spec.name].CopyFrom(tensor)
    return warm_up


def _parameters(served: Sequence[Contract], backend: Backend) -> dict[str, str]:
    """Parameters belong to the model, so each key that is about a version names it."""
    # Else ONNX Runtime takes a thread for each core of the node, whatever the pod may use, and lets them spin.
    parameters = {"intra_op_thread_count": "1"}
    for contract in served:
        version = contract.head.version
        parameters |= {digest_parameter(version): contract.digest, sha256_parameter(version): contract.head.sha256}
    if backend == "python":
        for spec in served[0].payload:
            parameters |= _limits(spec)
    return parameters


def _limits(spec: TensorSpec) -> dict[str, str]:
    """Say what ``model.py`` checks of a tensor beyond its type and shape, which Triton itself checks."""
    return {
        f"{spec.name}.low": f"{spec.low:.17g}",
        f"{spec.name}.high": f"{spec.high:.17g}",
        f"{spec.name}.order": spec.order,
    }
