"""What a device installs and what a server deploys, as files: both sides of one contract, written together."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from dcp_sdk.bundles.bundle import (
    DEVICE_GRAPH_FILE,
    HEAD_FILE,
    HTML_REPORT_FILE,
    MANIFEST_FILE,
    MODEL_CARD_FILE,
    PRIVACY_REPORT_FILE,
)
from dcp_sdk.bundles.manifest import BitsCost, ExportCost, Manifest, Provenance
from dcp_sdk.bundles.signature import SIGNATURE_FILE
from dcp_sdk.contract import Contract, Packing, Pruning, TaskHead, TensorSpec, sha256_file
from dcp_sdk.errors import ConfigError
from dcp_sdk.serving.on_disk import GRAPH_FILE
from dcp_sdk.serving.repository import ModelRepository, model_name
from training.checkpoint import Checkpoint
from training.reports.model_card import render

from .fused import DeviceGraph, HeadGraph
from .graphs import write_graph

__all__ = ["install", "refuse_to_overwrite", "state_contract", "write_graphs", "write_manifest"]

_MODEL_CODE = Path(__file__).with_name("triton_model.py")
_WRITERS = ("torch", "onnx", "onnxscript", "onnxruntime-gpu", "onnxruntime")


def write_graphs(device: DeviceGraph, head: HeadGraph, size_px: int, folder: Path) -> None:
    """Write ``device.onnx`` and ``model.onnx`` into ``folder``.

    Args:
        device: The device half.
        head: The server's half.
        size_px: Side S of the pictures.
        folder: Receives both files.
    """
    pictures = torch.zeros(2, size_px, size_px, 3, dtype=torch.uint8)
    example = {"image": pictures}
    if device.uniforms:
        example["noise"] = torch.full((2, device.uniforms), 0.5)
    with torch.no_grad():
        channels, features, *internal = device(**example)
    names = ("activations", "scores")[: len(internal)]
    write_graph(device, example, ("channels", "features"), names, folder / DEVICE_GRAPH_FILE)
    payload = {"channels": channels, "features": features}
    write_graph(head, payload, ("probabilities",), (), folder / GRAPH_FILE)


def state_contract(
    checkpoint: Checkpoint, device: DeviceGraph, folder: Path, *, name: str, model: str | None = None
) -> Contract:
    """Return the contract of the graphs in ``folder``, with version 1 of the head.

    Args:
        checkpoint: What they were exported from.
        device: The device half, as it was exported.
        folder: Holds ``device.onnx`` and ``model.onnx``.
        name: The bundle's.
        model: Triton's name for the head; None lets it follow from the contract.
    """
    recipe = checkpoint.recipe
    channels, height, width = checkpoint.model().activations_shape
    kept = recipe.pruning.kept(channels)
    size_px = recipe.data.size_px
    bits, uniforms = device.bits, device.uniforms
    packing = None if bits == 8 else Packing(bits=bits, shape=(kept, height, width))  # type: ignore[arg-type]
    contract = Contract(
        task=checkpoint.task,
        sensitive=checkpoint.sensitive,
        preprocessing=recipe.data.preprocessing,
        pruning=Pruning(
            rule=recipe.pruning.rule,
            pruner=recipe.pruning.pruner if recipe.pruning.rule == "dynamic" else None,
            channels=channels,
            kept=kept,
            ratio=recipe.pruning.ratio,
            scale=device.scale,
        ),
        device_sha256=sha256_file(folder / DEVICE_GRAPH_FILE),
        input=TensorSpec(name="image", dtype="uint8", shape=(size_px, size_px, 3), layout="HWC", low=0, high=255),
        noise=TensorSpec(name="noise", dtype="float32", shape=(uniforms,), layout="U", low=0, high=1)
        if uniforms
        else None,
        payload=(
            TensorSpec(
                name="channels",
                dtype="uint8" if channels <= 256 else "uint16",
                shape=(kept,),
                layout="K",
                low=0,
                high=channels - 1,
                order="strictly_ascending",
            ),
            TensorSpec(name="features", dtype="uint8", shape=(kept, height, width), layout="KHW", low=0, high=255)
            if packing is None
            else TensorSpec(name="features", dtype="uint8", shape=(packing.nbytes,), layout="B", low=0, high=255),
        ),
        packing=packing,
        answer=TensorSpec(
            name="probabilities", dtype="float32", shape=(len(checkpoint.task.labels),), layout="K", low=0, high=1
        ),
        head=TaskHead(model=model or "unnamed", version=1, sha256=sha256_file(folder / GRAPH_FILE)),
    )
    return contract if model else contract.with_head(model_name(name, contract), 1)


def write_manifest(
    checkpoint: Checkpoint,
    checkpoint_file: Path,
    contract: Contract,
    folder: Path,
    *,
    name: str,
    data: str,
    bits_cost: BitsCost | None = None,
    half_client_cost: ExportCost | None = None,
) -> Manifest:
    """Write manifest and model card into ``folder``.

    Args:
        checkpoint: What the graphs were exported from.
        checkpoint_file: Where it lies; the manifest names its hash.
        contract: From :func:`state_contract`.
        folder: Holds ``device.onnx``.
        name: The bundle's.
        data: What it was trained on, and under which licence.
        bits_cost: What it costs to send fewer bits than it was trained with.
        half_client_cost: What it costs to compute the client network in half precision.
    """
    manifest = Manifest(
        name=name,
        contract=contract,
        provenance=Provenance(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            recipe=checkpoint.recipe.name,
            commit=checkpoint.commit,
            seed=checkpoint.recipe.seed,
            settings=checkpoint.recipe.model_dump(mode="json"),
            data=data,
            epochs=checkpoint.epoch,
            hours=round(checkpoint.hours, 2),
            checkpoint_sha256=sha256_file(checkpoint_file),
            bits_cost=bits_cost,
            half_client_cost=half_client_cost,
            versions={package: found for package in _WRITERS if (found := _version(package))},
        ),
    )
    manifest.save(folder)
    (folder / MODEL_CARD_FILE).write_text(render(manifest), encoding="utf-8")
    return manifest


def refuse_to_overwrite(bundle: Path) -> None:
    """Protect a bundle that devices may have.

    Raises:
        ConfigError: ``bundle`` exists already.
    """
    if (path := bundle / MANIFEST_FILE).exists():
        raise ConfigError(f"{path} exists. Use --force to replace the bundle, or give another --bundle.")


def install(
    folder: Path, contract: Contract, bundle: Path, repository: Path, *, with_head: bool = False, replace: bool = False
) -> None:
    """Move finished files from ``folder`` to where they belong, the manifest last.

    Args:
        folder: Holds both graphs, manifest and card.
        contract: Of these graphs.
        bundle: Folder of the bundle.
        repository: Triton's model repository.
        with_head: Let the bundle carry the head, too, for a client with ``on_failure="local"``.
        replace: Delete another contract's head that has this name.
    """
    bundle.mkdir(parents=True, exist_ok=True)
    # The head comes first: a device that has the new bundle finds it, and the old bundle is whole if this fails.
    ModelRepository(repository).add(contract, folder / GRAPH_FILE, _MODEL_CODE, replace=replace)
    for name in (HEAD_FILE, PRIVACY_REPORT_FILE, HTML_REPORT_FILE, SIGNATURE_FILE):
        (bundle / name).unlink(missing_ok=True)  # of an earlier export: about other files than these
    if with_head:
        shutil.copyfile(folder / GRAPH_FILE, bundle / HEAD_FILE)
    (folder / GRAPH_FILE).unlink()
    for name in (DEVICE_GRAPH_FILE, MODEL_CARD_FILE, MANIFEST_FILE):
        shutil.move(folder / name, bundle / name)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except ModuleNotFoundError:  # PackageNotFoundError is one
        return None
