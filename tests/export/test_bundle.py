"""What an export installs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dcp_sdk.bundles.bundle import (
    DEVICE_GRAPH_FILE,
    HEAD_FILE,
    HTML_REPORT_FILE,
    MANIFEST_FILE,
    MODEL_CARD_FILE,
    PRIVACY_REPORT_FILE,
)
from dcp_sdk.bundles.signature import SIGNATURE_FILE
from dcp_sdk.contract import sha256_file
from dcp_sdk.errors import ConfigError
from dcp_sdk.serving.on_disk import GRAPH_FILE
from export import bundle as files
from tests.tiny import Tiny


def test_the_head_goes_into_the_bundle_where_that_is_wanted(tiny: Tiny, tmp_path: Path) -> None:
    """And leaves it again with an export that does not want it, as all that is about other files does."""
    contract = tiny.manifest.contract
    about_others = (PRIVACY_REPORT_FILE, HTML_REPORT_FILE, SIGNATURE_FILE)
    bundle, repository = tmp_path / "bundle", tmp_path / "triton_models"
    for with_head in (False, True, False):
        built = tmp_path / "built"
        built.mkdir()
        for name in (DEVICE_GRAPH_FILE, MANIFEST_FILE):
            shutil.copy(tiny.bundle / name, built)
        shutil.copy(tiny.head, built / GRAPH_FILE)
        (built / MODEL_CARD_FILE).write_text("a card")
        files.install(built, contract, bundle, repository, with_head=with_head)
        built.rmdir()
        assert not [name for name in about_others if (bundle / name).exists()]
        for name in about_others:
            (bundle / name).write_text("about these files, and not the next")
        assert (bundle / HEAD_FILE).is_file() == with_head
        if with_head:
            assert sha256_file(bundle / HEAD_FILE) == contract.head.sha256
        assert sha256_file(repository / "task_head" / "1" / "model.onnx") == contract.head.sha256


def test_a_head_that_cannot_be_installed_leaves_the_bundle_as_it_is(tiny: Tiny, other: Tiny, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(tiny.bundle, bundle)
    (bundle / PRIVACY_REPORT_FILE).write_text("hours of attacks")
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    built = tmp_path / "built"
    built.mkdir()
    shutil.copy(other.head, built / GRAPH_FILE)
    with pytest.raises(ConfigError):  # another contract's head has that name, and may not be replaced
        files.install(built, other.manifest.contract, bundle, tiny.repository)
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before
