"""A complete pair, bundle and model repository, that is written in milliseconds.

The same outputs, contract and files as a real export, with random weights and without torch.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from dcp_sdk.bundles.bundle import DEVICE_GRAPH_FILE
from dcp_sdk.bundles.manifest import Manifest, Provenance
from dcp_sdk.contract import Attribute, Contract, ImagePreprocessing, Pruning, TaskHead, TensorSpec, sha256_file
from dcp_sdk.serving import ADMIN_KEY_HEADER
from dcp_sdk.serving.repository import ModelRepository

ROOT = Path(__file__).parents[1]
ADMIN_KEY = "mayload"
ADMIN_OVER_GRPC = {f"triton-grpc-protocol-{ADMIN_KEY_HEADER}": ADMIN_KEY}
"""What a request for loading models shows to a server with that key."""
SHIPPED = ROOT / "bundles" / "gender_112"
"""Few noisy values: two answers to one picture differ."""
PAPER = ROOT / "bundles" / "gender_112_paper"
"""The paper's method, for comparison: maps of channels chosen for each picture, nothing random."""
MODEL_CODE = ROOT / "export" / "triton_model.py"

SIZE, STRIDE, CHANNELS, RATIO, SCALE = 32, 8, 8, 0.625, 1 / 64
KEPT = 3
SIDE = SIZE // STRIDE
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LABELS = ("no", "yes")
OPSET = [helper.make_opsetid("", 18)]


@dataclass(frozen=True)
class Tiny:
    """A paired bundle folder and model repository."""

    bundle: Path
    repository: Path
    manifest: Manifest

    @property
    def head(self) -> Path:
        """The task head's graph."""
        head = self.manifest.contract.head
        return self.repository / head.model / str(head.version) / "model.onnx"


def write_tiny(folder: Path, *, seed: int = 0) -> Tiny:
    """Write ``folder/bundle`` and ``folder/triton_models``, ready for a client and a Triton server."""
    bundle, repository = folder / "bundle", folder / "triton_models"
    bundle.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    onnx.save(device_graph(rng), bundle / DEVICE_GRAPH_FILE)
    head = folder / "head.onnx"
    onnx.save(head_graph(rng), head)
    manifest = Manifest(
        name="tiny",
        contract=contract(sha256_file(bundle / DEVICE_GRAPH_FILE), sha256_file(head)),
        provenance=Provenance(
            created="2026-01-01T00:00:00Z",
            recipe="none",
            commit="unknown",
            seed=seed,
            checkpoint_sha256="0" * 64,
            versions={"onnx": onnx.__version__},
        ),
    )
    manifest.save(bundle)
    ModelRepository(repository).add(manifest.contract, head, MODEL_CODE)
    head.unlink()
    return Tiny(bundle, repository, manifest)


def write_retrained(tiny: Tiny, bundle: Path, *, seed: int = 1) -> Tiny:
    """Write ``bundle`` for the same device graph with another head, the next version of the same model."""
    shutil.copytree(tiny.bundle, bundle)
    head = bundle / "head.onnx"
    onnx.save(head_graph(np.random.default_rng(seed)), head)
    before = tiny.manifest.contract
    stated = before.model_copy(update={"head": before.head.model_copy(update={"sha256": sha256_file(head)})})
    repository = ModelRepository(tiny.repository)
    placed = repository.place(stated)
    repository.add(placed, head, MODEL_CODE)
    head.unlink()
    manifest = tiny.manifest.model_copy(update={"name": "retrained", "contract": placed})
    manifest.save(bundle)
    return Tiny(bundle, tiny.repository, manifest)


def contract(device_sha256: str, head_sha256: str) -> Contract:
    """State the contract of the two graphs below."""
    return Contract(
        task=Attribute(name="smile", labels=LABELS),
        sensitive=Attribute(name="colour", labels=("red", "green", "blue")),
        preprocessing=ImagePreprocessing(size_px=SIZE, mean=MEAN, std=STD),
        pruning=Pruning(rule="dynamic", pruner="light", channels=CHANNELS, kept=KEPT, ratio=RATIO, scale=SCALE),
        device_sha256=device_sha256,
        input=TensorSpec(name="image", dtype="uint8", shape=(SIZE, SIZE, 3), layout="HWC", low=0, high=255),
        payload=(
            TensorSpec(
                name="channels",
                dtype="uint8",
                shape=(KEPT,),
                layout="K",
                low=0,
                high=CHANNELS - 1,
                order="strictly_ascending",
            ),
            TensorSpec(name="features", dtype="uint8", shape=(KEPT, SIDE, SIDE), layout="KHW", low=0, high=255),
        ),
        answer=TensorSpec(name="probabilities", dtype="float32", shape=(len(LABELS),), layout="K", low=0, high=1),
        head=TaskHead(model="task_head", version=1, sha256=head_sha256, max_batch_size=8),
    )


def payload(count: int, *, seed: int = 0) -> dict[str, npt.NDArray[np.uint8]]:
    """Draw random payloads that fit the contract.

    Returns:
        ``channels`` uint8 ``(count, k)`` and ``features`` uint8 ``(count, k, h, w)``.
    """
    rng = np.random.default_rng(seed)
    return {
        "channels": np.stack([np.sort(rng.permutation(CHANNELS)[:KEPT]) for _ in range(count)]).astype(np.uint8),
        "features": rng.integers(0, 256, (count, KEPT, SIDE, SIDE), np.uint8),
    }


def device_graph(rng: np.random.Generator) -> onnx.ModelProto:
    """Normalise, convolve with ReLU (``activations``), score by mean, keep the best k, gather, quantise."""
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["pixels", "mean255"], ["centred"]),
        helper.make_node("Div", ["centred", "std255"], ["normal_nhwc"]),
        helper.make_node("Transpose", ["normal_nhwc"], ["normal"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["normal", "filters"], ["conv"], strides=[STRIDE, STRIDE]),
        helper.make_node("Relu", ["conv"], ["activations"]),
        helper.make_node("ReduceMean", ["activations", "spatial"], ["scores"], keepdims=0),
        helper.make_node("TopK", ["scores", "k"], ["best_scores", "best"], axis=1),
        helper.make_node("TopK", ["best", "k"], ["kept", "order"], axis=1, largest=0),
        helper.make_node("Cast", ["kept"], ["channels"], to=TensorProto.UINT8),
        helper.make_node("OneHot", ["kept", "depth", "off_on"], ["choose"]),
        helper.make_node("Reshape", ["activations", "flat"], ["rows"]),
        helper.make_node("MatMul", ["choose", "rows"], ["kept_rows"]),
        helper.make_node("Div", ["kept_rows", "scale"], ["steps"]),
        helper.make_node("Round", ["steps"], ["rounded"]),
        helper.make_node("Clip", ["rounded", "zero", "top"], ["clipped"]),
        helper.make_node("Cast", ["clipped"], ["bytes"], to=TensorProto.UINT8),
        helper.make_node("Reshape", ["bytes", "maps"], ["features"]),
    ]
    constants = {
        "mean255": np.float32(MEAN) * 255,
        "std255": np.float32(STD) * 255,
        "filters": rng.normal(0, 0.1, (CHANNELS, 3, STRIDE, STRIDE)).astype(np.float32),
        "spatial": np.int64([2, 3]),
        "k": np.int64([KEPT]),
        "depth": np.int64([CHANNELS]),
        "off_on": np.float32([0, 1]),
        "flat": np.int64([0, CHANNELS, SIDE * SIDE]),
        "scale": np.float32(SCALE),
        "zero": np.float32(0),
        "top": np.float32(255),
        "maps": np.int64([0, KEPT, SIDE, SIDE]),
    }
    return _model(
        nodes,
        constants,
        inputs=[("image", TensorProto.UINT8, ["batch", SIZE, SIZE, 3])],
        outputs=[
            ("channels", TensorProto.UINT8, ["batch", KEPT]),
            ("features", TensorProto.UINT8, ["batch", KEPT, SIDE, SIDE]),
        ],
    )


def head_graph(rng: np.random.Generator) -> onnx.ModelProto:
    """Dequantise, scatter to all the channels, one linear layer, softmax."""
    nodes = [
        helper.make_node("Cast", ["features"], ["steps"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["steps", "scale"], ["values"]),
        helper.make_node("Reshape", ["values", "flat"], ["rows"]),
        helper.make_node("Cast", ["channels"], ["kept"], to=TensorProto.INT64),
        helper.make_node("OneHot", ["kept", "depth", "off_on"], ["chosen"]),
        helper.make_node("Transpose", ["chosen"], ["place"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["place", "rows"], ["all_rows"]),
        helper.make_node("Flatten", ["all_rows"], ["vector"]),
        helper.make_node("Gemm", ["vector", "weight", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1),
    ]
    constants = {
        "scale": np.float32(SCALE),
        "flat": np.int64([0, KEPT, SIDE * SIDE]),
        "depth": np.int64([CHANNELS]),
        "off_on": np.float32([0, 1]),
        "weight": rng.normal(0, 0.1, (CHANNELS * SIDE * SIDE, len(LABELS))).astype(np.float32),
        "bias": np.zeros(len(LABELS), np.float32),
    }
    return _model(
        nodes,
        constants,
        inputs=[
            ("channels", TensorProto.UINT8, ["batch", KEPT]),
            ("features", TensorProto.UINT8, ["batch", KEPT, SIDE, SIDE]),
        ],
        outputs=[("probabilities", TensorProto.FLOAT, ["batch", len(LABELS)])],
    )


def _model(
    nodes: list[onnx.NodeProto],
    constants: dict[str, npt.NDArray[np.generic] | np.generic],
    *,
    inputs: list[tuple[str, int, list[str | int]]],
    outputs: list[tuple[str, int, list[str | int]]],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(*spec) for spec in inputs],
        [helper.make_tensor_value_info(*spec) for spec in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=OPSET, ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model
