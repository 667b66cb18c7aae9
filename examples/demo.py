"""The whole line, from picture to prediction, against a real Triton server. Run by ``make demo``."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import onnx
from channel_picture import draw
from rich.console import Console
from rich.table import Table

from dcp_sdk import (
    Contract,
    DCPError,
    Manifest,
    Prediction,
    PrivacyReport,
    PrivateClient,
    Timings,
    load_image,
    mean_probabilities,
)
from dcp_sdk.bundles.bundle import DEVICE_GRAPH_FILE, Bundle
from dcp_sdk.commands.tables import readable_bytes
from dcp_sdk.obfuscate import graph_inputs
from dcp_sdk.preprocess import Image, preprocess
from dcp_sdk.serving import TritonServer

ROOT = Path(__file__).resolve().parents[1]
REPEATS = 20
VIDEO_FRAMES, VIDEO_SIDE_PX = 72, 256
ACTIVATIONS = "activations"  # the client network's output, inside the device graph

console = Console(highlight=False)


def main() -> None:
    """Predict a picture and a video, tell what it cost, and draw what left the device."""
    options = read_options()
    with server_address(options.server, options.bundle) as server, PrivateClient(options.bundle, server) as client:
        contract = client.manifest.contract
        console.print(f"[bold]{client.manifest.name}[/] on {client.provider}, head at {client.server}\n")
        client.predict(options.picture)  # the first request opens the connection
        predictions = [client.predict(options.picture) for _ in range(REPEATS)]
        console.print(prediction_table(options.picture, predictions[-1]))
        with tempfile.TemporaryDirectory() as folder:
            video = write_video(load_image(options.picture), Path(folder) / "pan.avi")
            streamed = list(client.stream(video))
        console.print(f"The same face in a video of {len(streamed)} frames: {summary(streamed)}\n")
        console.print(timing_table({f"picture, median of {REPEATS}": predictions, "video, median": streamed}))
        crop = preprocess(load_image(options.picture), contract.preprocessing)
        console.print(bytes_table(contract, crop))
    report = PrivacyReport.load(options.bundle, contract)
    verdict = report.verdict if report else "not measured: the bundle has no privacy report."
    console.print(f"[bold]What these bytes give away:[/] {verdict}\n")
    picture = draw_channels(options.bundle, contract, crop)
    cv2.imwrite(str(options.output), picture)
    console.print(f"Wrote {options.output}: what the camera saw, all the channels, and those that left.")


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=ROOT / "bundles" / "gender_112")
    parser.add_argument("--server", help="use this server, or memory://REPOSITORY, instead of starting one")
    parser.add_argument("--picture", type=Path, default=ROOT / "examples" / "data" / "astronaut.jpg")
    parser.add_argument("--output", type=Path, default=Path("demo.png"))
    return parser.parse_args()


@contextlib.contextmanager
def server_address(given: str | None, bundle: Path) -> Iterator[str]:
    """Yield the address that was given, or that of a Triton with the bundle's head which runs until the block ends."""
    if given is not None:
        yield given
        return
    models = (Manifest.load(bundle).contract.head.model,)
    with TritonServer(ROOT / "triton_models", models=models, venv=ROOT / ".venv-triton") as server:
        console.print(f"Started tritonserver, process {server.pid}")
        yield server.grpc_address
    console.print("Stopped tritonserver")


def write_video(face: Image, path: Path) -> Path:
    """Write a slow pan and zoom over ``face`` (uint8 ``(H, W, 3)``, RGB) as a video file."""
    size = (VIDEO_SIDE_PX, VIDEO_SIDE_PX)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 24, size)
    side = min(face.shape[:2])
    for phase in np.linspace(0, 2 * np.pi, VIDEO_FRAMES):
        zoom = VIDEO_SIDE_PX / side * (1.08 + 0.06 * np.cos(phase))
        shift = VIDEO_SIDE_PX / 2 - zoom * side / 2 * (1 + 0.04 * np.sin(phase))
        matrix = np.float32([[zoom, 0, shift], [0, zoom, shift]])
        frame = cv2.warpAffine(face, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        writer.write(frame[..., ::-1])
    writer.release()
    return path


def prediction_table(picture: Path, prediction: Prediction) -> Table:
    """Show the probability of each label."""
    title = f"What the server answered for {picture.name}"
    table = Table("label", "probability", title=title, title_justify="left")
    for label, probability in prediction.probabilities.items():
        style = "bold green" if label == prediction.label else ""
        table.add_row(label, f"{probability:.1%}", style=style)
    return table


def summary(predictions: list[Prediction]) -> str:
    """Count the labels of a video."""
    counts = Counter(prediction.label for prediction in predictions)
    label, count = counts.most_common(1)[0]
    return f"[bold]{label}[/] in {count}, {mean_probabilities(predictions)[label]:.1%} on average"


def timing_table(columns: dict[str, list[Prediction]]) -> Table:
    """Show the median milliseconds of each stage."""
    table = Table("stage", title="Where the time goes", title_justify="left")
    for name in columns:
        table.add_column(name, justify="right")
    for field in dataclasses.fields(Timings):
        medians = [statistics.median(getattr(p.timings, field.name) for p in ps) for ps in columns.values()]
        style = "bold" if field.name == "total_ms" else ""
        table.add_row(field.name.removesuffix("_ms"), *(f"{ms:.2f} ms" for ms in medians), style=style)
    return table


def bytes_table(contract: Contract, crop: Image) -> Table:
    """Compare the payload with other ways to send the same crop."""
    title = "Bytes of one picture"
    table = Table("what", "bytes", "payload = 1", title=title, title_justify="left")
    payload = contract.payload_bytes
    rows = {
        f"payload: {contract.pruning.kept} of {contract.pruning.channels} channels": payload,
        "the crop as JPEG, quality 75": jpeg_bytes(crop, 75),
        "the crop as JPEG, quality 90": jpeg_bytes(crop, 90),
        "all channels as float32, unpruned": contract.dense_bytes,
    }
    for name, count in rows.items():
        style = "bold green" if count == payload else ""
        table.add_row(name, readable_bytes(count), f"x {count / payload:.1f}", style=style)
    return table


def jpeg_bytes(image_rgb: Image, quality: int) -> int:
    """Count the bytes of a picture as JPEG."""
    _, encoded = cv2.imencode(".jpg", image_rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return len(encoded)


def draw_channels(bundle: Path, contract: Contract, crop: Image) -> Image:
    """Draw crop, all the channels, and the payload as the graph emits it.

    The device graph never gives its activations away. For this drawing alone, a copy of it in memory gets
    them as an extra output; the client, and the file of the bundle, know nothing of it.
    """
    graph = onnx.load_from_string(Bundle.of(bundle).read(DEVICE_GRAPH_FILE))
    graph.graph.output.append(onnx.ValueInfoProto(name=ACTIVATIONS))
    import onnxruntime as ort  # after dcp_sdk, which keeps it from reporting to its maker

    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [tensor.name for tensor in contract.payload]
    channels, features, activations = session.run([*names, ACTIVATIONS], graph_inputs(contract, crop[None]))
    sent = contract.unpack(features)[0].astype(np.float32) * contract.pruning.scale
    pruning, noisy = contract.pruning, contract.noise is not None
    kind = "values" if contract.values_shape[1:] == (1, 1) else "channels"
    captions = [
        ("What the camera saw", f"{readable_bytes(crop.nbytes)} of pixels, stays on the device"),
        (
            f"All {pruning.channels} {kind}{', before noise' if noisy else ''}",
            f"{readable_bytes(contract.dense_bytes)}, stays inside the graph",
        ),
        (
            f"The {pruning.kept} {kind} that left{', with noise' if noisy else ''}",
            f"{readable_bytes(contract.payload_bytes)}, all that is sent",
        ),
    ]
    top = pruning.scale * (2**contract.bits - 1)
    return draw(crop, activations[0], dict(zip(channels[0].tolist(), sent, strict=True)), top, captions)


if __name__ == "__main__":
    try:
        main()
    except DCPError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        sys.exit("\nInterrupted.")
