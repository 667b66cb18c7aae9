"""A bundle comes in through one door, as a folder or as an archive; what is not one is a typed error."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcp_sdk import BundleError, Contract, Manifest, PrivacyReport, PrivateClient
from dcp_sdk.bundles.bundle import DEVICE_GRAPH_FILE, MANIFEST_FILE, PRIVACY_REPORT_FILE, Bundle
from dcp_sdk.obfuscate import Obfuscator
from dcp_sdk.preprocess import Image
from tests.tiny import SHIPPED as SHIPPED_FOLDER
from tests.tiny import Tiny

SHIPPED = Bundle.open(SHIPPED_FOLDER)


@pytest.fixture
def archived(tiny: Tiny, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.dcp"
    path.write_bytes(Bundle.open(tiny.bundle).pack())
    return path


def test_an_archive_is_as_good_as_its_folder(tiny: Tiny, archived: Path, picture: Image) -> None:
    answers = []
    for bundle in (tiny.bundle, archived, str(archived)):
        with PrivateClient(bundle, f"memory://{tiny.repository}", device="cpu") as client:
            answers.append(client.predict(picture))
    assert answers[0].probabilities == answers[1].probabilities == answers[2].probabilities
    assert answers[0].kept_channels == answers[1].kept_channels
    assert Manifest.load(archived) == tiny.manifest
    assert [*archived.parent.iterdir()] == [archived], "nothing was extracted beside it"


def test_the_same_folder_gives_the_same_archive(tiny: Tiny, archived: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir(mode=0o700)
    for file in sorted(tiny.bundle.iterdir(), reverse=True):
        shutil.copy(file, copy)
        os.utime(copy / file.name, (0, 0))
    assert Bundle.open(copy).pack() == archived.read_bytes()
    assert Bundle.open(archived).pack() == archived.read_bytes()


def test_what_was_read_is_what_is_used(broken: Tiny, other: Tiny) -> None:
    """Who swaps a file between its check and its use is too late."""
    bundle = Bundle.open(broken.bundle)
    shutil.copytree(other.bundle, broken.bundle, dirs_exist_ok=True)
    contract = Manifest.load(bundle).contract
    assert contract == broken.manifest.contract
    blank = np.zeros((1, *contract.input.shape), np.uint8)
    assert Obfuscator(bundle, contract, device="cpu").run(blank)[0].shape == (1, contract.pruning.kept)


def test_strangers_in_a_folder_are_never_read_and_never_packed(broken: Tiny) -> None:
    (broken.bundle / "notes.txt").write_text("mine")
    (broken.bundle / "more").mkdir()
    bundle = Bundle.open(broken.bundle)
    assert "notes.txt" not in bundle.files
    assert Manifest.load(bundle) == broken.manifest
    with pytest.raises(BundleError, match=r"got 'more', 'notes\.txt' too"):
        bundle.pack()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def huge(path: Path) -> None:
    os.truncate(path, 10 << 30)  # sparse: it takes no room


def unreadable(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("spoil", [pipe, endless, huge, unreadable])
@pytest.mark.parametrize("name", [MANIFEST_FILE, DEVICE_GRAPH_FILE, None], ids=str)
def test_what_would_never_end_is_not_read(
    spoil: Callable[[Path], None], name: str | None, broken: Tiny, archived: Path
) -> None:
    spoil(archived if name is None else broken.bundle / name)
    with pytest.raises(BundleError, match="expected"):
        Manifest.load(broken.bundle if name else archived)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="got nothing"):
        Bundle.open(tmp_path / "x.dcp")
    with pytest.raises(BundleError, match=r"manifest\.json .* got none of its files"):
        Manifest.load(tmp_path)


def mutated(data: bytes) -> st.SearchStrategy[bytes]:
    """Random bytes, and ``data`` with a stretch of it replaced by random bytes."""

    def replace(cut: tuple[int, int], new: bytes) -> bytes:
        start, length = cut
        return data[:start] + new + data[start + length :]

    cuts = st.tuples(st.integers(0, len(data)), st.integers(0, 20))
    return st.binary() | st.builds(replace, cuts, st.binary(max_size=20) | st.text(max_size=9).map(str.encode))


@given(mutated(SHIPPED.read(MANIFEST_FILE)))
def test_a_damaged_manifest_is_a_typed_error_or_still_one(data: bytes) -> None:
    try:
        manifest = Manifest.load(Bundle(Path("x"), {MANIFEST_FILE: data}))
    except BundleError:
        return
    assert len(manifest.contract.digest) == 64


@given(mutated(SHIPPED.read(PRIVACY_REPORT_FILE)))
def test_a_damaged_report_is_a_typed_error_or_still_one(data: bytes) -> None:
    contract: Contract = Manifest.load(SHIPPED).contract
    try:
        report = PrivacyReport.load(Bundle(Path("x"), {PRIVACY_REPORT_FILE: data}), contract)
    except BundleError:
        return
    assert report is not None
    assert report.verdict


@given(st.dictionaries(st.sampled_from([MANIFEST_FILE, DEVICE_GRAPH_FILE, PRIVACY_REPORT_FILE]), st.binary()))
def test_no_bundle_of_random_files_gets_as_far_as_a_client(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]
) -> None:
    folder = tmp_path_factory.mktemp("random")
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with pytest.raises(BundleError):
        PrivateClient(folder, "memory://nowhere")
