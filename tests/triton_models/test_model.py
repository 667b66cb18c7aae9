"""``model.py`` in a real Triton: it answers as ONNX Runtime does, and refuses bad requests alone."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
from tritonclient import grpc as triton
from tritonclient.utils import InferenceServerException

from dcp_sdk.errors import ServerUnavailable
from dcp_sdk.serving import TritonServer
from tests.tiny import ADMIN_KEY, ADMIN_OVER_GRPC, CHANNELS, MODEL_CODE, ROOT, Tiny, payload, write_tiny
from tests.trained import Trained

pytestmark = pytest.mark.triton

Arrays = dict[str, npt.NDArray[np.uint8]]


@pytest.fixture
def client(tiny_server: TritonServer) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(tiny_server.grpc_address.removeprefix("grpc://")) as client:
        yield client


def infer(client: triton.InferenceServerClient, arrays: Arrays) -> npt.NDArray[np.float32]:
    """Send ``arrays`` as they are, right or wrong."""
    inputs = []
    for name, array in arrays.items():
        tensor = triton.InferInput(name, array.shape, "UINT8")
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    answer: npt.NDArray[np.float32] = client.infer("task_head", inputs, client_timeout=30).as_numpy("probabilities")
    return answer


def in_process(tiny: Tiny, arrays: Arrays) -> npt.NDArray[np.float32]:
    """Run the same graph without a server."""
    session = ort.InferenceSession(tiny.head, providers=["CPUExecutionProvider"])
    answer: npt.NDArray[np.float32] = session.run(None, arrays)[0]
    return answer


@pytest.mark.parametrize("count", [1, 2, 8])
def test_answers_as_onnx_runtime_does(client: triton.InferenceServerClient, tiny: Tiny, count: int) -> None:
    arrays = payload(count, seed=count)
    np.testing.assert_allclose(infer(client, arrays), in_process(tiny, arrays), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        ([2, 1, 5], "strictly ascending"),
        ([1, 1, 5], "strictly ascending"),
        ([1, 5, CHANNELS], "outside"),
    ],
    ids=["descending", "twice the same", "beyond the last channel"],
)
def test_refuses_channels_that_cannot_be(
    client: triton.InferenceServerClient, channels: list[int], message: str
) -> None:
    arrays = payload(1) | {"channels": np.array([channels], np.uint8)}
    with pytest.raises(InferenceServerException, match=message) as caught:
        infer(client, arrays)
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_refusals_are_counted_since_triton_takes_them_for_successes(tiny: Tiny) -> None:
    with TritonServer(tiny.repository, venv=ROOT / ".venv-triton", metrics=True) as server:

        def refused() -> float:
            with urllib.request.urlopen(str(server.metrics_address), timeout=10) as answer:
                (line,) = (
                    one for one in answer.read().decode().splitlines() if one.startswith("dcp_requests_refused{")
                )
            return float(line.rpartition(" ")[2])

        with triton.InferenceServerClient(server.grpc_address.removeprefix("grpc://")) as client:
            infer(client, payload(1))
            assert refused() == 0
            for _ in range(3):
                with pytest.raises(InferenceServerException):
                    infer(client, payload(1) | {"channels": np.array([[2, 1, 5]], np.uint8)})
            assert refused() == 3


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: {name: array[:, :2] for name, array in arrays.items()},
        lambda arrays: {name: array[:0] for name, array in arrays.items()},
        lambda arrays: {"channels": arrays["channels"]},
        lambda arrays: arrays | {"channels": arrays["channels"][:1]},
        lambda arrays: arrays | {"image": np.zeros((2, 4), np.uint8)},
        lambda arrays: {name: array.repeat(5, axis=0) for name, array in arrays.items()},
    ],
    ids=[
        "other k",
        "no picture",
        "one tensor missing",
        "two batch sizes",
        "a tensor more",
        "batch too large",
    ],
)
def test_triton_itself_refuses_the_wrong_form(client: triton.InferenceServerClient, change: object) -> None:
    assert callable(change)
    arrays = {name: np.ascontiguousarray(array) for name, array in change(payload(2)).items()}
    with pytest.raises(InferenceServerException) as caught:
        infer(client, arrays)
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_a_bad_request_does_not_harm_its_neighbours(tiny_server: TritonServer, tiny: Tiny) -> None:
    """Sixteen threads at once, so that Triton batches good and bad requests together."""
    good = [payload(1, seed=seed) for seed in range(16)]
    bad = payload(1) | {"channels": np.array([[3, 2, 1]], np.uint8)}
    failures: list[str] = []
    barrier = threading.Barrier(len(good))
    address = tiny_server.grpc_address.removeprefix("grpc://")

    def work(index: int) -> None:
        with triton.InferenceServerClient(address) as client:
            barrier.wait()
            for _ in range(25):
                if index % 4 == 0:
                    try:
                        infer(client, bad)
                        failures.append("a bad request was answered")
                    except InferenceServerException as error:
                        if error.status() != "StatusCode.INVALID_ARGUMENT":
                            failures.append(str(error))
                elif not np.allclose(infer(client, good[index]), expected[index], atol=1e-6, rtol=0):
                    failures.append("a good request got another's answer")

    expected = [in_process(tiny, arrays) for arrays in good]
    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(good))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with triton.InferenceServerClient(address) as client:
        statistics = client.get_inference_statistics("task_head", as_json=True)["model_stats"][0]
    assert int(statistics["execution_count"]) < int(statistics["inference_stats"]["success"]["count"])


def test_nothing_of_a_payload_is_logged_or_stored(tiny: Tiny, tmp_path: Path) -> None:
    arrays = payload(1)
    arrays["features"][:] = 173  # a number that a log has no reason to hold twice in a row
    wrong = [{"channels": np.array([[173, 172, 171]], np.uint8)}, {"channels": arrays["channels"][:, :2]}]
    log = tmp_path / "triton.log"
    before = sorted(path for path in tiny.repository.rglob("*") if path.is_file())
    with TritonServer(tiny.repository, venv=ROOT / ".venv-triton", log=log) as server:
        with triton.InferenceServerClient(server.grpc_address.removeprefix("grpc://")) as client:
            infer(client, arrays)
            said = []
            for bad in wrong:
                with pytest.raises(InferenceServerException) as refused:
                    infer(client, arrays | bad)
                said.append(str(refused.value))
    kept = log.read_bytes() + "".join(said).encode()
    assert b"Started GRPCInferenceService" in kept
    traces = [arrays["features"].tobytes()[:3], b"173, 173", b"173 173", b"173,173", b"173 172", b"173, 172", b"adadad"]
    assert [trace for trace in traces if trace in kept] == []
    stored = sorted(path for path in tiny.repository.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert stored == [path for path in before if "__pycache__" not in path.parts]


def test_refuses_to_load_another_graph(tmp_path: Path) -> None:
    pair, other = write_tiny(tmp_path / "pair"), write_tiny(tmp_path / "other", seed=1)
    pair.head.write_bytes(other.head.read_bytes())
    with pytest.raises(ServerUnavailable, match="not the file that this configuration was rendered for"):
        TritonServer(pair.repository, venv=ROOT / ".venv-triton").start()


def test_refuses_another_graph_when_it_is_loaded_again(broken: Tiny, tmp_path: Path) -> None:
    """The server goes on running: each load compares the hash anew, and what was served before stays."""
    right, other = broken.head.read_bytes(), write_tiny(tmp_path / "other", seed=1).head.read_bytes()
    arrays = payload(1)
    expected = in_process(broken, arrays)
    with TritonServer(broken.repository, venv=ROOT / ".venv-triton", admin_key=ADMIN_KEY) as server:
        with triton.InferenceServerClient(server.grpc_address.removeprefix("grpc://")) as client:
            broken.head.write_bytes(other)
            with pytest.raises(InferenceServerException, match="not the file that this configuration"):
                client.load_model("task_head", headers=ADMIN_OVER_GRPC)
            np.testing.assert_allclose(infer(client, arrays), expected, atol=1e-6, rtol=0)
            client.unload_model("task_head", headers=ADMIN_OVER_GRPC)
            with pytest.raises(InferenceServerException, match="not the file that this configuration"):
                client.load_model("task_head", headers=ADMIN_OVER_GRPC)
            assert not client.is_model_ready("task_head")
            broken.head.write_bytes(right)
            client.load_model("task_head", headers=ADMIN_OVER_GRPC)
            np.testing.assert_allclose(infer(client, arrays), expected, atol=1e-6, rtol=0)


def test_every_committed_copy_is_the_one_that_export_writes(trained: Trained) -> None:
    source = MODEL_CODE.read_bytes()
    copies = [*(ROOT / "triton_models").glob("*/*/model.py"), *trained.repository.glob("*/*/model.py")]
    assert len(copies) >= 3
    assert [str(path) for path in copies if path.read_bytes() != source] == []
