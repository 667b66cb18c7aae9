from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from dcp_sdk import ConfigError, PrivateClient, Security
from tests.tiny import Tiny

SECRET = "nobody-may-see-this"


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


@pytest.mark.parametrize("scheme", ["grpcs", "https"])
@pytest.mark.parametrize("content", [None, b"no PEM"], ids=["missing", "no PEM"])
def test_files_that_are_no_certificates(content: bytes | None, scheme: str, tiny: Tiny, tmp_path: Path) -> None:
    file = tmp_path / "authority.pem"
    if content is not None:
        file.write_bytes(content)
    for security in (Security(ca_file=file), Security(certificate_file=file, certificate_key_file=file)):
        with pytest.raises(ConfigError, match="Security: expected"):
            PrivateClient(tiny.bundle, f"{scheme}://127.0.0.1:9", security=security)


def test_certificates_are_for_encrypted_addresses(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="plaintext"):
        PrivateClient(tiny.bundle, ["grpcs://a:1", "grpc://b:1"], security=Security(ca_file=tmp_path / "ca"))


def test_each_server_once(tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match="once"):
        PrivateClient(tiny.bundle, ["grpc://a:1", "a:1"])
    with pytest.raises(ConfigError, match="got none"):
        PrivateClient(tiny.bundle, [])
