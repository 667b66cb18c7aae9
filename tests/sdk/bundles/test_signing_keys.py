from __future__ import annotations

import base64
import traceback
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization as pem
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from dcp_sdk import ConfigError
from dcp_sdk.bundles.signing_keys import generate, key_id, load_private, load_public


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    generate(private, public)
    return private, public


def test_a_pair_belongs_together_and_its_secret_to_its_owner(pair: tuple[Path, Path]) -> None:
    private, public = pair
    assert private.stat().st_mode & 0o777 == 0o600
    signed = load_private(private).sign(b"hello")
    for source in (public, str(public), public.read_bytes()):
        load_public(source).verify(signed, b"hello")
    assert key_id(load_private(private).public_key()) == key_id(load_public(public))


def test_keys_are_never_overwritten(pair: tuple[Path, Path], tmp_path: Path) -> None:
    before = [path.read_bytes() for path in pair]
    new, dangling = tmp_path / "new.pem", tmp_path / "link.pem"
    dangling.symlink_to(tmp_path / "elsewhere.pem")
    for private, public in ((pair[0], new), (new, pair[1]), (dangling, new), (tmp_path / "no" / "folder.pem", new)):
        with pytest.raises(ConfigError, match="expected a new file"):
            generate(private, public)
        assert not new.exists()
    assert [path.read_bytes() for path in pair] == before
    assert not (tmp_path / "elsewhere.pem").exists()


def test_passphrase(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    locked = tmp_path / "locked.pem"
    made = generate(locked, tmp_path / "locked_public.pem", "opensesame")
    assert b"ENCRYPTED" in locked.read_bytes()
    assert key_id(load_private(locked, "opensesame").public_key()) == made
    for path, passphrase in ((locked, None), (locked, "openbarley"), (pair[0], "openbarley")):
        with pytest.raises(ConfigError, match=r"\$DCP_SIGNING_PASSPHRASE") as caught:
            load_private(path, passphrase)
        assert "openbarley" not in "".join(traceback.format_exception(caught.value))


def elliptic() -> tuple[bytes, bytes]:
    key = generate_private_key(SECP256R1())
    return (
        key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.NoEncryption()),
        key.public_key().public_bytes(pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo),
    )


def test_what_is_no_key_of_ours(pair: tuple[Path, Path], tmp_path: Path) -> None:
    private, public = elliptic()
    for wrong in (b"", b"no key", public, private, pair[1].read_bytes()):
        (tmp_path / "wrong.pem").write_bytes(wrong)
        with pytest.raises(ConfigError, match="expected an Ed25519 private key"):
            load_private(tmp_path / "wrong.pem")
    for wrong in (b"", b"no key", public, private, pair[0].read_bytes()):
        with pytest.raises(ConfigError, match="expected an Ed25519 public key"):
            load_public(wrong)
    for missing in (load_public, load_private):
        with pytest.raises(ConfigError, match="FileNotFoundError"):
            missing(tmp_path / "nowhere.pem")


def test_no_message_holds_a_secret(pair: tuple[Path, Path]) -> None:
    """A private key that was given for a public one, or that is damaged, is not quoted."""
    text = pair[0].read_bytes()
    secret = load_private(pair[0]).private_bytes_raw()
    pair[0].write_bytes(text.replace(b"BEGIN PRIVATE", b"BEGIN PUBLIC"))
    body = text.split(b"\n")[1].decode()
    assert base64.b64decode(body).endswith(secret)
    for call in (lambda: load_public(text), lambda: load_private(pair[0])):
        with pytest.raises(ConfigError) as caught:
            call()
        shown = "".join(traceback.format_exception(caught.value))
        assert body[-16:] not in shown
        assert secret.hex() not in shown
