"""``python export/to_onnx.py CHECKPOINT --bundle DIR --model-repository DIR``: make a bundle and its head."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

if not __package__:  # run as a script, from any folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import numpy.typing as npt
import onnx
import typer
from rich.table import Table

from dcp_sdk.bundles.bundle import DEVICE_GRAPH_FILE
from dcp_sdk.bundles.manifest import Manifest
from dcp_sdk.bundles.onnx_check import check_graph
from dcp_sdk.commands.errors import errors_in_words
from dcp_sdk.commands.tables import readable_bytes
from dcp_sdk.errors import ConfigError
from dcp_sdk.serving.on_disk import GRAPH_FILE
from dcp_sdk.serving.repository import ModelRepository
from export import bundle as files
from export.fused import halves
from export.half_client import with_half_client, with_rounded_client
from export.parity import Parity, compare, cost_of_bits, cost_of_half
from training import data as datasets
from training.checkpoint import Checkpoint
from training.console import console

__all__ = ["export", "pictures_for_parity"]


def export(
    checkpoint_file: Path,
    bundle: Path,
    repository: Path,
    *,
    folder: Path | None,
    pictures: int = 256,
    name: str | None = None,
    model: str | None = None,
    data_note: str = "not stated",
    bits: int | None = None,
    half_client: bool = False,
    with_head: bool = False,
    unfinished: bool = False,
    force: bool = False,
) -> Parity:
    """Write the bundle and its paired head; nothing is written unless the graphs compute what torch does.

    Args:
        checkpoint_file: From ``training.train``.
        bundle: Folder of the bundle.
        repository: Triton's model repository.
        folder: Root of the data set, for the comparison; None compares on noise.
        pictures: How many to compare.
        name: The bundle's; None takes the folder's name.
        model: Triton's name for the head; None lets it follow from the contract, so that no other is replaced.
        data_note: What it was trained on, and under which licence; stands in the model card.
        bits: Of a value on the wire, 1, 2, 4 or 8; fewer than 8 are packed several to a byte. None takes as many as it
            was trained with. What fewer cost stands in the manifest.
        half_client: Compute the client network in float16, on GPUs. What it costs stands in the manifest.
        with_head: Let the bundle carry the head, too, for a client with ``on_failure="local"``.
        unfinished: Export a training that was cut off, too; the card says after which epoch.
        force: Replace an existing bundle, and a ``model`` that is the head of another contract.

    Raises:
        ConfigError: No checkpoint there, or it was trained with fewer bits; or its training was cut off and
            ``unfinished`` is not given; or the bundle exists, or ``model`` is another contract's, and ``force`` is not
            given.
        BundleError: The exported graphs do not compute what torch computes, or change too much in half precision.
    """
    if not force:
        files.refuse_to_overwrite(bundle)
    name = name or bundle.resolve().name
    checkpoint = Checkpoint.load(checkpoint_file)
    if checkpoint.epoch < checkpoint.recipe.optim.epochs and not unfinished:
        raise ConfigError(
            f"{checkpoint_file}: expected a finished training, got epoch {checkpoint.epoch} of "
            f"{checkpoint.recipe.optim.epochs}. Give the command of the training again, which goes on, or export it as "
            "it is with --unfinished."
        )
    device, head = halves(checkpoint, bits)
    sample, labels = pictures_for_parity(checkpoint, folder, pictures)
    bundle.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=bundle.parent, prefix=".export-") as temporary:
        built = Path(temporary)
        files.write_graphs(device, head, checkpoint.recipe.data.size_px, built)
        parity = compare(device, head, built / DEVICE_GRAPH_FILE, built / GRAPH_FILE, sample)
        parity.check()
        half_client_cost = None
        if half_client:
            single = onnx.load(built / DEVICE_GRAPH_FILE)
            half_client_cost = cost_of_half((device, head), with_rounded_client(single), sample, labels)
            onnx.save(with_half_client(single), built / DEVICE_GRAPH_FILE)
            check_graph((built / DEVICE_GRAPH_FILE).read_bytes(), built / DEVICE_GRAPH_FILE)  # as each device will
        stated = files.state_contract(checkpoint, device, built, name=name, model=model)
        contract = ModelRepository(repository).place(stated, replace=force)
        as_trained = device.bits == checkpoint.recipe.network.bits
        files.write_manifest(
            checkpoint,
            checkpoint_file,
            contract,
            built,
            name=name,
            data=data_note,
            bits_cost=None if as_trained else cost_of_bits(halves(checkpoint), (device, head), sample, labels),
            half_client_cost=half_client_cost,
        )
        files.install(built, contract, bundle, repository, with_head=with_head, replace=force)
    return parity


def pictures_for_parity(
    checkpoint: Checkpoint, folder: Path | None, count: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return pictures, and the task's labels of those among them that the training did not see.

    Returns:
        uint8 ``(N, S, S, 3)``, at most ``count``: validation pictures, then training pictures, then the same mirrored.
        Without a folder (and a recipe that draws its own pictures) it is noise.
        int64: labels of the validation pictures, which come first; none of noise.
    """
    recipe = checkpoint.recipe
    if folder is None and recipe.data.kind != "generated":
        size_px = recipe.data.size_px
        noise = np.random.default_rng(0).integers(0, 256, (count, size_px, size_px, 3), np.uint8)
        return noise, np.empty(0, np.int64)
    splits = datasets.shuffled(datasets.load(recipe.data, folder))  # the first few may all be of one class
    real = np.concatenate([splits.val.pictures, splits.train.pictures])[:count]
    mirrored = real[: max(0, count - len(real)), :, ::-1]
    labels = np.asarray(splits.val.task[:count], np.int64)
    return np.ascontiguousarray(np.concatenate([real, mirrored])), labels


def _main(
    checkpoint: Annotated[Path, typer.Argument(help="checkpoint.safetensors of a training")],
    bundle: Annotated[Path, typer.Option(help="folder of the bundle, for devices")],
    model_repository: Annotated[Path, typer.Option(help="Triton's model repository, for the server")],
    data: Annotated[Path | None, typer.Option(help="data set, to compare on real pictures")] = None,
    pictures: Annotated[int, typer.Option(min=1, help="how many pictures to compare on")] = 256,
    name: Annotated[str | None, typer.Option(help="name of the bundle; by default its folder's")] = None,
    head: Annotated[
        str | None, typer.Option(help="Triton's name for the head; by default it follows from the contract")
    ] = None,
    data_note: Annotated[
        str, typer.Option(help="what it was trained on, with the licence; for the card")
    ] = "not stated",
    bits: Annotated[
        int | None,
        typer.Option(help="bits of a value on the wire: 8, 4, 2 or 1; by default as many as it was trained with"),
    ] = None,
    half_client: Annotated[
        bool, typer.Option("--half-client", help="compute the client network in half precision, for devices with a GPU")
    ] = False,
    with_head: Annotated[
        bool, typer.Option("--with-head", help="let the bundle carry the head, for answers without a server")
    ] = False,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="export a training that was cut off; the card says so")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="replace a bundle that exists, and another head under --head")
    ] = False,
) -> None:
    """Write a bundle and the task head that is paired with it."""
    with errors_in_words():
        parity = export(
            checkpoint,
            bundle,
            model_repository,
            folder=data,
            pictures=pictures,
            name=name,
            model=head,
            data_note=data_note,
            bits=bits,
            half_client=half_client,
            with_head=with_head,
            unfinished=unfinished,
            force=force,
        )
    manifest = Manifest.load(bundle)
    served = manifest.contract.head
    title = f"{bundle} and {model_repository / served.model}, version {served.version}"
    table = Table("torch against ONNX Runtime", "", title=title, title_justify="left")
    for key, value in asdict(parity).items():
        table.add_row(key.replace("_", " "), f"{value:,}" if isinstance(value, int) else f"{value:.2g}")
    provenance = manifest.provenance
    for what, cost in (("fewer bits", provenance.bits_cost), ("half precision", provenance.half_client_cost)):
        for key, value in cost.model_dump().items() if cost else ():
            table.add_row(f"{what}: {key.replace('_', ' ')}", "not known" if value is None else f"{value:,}")
    table.add_row("payload", readable_bytes(manifest.contract.payload_bytes))
    graph = bundle / DEVICE_GRAPH_FILE
    table.add_row("device graph", readable_bytes(graph.stat().st_size))
    console.print(table)
    if data is None:
        console.print("Compared on noise or drawn pictures. Give --data to compare on real ones.")


if __name__ == "__main__":
    typer.run(_main)
