from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from dcp_sdk.bundles.bundle import DEVICE_GRAPH_FILE
from dcp_sdk.errors import BundleError
from export.parity import GARBAGE, Parity, open_graph, with_garbage
from tests.tiny import PAPER
from tests.trained import Trained, train_and_export


def test_torch_and_onnx_runtime_agree(trained: Trained) -> None:
    assert trained.parity.pictures == 96
    assert trained.parity.mask_bits == 96 * trained.manifest.contract.pruning.channels
    assert trained.parity.flips_torch_alone == trained.parity.flips_onnx_alone == trained.parity.flips_onnx_batch == 0
    assert trained.parity.features_off_by_more == 0
    assert trained.parity.probability_difference < 1e-5


@pytest.mark.parametrize(
    "overrides",
    [
        ["pruning.rule=random"],
        ["pruning.rule=none", "pruning.ratio=0"],
        ["pruning.pruner=paper"],
        ["pruning.pruner=paper", "data.size_px=48"],
        ["network.split=7"],
        ["network.arch=resnet50", "network.split=6"],
    ],
    ids=[
        "random",
        "none",
        "paper's pruner",
        "paper's pruner on a map of more than one value",
        "later split",
        "512 channels: 16-bit numbers",
    ],
)
def test_every_rule_exports(overrides: list[str], tmp_path: Path) -> None:
    pair = train_and_export(tmp_path, *overrides, "optim.epochs=1")
    pair.parity.check()
    contract = pair.manifest.contract
    assert contract.payload[0].dtype == ("uint16" if contract.pruning.channels > 256 else "uint8")


@pytest.mark.parametrize(
    "found",
    [{"flips_onnx_alone": 1}, {"flips_torch_alone": 1}, {"features_off_by_more": 1}, {"probability_difference": 1}],
)
def test_a_difference_is_refused(found: dict[str, int]) -> None:
    with pytest.raises(BundleError, match=next(iter(found))):
        Parity(pictures=1, **found).check()


@pytest.mark.parametrize("which", ["trained", "paper"])
def test_hard_means_absent(which: str, request: pytest.FixtureRequest) -> None:
    """Any value in a pruned channel, even one that is not a number: the payload is byte-identical."""
    bundle = PAPER if which == "paper" else request.getfixturevalue("trained").bundle
    model = onnx.load(bundle / DEVICE_GRAPH_FILE)
    plain, surgery = open_graph(model), open_graph(with_garbage(model))
    rng = np.random.default_rng(0)
    side = plain.get_inputs()[0].shape[1]
    pictures = rng.integers(0, 256, (16, side, side, 3), np.uint8)
    pictures[:2] = [[[[0]]], [[[255]]]]
    channels, features = plain.run(["channels", "features"], {"image": pictures})
    count = {output.name: output.shape for output in plain.get_outputs()}["features"]
    total = _channels(bundle)
    for value in (0.0, -1e30, np.inf, np.nan, rng.normal(0, 1e3, (16, total, *count[2:]))):
        garbage = np.broadcast_to(np.float32(value), (16, total, *count[2:]))
        after = surgery.run(["channels", "features"], {"image": pictures, GARBAGE: garbage})
        assert after[0].tobytes() == channels.tobytes()
        assert after[1].tobytes() == features.tobytes()


def test_the_surgery_reaches_what_is_packed(trained: Trained) -> None:
    """A control: were the mask ignored, garbage would show. Here the mask's own bits are inverted."""
    surgery = with_garbage(onnx.load(trained.bundle / DEVICE_GRAPH_FILE))
    (where,) = [node for node in surgery.graph.node if node.op_type == "Where" and GARBAGE in node.input]
    where.input[1], where.input[2] = where.input[2], where.input[1]
    session = open_graph(surgery)
    total = trained.manifest.contract.pruning.channels
    height, width = trained.manifest.contract.payload[-1].shape[1:]
    garbage = np.full((1, total, height, width), 1e9, np.float32)
    _, features = session.run(["channels", "features"], {"image": np.zeros((1, 32, 32, 3), np.uint8), GARBAGE: garbage})
    assert (features == 255).all()


def _channels(bundle: Path) -> int:
    from dcp_sdk.bundles.manifest import Manifest

    return Manifest.load(bundle).contract.pruning.channels
