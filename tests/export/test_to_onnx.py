from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest

from dcp_sdk import PrivateClient
from dcp_sdk.bundles.bundle import DEVICE_GRAPH_FILE
from dcp_sdk.bundles.manifest import Manifest
from dcp_sdk.contract import sha256_file
from dcp_sdk.errors import BundleError, ConfigError
from dcp_sdk.obfuscate import Payload
from dcp_sdk.preprocess import Image
from dcp_sdk.serving import triton_config
from dcp_sdk.serving.repository import ModelRepository
from export import parity
from export.to_onnx import export
from tests.tiny import ROOT, Tiny
from tests.trained import Trained
from training.checkpoint import Checkpoint


def test_what_was_exported_predicts(trained: Trained) -> None:
    with PrivateClient(trained.bundle, f"memory://{trained.repository}") as client:
        prediction = client.predict(picture(client))
    assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert prediction.bytes_sent == trained.manifest.contract.payload_bytes


def picture(client: PrivateClient) -> Image:
    import numpy as np

    side = client.manifest.contract.preprocessing.size_px
    return np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)


def test_no_unpruned_tensor_is_an_output(trained: Trained) -> None:
    graph = onnx.load(trained.bundle / DEVICE_GRAPH_FILE).graph
    assert [output.name for output in graph.output] == ["channels", "features"]
    assert {"activations", "scores"} <= {name for node in graph.node for name in node.output}


def test_weights_are_stored_as_float16(trained: Trained) -> None:
    """All of them: one layer that is missed doubles its bytes on every device."""
    for path in (trained.bundle / DEVICE_GRAPH_FILE, trained.head):
        large = [weight for weight in onnx.load(path).graph.initializer if np.prod(weight.dims) >= 4096]
        assert large
        assert {weight.data_type for weight in large} == {onnx.TensorProto.FLOAT16}


def test_a_graph_holds_no_path_of_the_machine_that_wrote_it(trained: Trained) -> None:
    for path in (trained.bundle / DEVICE_GRAPH_FILE, trained.head):
        assert b".py" not in path.read_bytes()


def test_hashes_and_configurations_follow_the_contract(trained: Trained) -> None:
    contract = trained.manifest.contract
    assert contract.device_sha256 == sha256_file(trained.bundle / DEVICE_GRAPH_FILE)
    assert contract.head.sha256 == sha256_file(trained.head)
    for backend, path in triton_config.CONFIG_FILES.items():
        assert (trained.repository / contract.head.model / path).read_text() == triton_config.render(
            [contract], backend
        )


def test_a_bundle_is_replaced_only_by_force_and_its_head_keeps_its_version(trained: Trained, tmp_path: Path) -> None:
    bundle, repository = tmp_path / trained.bundle.name, tmp_path / "m"
    first = export(trained.checkpoint, bundle, repository, folder=None, pictures=8)
    with pytest.raises(ConfigError, match="--force"):
        export(trained.checkpoint, bundle, repository, folder=None, pictures=8)
    again = export(trained.checkpoint, bundle, repository, folder=None, pictures=8, force=True)
    assert first == again
    assert Manifest.load(bundle).contract == trained.manifest.contract, "equal checkpoints give equal graphs"
    assert len(list(repository.glob("*/*/model.onnx"))) == 1


def test_a_training_that_was_cut_off_is_exported_only_on_demand(trained: Trained, tmp_path: Path) -> None:
    checkpoint = replace(Checkpoint.load(trained.checkpoint), epoch=1)
    checkpoint.save(tmp_path / "cut.safetensors")
    arguments = tmp_path / "cut.safetensors", tmp_path / "b", tmp_path / "m"
    with pytest.raises(ConfigError, match=r"got epoch 1 of 2.*--unfinished"):
        export(*arguments, folder=None, pictures=8)
    assert not (tmp_path / "b").exists()
    export(*arguments, folder=None, pictures=8, unfinished=True)
    assert "cut off after 1 of 2 epochs" in (tmp_path / "b" / "MODEL_CARD.md").read_text()
    assert "cut off" not in (trained.bundle / "MODEL_CARD.md").read_text()


def test_a_network_that_diverged_is_not_installed(trained: Trained, tmp_path: Path) -> None:
    """Where both graphs answer with what is not a number, they differ by nothing."""
    checkpoint = Checkpoint.load(trained.checkpoint)
    nonsense = {
        name: tensor * float("nan")
        for name, tensor in checkpoint.tensors.items()
        if name.startswith("head.") and tensor.is_floating_point()
    }
    replace(checkpoint, tensors=checkpoint.tensors | nonsense).save(tmp_path / "nan.safetensors")
    with pytest.raises(BundleError, match="not numbers for 8 of 8 pictures: the training diverged"):
        export(tmp_path / "nan.safetensors", tmp_path / "b", tmp_path / "m", folder=None, pictures=8)
    assert not (tmp_path / "b").exists()


def test_the_head_of_another_contract_is_not_replaced(tiny: Tiny, trained: Trained, tmp_path: Path) -> None:
    repository = shutil.copytree(tiny.repository, tmp_path / "m")
    with pytest.raises(ConfigError, match="another contract"):
        export(trained.checkpoint, tmp_path / "b", repository, model="task_head", folder=None, pictures=8)
    assert not (tmp_path / "b").exists()
    assert list(ModelRepository(repository).verify([tiny.manifest.contract])) == []


def test_numbers_of_channels_that_cannot_be_spare_their_neighbours(trained: Trained) -> None:
    """Within the graph itself: Triton's own ONNX Runtime backend checks nothing of it."""
    channels, features = trained.manifest.contract.payload
    session = onnxruntime.InferenceSession(trained.head, providers=["CPUExecutionProvider"])
    good = np.arange(channels.shape[0], dtype=np.uint8)
    batch = np.stack([good, good[::-1], good + 255 - good[-1], np.zeros_like(good), good])
    values = np.random.default_rng(0).integers(0, 256, (5, *features.shape), np.uint8)
    (answer,) = session.run(None, {"channels": batch, "features": values})
    assert np.isnan(answer).all(axis=1).tolist() == [False, True, True, True, False]
    (alone,) = session.run(None, {"channels": batch[:1], "features": values[:1]})
    np.testing.assert_allclose(answer[0], alone[0], atol=1e-6)


def test_fewer_bits_are_packed_and_what_they_cost_is_written_down(trained: Trained, tmp_path: Path) -> None:
    """The pair sends what that of 8 bits does, rounded to coarser steps of the same range, and tells the price."""
    bits, top = 4, 17
    bundle, repository = tmp_path / "bundle", tmp_path / "models"
    export(trained.checkpoint, bundle, repository, folder=None, pictures=96, bits=bits).check()
    contract, cost = Manifest.load(bundle).contract, Manifest.load(bundle).provenance.bits_cost
    values = int(np.prod(contract.values_shape))
    assert contract.payload_bytes == contract.pruning.kept + values * bits // 8
    assert contract.pruning.scale == pytest.approx(top * trained.manifest.contract.pruning.scale)
    (fine_channels, fine), (channels, packed) = sent_by(trained.bundle, trained.repository), sent_by(bundle, repository)
    assert np.array_equal(channels, fine_channels)
    steps = contract.unpack(packed).astype(int)
    assert steps.max() == 2**bits - 1, "the whole range is used"
    assert np.abs(steps - fine / top).max() <= 0.5 + 0.5 / top, "what two roundings may differ by"
    assert cost is not None
    assert (cost.trained_bits, cost.pictures, cost.labelled) == (8, 96, 32)
    assert cost.accuracy is not None and cost.accuracy_trained is not None
    assert abs(cost.accuracy - cost.accuracy_trained) * cost.labelled <= cost.answers_changed
    price = f"{bits} bits instead of the 8 of its training: {cost.answers_changed} of 96 answers change"
    assert price in (bundle / "MODEL_CARD.md").read_text()


def sent_by(bundle: Path, repository: Path) -> tuple[npt.NDArray[np.uint8], ...]:
    """Return what leaves the device for 16 pictures of noise."""
    sent: list[Payload] = []
    with PrivateClient(bundle, f"memory://{repository}", device="cpu") as client:
        side = client.manifest.contract.preprocessing.size_px
        pictures = np.random.default_rng(0).integers(0, 256, (16, side, side, 3), np.uint8)
        list(client.stream(pictures, observe=lambda _frame, payload, _prediction: sent.append(payload)))
    return tuple(np.concatenate(tensors) for tensors in zip(*sent, strict=True))


@pytest.mark.parametrize("bits", [3, 16, 0])
def test_bits_that_make_no_sense(bits: int, trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"at most the 8 .* got {bits}"):
        export(trained.checkpoint, tmp_path / "b", tmp_path / "m", folder=None, pictures=8, bits=bits)


def test_graphs_that_differ_from_torch_are_not_installed(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity.Parity, "check", lambda self: (_ for _ in ()).throw(BundleError("differs")))
    with pytest.raises(BundleError, match="differs"):
        export(trained.checkpoint, tmp_path / "b", tmp_path / "m", folder=None, pictures=8)
    assert list(tmp_path.iterdir()) == []


def test_the_script_runs_from_any_folder(trained: Trained, tmp_path: Path) -> None:
    script = [sys.executable, str(ROOT / "export" / "to_onnx.py")]
    options = ["--bundle", "b", "--model-repository", "m", "--pictures", "8", "--data-note", "drawn shapes"]
    done = subprocess.run(
        [*script, str(trained.checkpoint), *options], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "drawn shapes" in (tmp_path / "b" / "MODEL_CARD.md").read_text()
    again = subprocess.run(
        [*script, "no.safetensors", *options], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert again.returncode == 2
    assert "--force" in again.stderr
