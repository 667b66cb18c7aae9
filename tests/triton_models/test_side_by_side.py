"""Several tasks, ratios and bundles in one repository, on one real server."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from dcp_sdk import PrivateClient
from dcp_sdk.bundles.manifest import Manifest
from dcp_sdk.serving import TritonServer
from dcp_sdk.serving.repository import ModelRepository
from export.to_onnx import export
from tests.tiny import ROOT
from tests.trained import Trained, train_and_export
from training.generated import draw_pictures

pytestmark = pytest.mark.triton


def test_two_tasks_on_one_server_each_get_their_own_head(trained: Trained, tmp_path: Path) -> None:
    """One device asks for the shape and hides the tint, the other the other way round, at another ratio."""
    repository, turned = tmp_path / "triton_models", tmp_path / "turned"
    shutil.copytree(trained.repository, repository)
    swapped = ("data.task.name=tint", "data.sensitive.name=shape", "pruning.ratio=0.5")
    other = train_and_export(tmp_path / "other", *swapped)
    export(other.checkpoint, turned, repository, folder=None, pictures=16)

    bundles = {"shape": trained.bundle, "tint": turned}
    contracts = {task: Manifest.load(bundle).contract for task, bundle in bundles.items()}
    models = {contract.head.model for contract in contracts.values()}
    assert len(models) == 2
    assert list(ModelRepository(repository).verify(list(contracts.values()))) == []

    pictures, _, _ = draw_pictures(6, contracts["shape"].preprocessing.size_px, seed=5)
    with TritonServer(repository, venv=ROOT / ".venv-triton") as server:
        for task, bundle in bundles.items():
            with (
                PrivateClient(bundle, server.grpc_address, device="cpu") as client,
                PrivateClient(bundle, f"memory://{repository}", device="cpu") as local,
            ):
                served, expected = client.predict_batch(list(pictures)), local.predict_batch(list(pictures))
            assert set(served[0].probabilities) == set(contracts[task].task.labels)
            for one, same in zip(served, expected, strict=True):
                np.testing.assert_allclose(
                    list(one.probabilities.values()), list(same.probabilities.values()), atol=1e-5
                )
