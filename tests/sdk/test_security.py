from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from dcp_sdk import AccessDenied, ConfigError, PrivateClient, Security, ServerRejected
from dcp_sdk.preprocess import Image
from dcp_sdk.transport.tls import client_context
from tests.e2e.authority import Authority
from tests.e2e.tap import tap
from tests.sdk.transport import hostile
from tests.tiny import Tiny

SECRET = "nobody-may-see-this"

Serve = Callable[..., AbstractContextManager[str]]


def said(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    "options",
    [
        {"api_key": SECRET},
        {"api_key_header": f"{SECRET} {SECRET}"},
        {"api_key_variable": SECRET, "api_key_file": SECRET},
        {"certificate_file": SECRET},
        {"ca_file": [SECRET]},
    ],
    ids=" ".join,
)
def test_options_that_make_no_sense_are_not_repeated(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="Security") as caught:
        Security(**options)
    assert SECRET not in said(caught.value)


def test_the_key_comes_from_a_variable_or_a_file_and_is_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DCP_TEST_KEY", f" {SECRET} ")
    file = tmp_path / "key"
    file.write_text(f"{SECRET}\n")
    for security in (Security(api_key_variable="DCP_TEST_KEY"), Security(api_key_file=file)):
        key = security.api_key()
        assert key is not None
        assert key.get_secret_value() == SECRET
        assert SECRET not in f"{key!r} {key} {security!r} {security.model_dump()}"
    assert Security().api_key() is None
    file.write_text("\n")
    for security in (Security(api_key_variable="DCP_NO_SUCH_KEY"), Security(api_key_file=file)):
        with pytest.raises(ConfigError, match="expected an access key"):
            security.api_key()


@pytest.mark.parametrize("serve", [hostile.grpc_server, hostile.http_server])
@pytest.mark.parametrize("content", [None, "", "é"], ids=["missing", "empty", "not ASCII"])
def test_a_key_that_cannot_be_read_for_a_moment_is_no_option_that_makes_no_sense(
    content: str | None, serve: Serve, tiny: Tiny, picture: Image, tmp_path: Path
) -> None:
    """Another server and the head on the device answer then; and the client takes the key up again."""
    file = tmp_path / "key"
    file.write_text(SECRET)
    contract = tiny.manifest.contract
    with serve(contract, hostile.true_answer(contract)) as address, tap(int(address.rpartition(":")[2])) as wire:
        server = f"{address.partition(':')[0]}://127.0.0.1:{wire.port}"
        with PrivateClient(tiny.bundle, server, device="cpu", security=Security(api_key_file=file)) as client:
            client.predict(picture)
            file.unlink() if content is None else file.write_text(content)
            wire.cut()
            with pytest.raises(AccessDenied, match="expected a key to show"):
                client.predict(picture)
            file.write_text(SECRET)
            assert client.predict(picture).label


@pytest.mark.parametrize("serve", [hostile.grpc_server, hostile.http_server])
def test_a_key_that_is_put_right_is_taken_up_by_the_next_call(
    serve: Serve, tiny: Tiny, picture: Image, tmp_path: Path
) -> None:
    """The connection lives on: the server merely wants another key than before."""
    file = tmp_path / "key"
    file.write_text("revoked")
    refusal = hostile.Refusal("UNAUTHENTICATED", 401, "revoked", unless_key=SECRET)
    with serve(tiny.manifest.contract, refusal) as address:
        with PrivateClient(tiny.bundle, address, device="cpu", security=Security(api_key_file=file)) as client:
            with pytest.raises(AccessDenied):
                client.predict(picture)
            file.write_text(SECRET)
            assert client.predict(picture).label


@pytest.mark.parametrize("serve", [hostile.grpc_server, hostile.http_server])
def test_what_a_server_says_is_told_without_the_key_whatever_became_of_its_file(
    serve: Serve, tiny: Tiny, picture: Image, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    file.write_text(SECRET)

    class Refusal(hostile.Refusal):
        def is_over(self, key: str | None) -> bool:
            file.unlink()
            return super().is_over(key)

    refusal = Refusal("INVALID_ARGUMENT", 400, f"no: {SECRET}")
    with serve(tiny.manifest.contract, refusal) as address:
        with PrivateClient(tiny.bundle, address, device="cpu", security=Security(api_key_file=file)) as client:
            with pytest.raises(ServerRejected, match="no: …") as caught:
                client.predict(picture)
    assert SECRET not in said(caught.value)


@pytest.mark.parametrize("scheme", ["grpcs", "https"])
@pytest.mark.parametrize(
    "content",
    [None, b"no PEM", b"", b" \n\t\n", bytes(512)],
    ids=["missing", "no PEM", "empty", "blank", "zeros"],
)
def test_files_that_are_no_certificates(content: bytes | None, scheme: str, tiny: Tiny, tmp_path: Path) -> None:
    file = tmp_path / "authority.pem"
    if content is not None:
        file.write_bytes(content)
    for security in (Security(ca_file=file), Security(certificate_file=file, certificate_key_file=file)):
        with pytest.raises(ConfigError, match="Security: expected"):
            PrivateClient(tiny.bundle, f"{scheme}://127.0.0.1:9", security=security)


def test_a_file_of_authorities_takes_the_place_of_the_public_ones(tmp_path: Path) -> None:
    file = Authority(tmp_path, "authority").file
    assert [dict(ca["subject"][0])["commonName"] for ca in client_context(Security(ca_file=file)).get_ca_certs()] == [
        "authority"
    ]
    file.write_bytes(b"")
    for read in (Security(ca_file=file).authorities, lambda: client_context(Security(ca_file=file))):
        with pytest.raises(ConfigError, match="got nothing"):
            read()


def test_certificates_are_for_encrypted_addresses(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="plaintext"):
        PrivateClient(tiny.bundle, ["grpcs://a:1", "grpc://b:1"], security=Security(ca_file=tmp_path / "ca"))


def test_each_server_once(tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match="once"):
        PrivateClient(tiny.bundle, ["grpc://a:1", "a:1"])
    with pytest.raises(ConfigError, match="got none"):
        PrivateClient(tiny.bundle, [])


def test_a_pipe_in_place_of_a_secret_is_refused_at_once(tiny: Tiny, tmp_path: Path) -> None:
    """To read it may never end."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match="expected a file"):
        PrivateClient(tiny.bundle, "http://127.0.0.1:9", security=Security(api_key_file=pipe))
    with pytest.raises(ConfigError, match="expected a key"):
        PrivateClient(tiny.bundle, f"memory://{tiny.repository}", trusted_keys=[pipe])
