"""Tensors that stay in one place give fresh answers, on the CPU's memory here and on a GPU's where there is one."""

from __future__ import annotations

import threading
import weakref
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest

from dcp_sdk import ConfigError, Manifest
from dcp_sdk.bundles.bundle import DEVICE_GRAPH_FILE
from dcp_sdk.bundles.onnx_check import constant_outputs
from dcp_sdk.contract import Contract
from dcp_sdk.device_buffers import DeviceBuffers, nodes_elsewhere
from dcp_sdk.errors import RuntimeUnavailable
from dcp_sdk.obfuscate import Obfuscator, graph_inputs
from dcp_sdk.runtime import why_no_cuda
from tests.sdk.helpers import no_more_threads
from tests.tiny import PAPER, SHIPPED

BATCHES = (1, 3, 1, 3, 2, 1)
_WHY = why_no_cuda()
on_gpu = pytest.mark.skipif(_WHY is not None, reason=f"not measured on a GPU: {_WHY}")

Inputs = dict[str, npt.NDArray[Any]]


def open_session(bundle: Path, batch: int) -> ort.InferenceSession:
    """Open the device graph as the GPU's is opened, but on the CPU."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    options.add_free_dimension_override_by_name("batch", batch)
    return ort.InferenceSession(bundle / DEVICE_GRAPH_FILE, options, providers=["CPUExecutionProvider"])


def drawn(contract: Contract, batch: int, seed: int) -> Inputs:
    """Draw what a run takes; noise too by this seed, since four noisy values of two pictures are equal now and then."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (batch, *contract.input.shape), np.uint8)
    inputs = graph_inputs(contract, pixels)
    if contract.noise is not None:
        inputs[contract.noise.name] = generator.random(inputs[contract.noise.name].shape, np.float32)
    return inputs


def test_without_a_thread_to_open_it_a_session_is_refused_and_later_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    contract = Manifest.load(PAPER).contract
    opened = partial(open_session, PAPER)
    buffers = DeviceBuffers(opened, contract.device_inputs, contract.payload, constants={}, memory="cpu")
    two = drawn(contract, 2, 0)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_more_threads)
        for _ in range(2):
            with pytest.raises(RuntimeUnavailable, match="the system gives none"):
                buffers.run(two, ort.RunOptions(), 60)
    assert len(buffers.run(two, ort.RunOptions(), 60)[0]) == 2


@pytest.mark.parametrize("bundle", [SHIPPED, PAPER], ids=lambda path: path.name)
def test_no_run_sees_the_frame_of_another(bundle: Path) -> None:
    contract = Manifest.load(bundle).contract
    plain = ort.InferenceSession(bundle / DEVICE_GRAPH_FILE, providers=["CPUExecutionProvider"])
    names = [spec.name for spec in contract.payload]
    constant = constant_outputs((bundle / DEVICE_GRAPH_FILE).read_bytes(), names)
    assert constant == ({"channels"} if bundle == SHIPPED else set())
    zero = {spec.name: np.zeros((1, *spec.shape), spec.dtype) for spec in contract.device_inputs}
    buffers = DeviceBuffers(
        lambda batch: open_session(bundle, batch),
        contract.device_inputs,
        contract.payload,
        constants={name: plain.run([name], zero)[0] for name in constant},
        memory="cpu",
    )
    given = [drawn(contract, batch, seed) for seed, batch in enumerate(BATCHES)]
    expected = [plain.run(names, inputs) for inputs in given]
    answers = [buffers.run(inputs, ort.RunOptions()) for inputs in given]
    assert not np.array_equal(expected[0][-1], expected[2][-1]), "two pictures that can be told apart"
    for answer, right in zip(answers, expected, strict=True):  # at the end: no later run may have written into one
        for got, wanted in zip(answer, right, strict=True):
            np.testing.assert_array_equal(got, wanted)

    failures: list[int] = []

    def work(number: int) -> None:
        for _ in range(10):
            answer = buffers.run(given[number], ort.RunOptions())
            if not all(np.array_equal(got, wanted) for got, wanted in zip(answer, expected[number], strict=True)):
                failures.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with pytest.raises(ValueError, match="image: expected"):
        buffers.run(given[0] | {"image": given[0]["image"].astype(np.float32)}, ort.RunOptions())


def test_nobody_waits_beyond_his_deadline_for_a_session_to_be_opened() -> None:
    contract = Manifest.load(PAPER).contract
    go = threading.Event()

    def slowly(batch: int) -> ort.InferenceSession:
        if batch > 1 and not go.wait(60):
            raise AssertionError
        return open_session(PAPER, batch)

    buffers = DeviceBuffers(slowly, contract.device_inputs, contract.payload, constants={}, memory="cpu")
    one, two = drawn(contract, 1, 0), drawn(contract, 2, 0)
    right = buffers.run(one, ort.RunOptions())
    for inputs in (two, one, two):  # who has a session waits for his turn, and not for ever either
        with pytest.raises(TimeoutError):
            buffers.run(inputs, ort.RunOptions(), 0.05)
    go.set()
    for _ in range(2):
        assert len(buffers.run(two, ort.RunOptions(), 60)[0]) == 2
    for got, wanted in zip(buffers.run(one, ort.RunOptions(), 60), right, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_of_many_batch_sizes_the_last_ones_stay_open() -> None:
    contract = Manifest.load(PAPER).contract
    opened: list[int] = []
    sessions: list[weakref.ref[ort.InferenceSession]] = []

    def counting(batch: int) -> ort.InferenceSession:
        opened.append(batch)
        session = open_session(PAPER, batch)
        sessions.append(weakref.ref(session))
        return session

    buffers = DeviceBuffers(counting, contract.device_inputs, contract.payload, constants={}, memory="cpu")
    for batch in (*range(1, 9), 1, 9, 1, 2):  # the ninth size closes 2, which was not used for longest
        assert len(buffers.run(drawn(contract, batch, 0), ort.RunOptions(), 60)[0]) == batch
    assert opened == [*range(1, 10), 2]
    assert sum(session() is not None for session in sessions) == 8


def test_a_session_that_did_not_open_is_tried_again() -> None:
    contract = Manifest.load(PAPER).contract
    tries: list[int] = []

    def sometimes(batch: int) -> ort.InferenceSession:
        tries.append(batch)
        if tries.count(2) == 1:
            raise RuntimeError("out of memory")
        return open_session(PAPER, min(batch, 2))

    buffers = DeviceBuffers(sometimes, contract.device_inputs, contract.payload, constants={}, memory="cpu")
    with pytest.raises(RuntimeError, match="out of memory"):
        buffers.run(drawn(contract, 2, 0), ort.RunOptions())
    assert len(buffers.run(drawn(contract, 2, 0), ort.RunOptions())[0]) == 2
    assert tries == [1, 2, 2]


@pytest.mark.parametrize("bundle", [SHIPPED, PAPER], ids=lambda path: path.name)
def test_the_session_says_where_each_node_runs(bundle: Path) -> None:
    session = open_session(bundle, 1)
    assert nodes_elsewhere(session, ["CPUExecutionProvider"]) == []
    elsewhere = nodes_elsewhere(session, ["CUDAExecutionProvider"])
    assert any("(Conv) on CPUExecutionProvider" in node for node in elsewhere)
    assert not any("(Shape)" in node for node in elsewhere), "shapes, which CUDA leaves to the CPU, fold away"


def test_there_is_no_cuda_graph_on_the_cpu() -> None:
    with pytest.raises(ConfigError, match="cuda_graph"):
        Obfuscator(SHIPPED, Manifest.load(SHIPPED).contract, device="cpu", cuda_graph=True)


@on_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("cuda_graph", [False, True])
@pytest.mark.parametrize("bundle", [SHIPPED, PAPER], ids=lambda path: path.name)
def test_cuda_answers_as_the_cpu_and_a_replayed_graph_sees_new_frames(bundle: Path, cuda_graph: bool) -> None:
    contract = Manifest.load(bundle).contract
    cpu = Obfuscator(bundle, contract, device="cpu")
    cuda = Obfuscator(bundle, contract, device="cuda", cuda_graph=cuda_graph)
    assert cuda.provider == "cuda"
    for turn in range(20):
        inputs = drawn(contract, BATCHES[turn % len(BATCHES)], turn)
        right, got = cpu._graph.run(inputs), cuda._graph.run(inputs)
        assert np.array_equal(right[0], got[0]), "the same channels"
        assert np.abs(right[1].astype(int) - got[1].astype(int)).max() <= 1, "one step of the quantiser"
