"""A trusted signature holds for exactly one set of files, and is verified before anything in them is believed."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcp_sdk import BundleError, ConfigError, PrivateClient, SignatureError
from dcp_sdk.bundles.bundle import MODEL_CARD_FILE, Bundle
from dcp_sdk.bundles.signature import SIGNATURE_FILE, Signature, statement
from dcp_sdk.bundles.signing_keys import generate, key_id, load_private, load_public
from tests.tiny import Tiny, write_tiny


@dataclass(frozen=True)
class Signed:
    """A tiny pair, signed, with a key that signed it and one that did not."""

    pair: Tiny
    private: Path
    public: Path
    stranger: Path

    @property
    def bundle(self) -> Path:
        """Its folder."""
        return self.pair.bundle


def make(folder: Path) -> Signed:
    signed = Signed(write_tiny(folder), folder / "private.pem", folder / "public.pem", folder / "stranger.pem")
    generate(signed.private, signed.public)
    generate(folder / "stranger_private.pem", signed.stranger)
    (signed.bundle / MODEL_CARD_FILE).write_text("# What it is\n")
    sign(signed.bundle, signed.private)
    return signed


def sign(bundle: Path, private: Path) -> None:
    opened = Bundle.open(bundle)
    opened.save_signature(Signature.make(opened.files, load_private(private)))


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    return make(tmp_path_factory.mktemp("signed"))


@pytest.fixture
def own(tmp_path: Path) -> Signed:
    """To be damaged."""
    return make(tmp_path)


def test_a_client_takes_what_a_trusted_key_signed(signed: Signed) -> None:
    server = f"memory://{signed.pair.repository}"
    for keys in ([signed.public], [signed.stranger, str(signed.public)], [signed.public.read_bytes()], None):
        PrivateClient(signed.bundle, server, trusted_keys=keys, device="cpu").close()
    with pytest.raises(SignatureError, match="expected a signature by key"):
        PrivateClient(signed.bundle, server, trusted_keys=[signed.stranger])


def test_an_unsigned_bundle_is_taken_only_without_keys(tiny: Tiny, signed: Signed) -> None:
    assert Bundle.open(tiny.bundle).signature is None
    with pytest.raises(SignatureError, match="Sign it with `dcp sign`"):
        Bundle.open(tiny.bundle, trusted_keys=[signed.public])


@given(data=st.data())
def test_any_changed_byte_of_a_signed_archive_is_refused(signed: Signed, data: st.DataObject) -> None:
    packed = bytearray(Bundle.open(signed.bundle).pack())
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    path = signed.bundle.parent / "changed.dcp"
    path.write_bytes(packed)
    with pytest.raises(BundleError):
        Bundle.open(path, trusted_keys=[signed.public])


@given(data=st.data())
def test_any_changed_byte_of_any_signed_file_is_refused(signed: Signed, data: st.DataObject) -> None:
    files = dict(Bundle.open(signed.bundle).files)
    name = data.draw(st.sampled_from(sorted(files)))
    changed = bytearray(files[name])
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    folder = signed.bundle.parent / "changed"
    shutil.copytree(signed.bundle, folder, dirs_exist_ok=True)
    (folder / name).write_bytes(changed)
    with pytest.raises(SignatureError):
        Bundle.open(folder, trusted_keys=[signed.public])


@pytest.mark.parametrize("name", ["device.onnx", "manifest.json", MODEL_CARD_FILE, SIGNATURE_FILE])
def test_a_removed_file_is_refused(name: str, own: Signed) -> None:
    (own.bundle / name).unlink()
    with pytest.raises(SignatureError):
        Bundle.open(own.bundle, trusted_keys=[own.public])


@pytest.mark.parametrize("name", ["privacy_report.json", "privacy_report.html", "run.sh"])
def test_an_added_file_is_refused(name: str, own: Signed) -> None:
    (own.bundle / name).write_text("{}")
    with pytest.raises(SignatureError):
        Bundle.open(own.bundle, trusted_keys=[own.public])


def test_files_that_swapped_names_are_refused(own: Signed) -> None:
    card, report = own.bundle / MODEL_CARD_FILE, own.bundle / "privacy_report.html"
    card.rename(report)
    with pytest.raises(SignatureError, match="added, removed or changed"):
        Bundle.open(own.bundle, trusted_keys=[own.public])


def test_the_signature_of_another_bundle_does_not_fit(own: Signed, other: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(other.bundle, folder)
    shutil.copy(own.bundle / SIGNATURE_FILE, folder)
    with pytest.raises(SignatureError, match="added, removed or changed"):
        Bundle.open(folder, trusted_keys=[own.public])


def test_who_claims_a_trusted_key_id_must_hold_the_key(own: Signed) -> None:
    files = Bundle.open(own.bundle).files
    forged = Signature.make(files, load_private(own.stranger.with_name("stranger_private.pem")))
    trusted = key_id(load_public(own.public))
    (own.bundle / SIGNATURE_FILE).write_bytes(forged.model_copy(update={"key_id": trusted}).to_bytes())
    with pytest.raises(SignatureError, match="added, removed or changed"):
        Bundle.open(own.bundle, trusted_keys=[own.public])


def test_what_the_key_signed_for_another_purpose_does_not_fit(own: Signed) -> None:
    """The same list of hashes under another first line, or under none, as somebody may have signed it elsewhere."""
    key, files = load_private(own.private), Bundle.open(own.bundle).files
    hashes = statement(files).partition(b"\n")[2]
    for text in (hashes, b"\n" + hashes, b"dcp model list, version 1\n" + hashes):
        elsewhere = Signature(key_id=key_id(key.public_key()), signature=key.sign(text).hex())
        (own.bundle / SIGNATURE_FILE).write_bytes(elsewhere.to_bytes())
        with pytest.raises(SignatureError, match="added, removed or changed"):
            Bundle.open(own.bundle, trusted_keys=[own.public])


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum")
def test_an_auditor_can_write_the_statement_without_this_code(signed: Signed) -> None:
    names = sorted(path.name for path in signed.bundle.iterdir() if path.name != SIGNATURE_FILE)
    listed = subprocess.run(["sha256sum", *names], cwd=signed.bundle, capture_output=True, check=True).stdout
    assert statement(Bundle.open(signed.bundle).files) == b"dcp bundle signature, version 1\n" + listed


@pytest.mark.parametrize("name", ["manifest.json", "device.onnx", "privacy_report.json"])
def test_the_signature_is_looked_at_before_anything_else(name: str, own: Signed) -> None:
    """What is garbage as well is refused for its signature, so nothing had parsed it."""
    (own.bundle / name).write_bytes(b"\xff garbage")
    with pytest.raises(SignatureError):
        PrivateClient(own.bundle, "memory://nowhere", trusted_keys=[own.public])
    (own.bundle / SIGNATURE_FILE).unlink()
    with pytest.raises(SignatureError):
        PrivateClient(own.bundle, "memory://nowhere", trusted_keys=[own.public])


def edited(**changes: object) -> Callable[[bytes], bytes]:
    return lambda data: json.dumps({**json.loads(data), **changes}, indent=2).encode() + b"\n"


MALFORMED: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "not JSON": lambda _: b"{",
    "no keys": lambda _: b"{}\n",
    "not text": lambda _: b"\xff\xfe",
    "scheme of the future": edited(scheme="dilithium-v9"),
    "one key more": edited(note="hello"),
    "short signature": edited(signature="ab"),
    "capitals": lambda data: data.upper(),
    "a space more": lambda data: data + b" ",
    "one key twice": lambda data: data.replace(b"{", b'{"scheme": "x",', 1),
}


@pytest.mark.parametrize("spoil", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_signature_is_refused_even_without_keys(spoil: Callable[[bytes], bytes], own: Signed) -> None:
    path = own.bundle / SIGNATURE_FILE
    assert path.read_bytes() == edited()(path.read_bytes()), "the tests below change only what they say"
    path.write_bytes(spoil(path.read_bytes()))
    for keys in (None, [own.public]):
        with pytest.raises(SignatureError, match=r"signature\.json"):
            Bundle.open(own.bundle, trusted_keys=keys)


@given(st.binary())
def test_random_bytes_are_no_signature(data: bytes) -> None:
    with pytest.raises(SignatureError):
        Signature.parse(data, "x")


def test_signing_again_replaces_the_signature_in_folder_and_archive(own: Signed, tmp_path: Path) -> None:
    archived = tmp_path / "x.dcp"
    archived.write_bytes(Bundle.open(own.bundle).pack())
    stranger = own.stranger.with_name("stranger_private.pem")
    for bundle in (own.bundle, archived):
        sign(bundle, stranger)
        Bundle.open(bundle, trusted_keys=[own.stranger])
        with pytest.raises(SignatureError):
            Bundle.open(bundle, trusted_keys=[own.public])
    assert archived.read_bytes() == Bundle.open(own.bundle).pack(), "Ed25519 draws no random numbers"
    assert not [*tmp_path.rglob(".dcp-*")]


@pytest.mark.parametrize("keys", [[], (), "public.pem", b"PEM"], ids=repr)
def test_keys_that_are_no_list_of_keys(keys: list[str], signed: Signed) -> None:
    with pytest.raises(ConfigError, match=r"trusted_keys=\[KEY\]"):
        Bundle.open(signed.bundle, trusted_keys=keys)


def test_a_wrong_key_is_said_even_if_the_bundle_is_unsigned(tiny: Tiny, signed: Signed) -> None:
    with pytest.raises(ConfigError, match="expected an Ed25519 public key"):
        Bundle.open(tiny.bundle, trusted_keys=[signed.private])
