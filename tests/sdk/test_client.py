from __future__ import annotations

import dataclasses
import json
import shutil
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from dcp_sdk import (
    BundleError,
    ConfigError,
    Contract,
    ContractMismatch,
    DCPError,
    DeadlineExceeded,
    Frame,
    FrameError,
    FrameSource,
    Manifest,
    Prediction,
    PrivacyGuardError,
    PrivateClient,
    ServerAddress,
    ServerRejected,
    Timeouts,
)
from dcp_sdk.contract import sha256_file
from dcp_sdk.obfuscate import Payload
from dcp_sdk.preprocess import Image
from dcp_sdk.serving import triton_config
from tests import tiny as graph
from tests.sdk.helpers import Recorder
from tests.tiny import Tiny


@pytest.fixture
def recorder(tiny: Tiny) -> Recorder:
    return Recorder(tiny.repository)


@pytest.fixture
def client(tiny: Tiny, recorder: Recorder) -> Iterator[PrivateClient]:
    with PrivateClient(tiny.bundle, transport=recorder, device="cpu", threads=1) as client:
        yield client


def test_predict(client: PrivateClient, picture: Image, tiny: Tiny) -> None:
    prediction = client.predict(picture)
    assert isinstance(prediction, Prediction)
    assert tuple(prediction.probabilities) == graph.LABELS
    assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert prediction.label == graph.LABELS[prediction.index]
    assert prediction.probability == max(prediction.probabilities.values())
    assert len(prediction.kept_channels) == graph.KEPT
    assert list(prediction.kept_channels) == sorted(prediction.kept_channels)
    assert prediction.bytes_sent == tiny.manifest.contract.payload_bytes
    assert (prediction.provider, prediction.server) == ("cpu", "recorder")
    assert prediction.frame_age_ms >= 0


def test_timings_add_up(client: PrivateClient, picture: Image) -> None:
    timings = dataclasses.asdict(client.predict(picture).timings)
    total = timings.pop("total_ms")
    assert all(value >= 0 for value in timings.values())
    assert sum(timings.values()) == pytest.approx(total)


def test_all_kinds_of_input_give_one_answer(client: PrivateClient, picture: Image, picture_file: Path) -> None:
    inputs = [
        picture,
        picture_file,
        str(picture_file),
        picture_file.read_bytes(),
        Frame(picture, 0.0, "mine"),
    ]
    answers = [client.predict(item) for item in inputs]
    assert all(answer.probabilities == answers[0].probabilities for answer in answers)
    assert answers[-1].frame_age_ms > 0


def test_what_leaves_is_the_payload_alone(client: PrivateClient, recorder: Recorder, picture: Image) -> None:
    prediction = client.predict(picture)
    (sent,) = recorder.sent
    assert [tensor.dtype for tensor in sent] == [np.uint8, np.uint8]
    assert [tensor.shape for tensor in sent] == [(1, graph.KEPT), (1, graph.KEPT, graph.SIDE, graph.SIDE)]
    assert tuple(sent[0][0].tolist()) == prediction.kept_channels
    assert all(tensor.base is None for tensor in sent)


@pytest.mark.parametrize("count", [0, 1, 8, 9, 20])
def test_batch_is_split_and_agrees_with_single_pictures(count: int, client: PrivateClient, recorder: Recorder) -> None:
    pictures = list(np.random.default_rng(0).integers(0, 256, (count, 40, 50, 3), np.uint8))
    predictions = client.predict_batch(iter(pictures))
    sizes = [len(payload[0]) for payload in recorder.sent]
    assert sizes == [8] * (count // 8) + [count % 8] * (count % 8 > 0)
    for item, prediction in zip(pictures, predictions, strict=True):
        single = client.predict(item)
        assert single.kept_channels == prediction.kept_channels
        assert single.probabilities == pytest.approx(prediction.probabilities, abs=1e-6)


def test_a_batch_holds_one_picture_at_a_time_and_its_deadline_holds_between_them(
    tiny: Tiny, recorder: Recorder
) -> None:
    living: list[weakref.ref[Image]] = []
    most = 0

    def pictures(pause_s: float) -> Iterator[Image]:
        nonlocal most
        for _ in range(8):
            time.sleep(pause_s)
            picture = np.zeros((40, 50, 3), np.uint8)
            living.append(weakref.ref(picture))
            most = max(most, sum(one() is not None for one in living))
            yield picture

    timeouts = Timeouts(predict_s=1)
    with PrivateClient(tiny.bundle, transport=recorder, device="cpu", threads=1, timeouts=timeouts) as client:
        assert len(client.predict_batch(pictures(0))) == 8
        assert most <= 3, "the first, the last and this one"
        assert len(client.predict_batch(pictures(0.2), batch_size=2)) == 8
        assert [len(payload[0]) for payload in recorder.sent] == [8, 2, 2, 2, 2]
        start = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="capture"):
            client.predict_batch(pictures(0.3))
        assert time.monotonic() - start < 2
        with pytest.raises(DeadlineExceeded, match="capture"):  # the first of a request is no exception
            client.predict_batch(pictures(1.1), batch_size=1)
        for bad in (0, 9, 2.5, "2", True, np.True_, np.int64(9)):
            with pytest.raises(ConfigError, match="batch_size: expected from 1 to 8"):
                client.predict_batch(pictures(0), batch_size=bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "one",
    ["face.jpg", b"face", Path("face.jpg"), np.zeros((40, 50, 3), np.uint8), np.zeros((40, 50), np.uint8)],
    ids=lambda one: type(one).__name__,
)
def test_a_picture_is_no_batch(one: Any, client: PrivateClient) -> None:
    """A path has letters, which are no paths of pictures, and an array has rows, which are no grey pictures."""
    with pytest.raises(ConfigError, match=r"expected several pictures, got .* Use predict"):
        client.predict_batch(one)


def test_a_batch_in_an_array_and_its_size_as_numpy_counts(
    client: PrivateClient, recorder: Recorder, picture: Image
) -> None:
    objects = np.empty(3, object)
    objects[:] = [picture, picture[:40], picture]
    assert len(client.predict_batch(objects, batch_size=np.int64(2))) == 3
    assert len(client.predict_batch(np.stack([picture] * 3), batch_size=np.uint8(2))) == 3
    assert [len(payload[0]) for payload in recorder.sent] == [2, 1, 2, 1]


def test_nothing_is_sent_after_a_failure_in_a_batch(client: PrivateClient, recorder: Recorder, picture: Image) -> None:
    with pytest.raises(FrameError):
        client.predict_batch([picture] * 10 + [picture[..., 0]] + [picture] * 10)
    assert len(recorder.sent) == 1


def test_stream_over_arrays_and_folder(client: PrivateClient, picture: Image, picture_file: Path) -> None:
    streamed = list(client.stream([picture, Frame(picture, 0.0, "mine")]))
    streamed += client.stream(picture_file.parent)
    assert [item.probabilities for item in streamed] == [client.predict(picture).probabilities] * 3


def test_a_source_that_is_its_own_iterator_stays_open(client: PrivateClient, picture: Image) -> None:
    class Own(FrameSource):
        closed = False

        def __iter__(self) -> Iterator[Frame]:
            return self

        def __next__(self) -> Frame:
            return Frame(picture, time.monotonic(), "mine")

        def close(self) -> None:
            self.closed = True

    own = Own()
    stream = client.stream(own)
    next(stream)
    stream.close()
    assert not own.closed


def test_a_source_that_gives_something_else_than_frames(client: PrivateClient, picture: Image) -> None:
    class Careless(FrameSource):
        def __iter__(self) -> Iterator[Frame]:
            return iter([picture])  # type: ignore[list-item]

    with pytest.raises(FrameError, match=r"gives dcp_sdk\.Frame, got ndarray"):
        next(client.stream(Careless()))


@pytest.mark.parametrize("in_flight", [0, -1, 17, 2.0])
def test_in_flight_is_a_sensible_number_at_once(in_flight: int, client: PrivateClient, picture: Image) -> None:
    with pytest.raises(ConfigError, match=f"in_flight: expected from 1 to 16 requests, got {in_flight}"):
        client.stream([picture], in_flight=in_flight)


def test_stream_ends_with_the_client(client: PrivateClient, picture: Image) -> None:
    stream = client.stream([picture] * 3)
    next(stream)
    client.close()
    with pytest.raises(ConfigError, match="closed"):
        next(stream)


def test_many_threads(client: PrivateClient, picture: Image) -> None:
    pictures = [np.roll(picture, 5 * shift, axis=0) for shift in range(4)]
    expected = [client.predict(item).probabilities for item in pictures]
    failures: list[int] = []

    def work(index: int) -> None:
        for _ in range(25):
            if client.predict(pictures[index]).probabilities != expected[index]:
                failures.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


BAD_INPUT: dict[str, Callable[[Path], Any]] = {
    "missing file": lambda folder: folder / "missing.jpg",
    "empty file": lambda folder: write(folder / "empty.jpg", b""),
    "text file": lambda folder: write(folder / "text.jpg", b"not a picture"),
    "folder": lambda folder: folder,
    "empty bytes": lambda _: b"",
    "text bytes": lambda _: b"not a picture",
    "grey": lambda _: np.zeros((8, 8), np.uint8),
    "RGBA": lambda _: np.zeros((8, 8, 4), np.uint8),
    "float": lambda _: np.zeros((8, 8, 3)),
    "zero size": lambda _: np.zeros((0, 8, 3), np.uint8),
    "several pictures": lambda _: np.zeros((2, 8, 8, 3), np.uint8),
    "too many pixels": lambda _: np.broadcast_to(np.uint8(0), (20_000, 20_000, 3)),
    "frame of too many pixels": lambda _: Frame(np.broadcast_to(np.uint8(0), (20_000, 20_000, 3)), 0.0, "mine"),
    "list": lambda _: [[0, 0, 0]],
    "number": lambda _: 0,
    "frame of grey": lambda _: Frame(np.zeros((8, 8), np.uint8), 0.0, "mine"),
}


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("make", BAD_INPUT.values(), ids=BAD_INPUT)
def test_bad_input_is_a_frame_error_and_nothing_is_sent(
    make: Callable[[Path], Any], client: PrivateClient, recorder: Recorder, tmp_path: Path
) -> None:
    with pytest.raises(FrameError, match="expected"):
        client.predict(make(tmp_path))
    assert recorder.sent == []


def test_closed_client(client: PrivateClient, recorder: Recorder, picture: Image) -> None:
    client.close()
    client.close()
    for call in (client.predict, lambda p: client.predict_batch([p]), lambda p: next(client.stream([p]))):
        with pytest.raises(ConfigError, match="closed"):
            call(picture)
    assert recorder.sent == []
    assert recorder.closed == 1


def test_no_camera(client: PrivateClient) -> None:
    with pytest.raises(ConfigError, match="camera=0"):
        client.predict()
    with pytest.raises(ConfigError, match="camera=0"):
        next(client.stream())


def test_camera_that_does_not_open_closes_the_transport(tiny: Tiny, recorder: Recorder) -> None:
    with pytest.raises(FrameError, match="camera 97"):
        PrivateClient(tiny.bundle, transport=recorder, camera=97)
    assert recorder.closed == 1


def test_repr_tells_what_runs_where(client: PrivateClient) -> None:
    assert repr(client) == "<PrivateClient 'tiny' on cpu, head at recorder>"


def test_server_and_transport_exclude_each_other(tiny: Tiny, recorder: Recorder) -> None:
    address = ServerAddress(scheme="memory", target=str(tiny.repository))
    with PrivateClient(tiny.bundle, address) as client:
        assert client.server == f"memory://{tiny.repository}"
    with pytest.raises(ConfigError, match="got both"):
        PrivateClient(tiny.bundle, address, transport=recorder)
    with pytest.raises(ConfigError, match="got none"):
        PrivateClient(tiny.bundle)


KINDS: list[tuple[str, object, str]] = [
    ("bundle", 5, "str or PathLike, got int"),
    ("server", 5, "str or ServerAddress or Sequence or None, got int"),
    ("threads", "2", "int or None, got str"),
    ("threads", 1.5, "int or None, got float"),
    ("threads", True, "int or None, got bool"),
    ("threads", 2**31, "1 to 1,024, or None, got 2147483648"),
    ("cuda_graph", 1, "bool, got int"),
    ("timeouts", 2.0, "Timeouts, got float"),
    ("retries", 5, "Retries, got int"),
    ("retries", None, "Retries, got NoneType"),
    ("breaker", None, "CircuitBreaker, got NoneType"),
    ("security", {"api_key_file": "a-secret"}, "Security or None, got dict"),
    ("headers", ["x"], "Mapping or None, got list"),
    ("headers", {"x": 5}, "str, got int"),
    ("trusted_keys", "key.pem", "Sequence or None, got str"),
    ("trusted_keys", [5], "str or PathLike or bytes, got int"),
    ("transport", "grpc", "Transport or None, got str"),
    ("telemetry", True, "Telemetry or None, got bool"),
    ("camera", Path("/dev/video0"), "int or str or Camera or None, got PosixPath"),
    ("camera", False, "int or str or Camera or None, got bool"),
]


@pytest.mark.parametrize(("name", "value", "says"), KINDS, ids=[f"{name} {value}" for name, value, _ in KINDS])
def test_an_option_of_another_kind(name: str, value: object, says: str, tiny: Tiny) -> None:
    options: dict[str, Any] = {"bundle": tiny.bundle, "server": "http://127.0.0.1:9", name: value}
    with pytest.raises(ConfigError, match=f"^{name}: expected {says}.$"):
        PrivateClient(**options)


# Bundles that must not be used. Each is made from a good pair.


def edit_manifest(**changes: Any) -> Callable[[Tiny, Tiny], None]:
    def edit(pair: Tiny, other: Tiny) -> None:
        path = pair.bundle / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return edit


def edit_graph(pair: Tiny, other: Tiny) -> None:
    path = pair.bundle / "device.onnx"
    model = onnx.load(path)
    model.producer_name = "somebody else"
    onnx.save(model, path)


BAD_BUNDLES: dict[str, tuple[Callable[[Tiny, Tiny], Any], type[DCPError]]] = {
    "no folder": (lambda pair, _: shutil.rmtree(pair.bundle), BundleError),
    "no manifest": (lambda pair, _: (pair.bundle / "manifest.json").unlink(), BundleError),
    "no graph": (lambda pair, _: (pair.bundle / "device.onnx").unlink(), BundleError),
    "edited graph": (edit_graph, BundleError),
    "manifest of the future": (edit_manifest(schema_version=2), BundleError),
    "manifest with a stray key": (edit_manifest(server="http://elsewhere"), BundleError),
    "graph of another bundle": (
        lambda pair, other: shutil.copy(other.bundle / "device.onnx", pair.bundle),
        BundleError,
    ),
    "another bundle": (
        lambda pair, other: shutil.copytree(other.bundle, pair.bundle, dirs_exist_ok=True),
        ContractMismatch,
    ),
    "head of another bundle": (lambda pair, other: shutil.copy(other.head, pair.head), ContractMismatch),
}


@pytest.mark.parametrize(("damage", "error"), BAD_BUNDLES.values(), ids=BAD_BUNDLES)
def test_bad_bundle_is_refused_before_the_first_picture(
    damage: Callable[[Tiny, Tiny], Any], error: type[DCPError], broken: Tiny, other: Tiny
) -> None:
    recorder = Recorder(broken.repository)
    damage(broken, other)
    with pytest.raises(error):
        PrivateClient(broken.bundle, transport=recorder)
    assert recorder.closed == 1


def test_graph_that_breaks_its_contract_sends_nothing(broken: Tiny, picture: Image) -> None:
    """A pair that fits together, but whose device graph does not give ascending channels."""
    path = broken.bundle / "device.onnx"
    model = onnx.load(path)
    for node in model.graph.node:
        if "channels" in node.output:
            node.input[0] = "best"  # in the order of their scores, before they are sorted
    onnx.save(model, path)
    contract = broken.manifest.contract.model_copy(update={"device_sha256": sha256_file(path)})
    Manifest(name="broken", contract=contract, provenance=broken.manifest.provenance).save(broken.bundle)
    triton_config.write([contract], broken.repository)

    recorder = Recorder(broken.repository)
    noise = np.random.default_rng(0).integers(0, 256, (8, 40, 40, 3), np.uint8)
    with PrivateClient(broken.bundle, transport=recorder, device="cpu") as client:
        with pytest.raises(PrivacyGuardError, match="ascending"):
            client.predict_batch(noise)
    assert recorder.sent == []


def test_answer_that_breaks_the_contract(tiny: Tiny, picture: Image) -> None:
    class Liar(Recorder):
        def infer(self, payload: Payload, timeout_s: float) -> npt.NDArray[Any]:
            return super().infer(payload, timeout_s) / 2

    with PrivateClient(tiny.bundle, transport=Liar(tiny.repository)) as client:
        with pytest.raises(ServerRejected, match="sum to 1"):
            client.predict(picture)


def test_time_limits_reach_the_transport(tiny: Tiny, picture: Image) -> None:
    class Clock(Recorder):
        limits: tuple[float, ...] = ()

        def connect(self, contract: Contract, timeout_s: float) -> None:
            self.limits += (timeout_s,)
            super().connect(contract, timeout_s)

        def infer(self, payload: Payload, timeout_s: float) -> npt.NDArray[Any]:
            self.limits += (timeout_s,)
            return super().infer(payload, timeout_s)

    clock = Clock(tiny.repository)
    with PrivateClient(tiny.bundle, transport=clock, timeouts=Timeouts(connect_s=7, predict_s=3)) as client:
        client.predict(picture)
    assert clock.limits[0] == pytest.approx(7, abs=1)
    assert 0 < clock.limits[1] < 3, "what capture and device graph have left"
