"""What is said of a head that belongs to another bundle holds nothing of what its server says."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import json_format

from dcp_sdk import ContractMismatch
from dcp_sdk.contract import Contract, digest_parameter
from dcp_sdk.transport.pairing import ServedModel, check_digest, check_pairing
from tests.sdk.transport import hostile
from tests.tiny import Tiny

ADDRESS = "grpc://triton:8001"
KEY = "nobody-may-see-this\x1b[2J"


def served(contract: Contract) -> dict[str, Any]:
    """Give what an honest server says, to be bent."""
    metadata, config = hostile.describe(contract)
    return {**json_format.MessageToDict(config, preserving_proto_field_name=True), **metadata}


def said(contract: Contract, says: dict[str, Any]) -> str:
    with pytest.raises(ContractMismatch) as caught:
        check_pairing(contract, ServedModel.parse(says, {}), ADDRESS)
    text = str(caught.value)
    assert text.isprintable()
    assert "nobody-may-see-this" not in text
    assert len(text) < 1000
    return text


def test_the_honest_answer_passes(tiny: Tiny) -> None:
    check_pairing(tiny.manifest.contract, ServedModel.parse(served(tiny.manifest.contract), {}), ADDRESS)


@pytest.mark.parametrize(
    ("digest", "got"),
    [
        ("", "none"),
        ("0123456789ab" * 6, "something else"),
        ("0123456789ab" + "c" * 52, "0123456789ab…"),
        ("0123456789ab" + "c" * 52 + "\n", "something else"),
        ("0123456789AB" + "C" * 52, "something else"),
        ("nobody-may-s", "something else"),
        (KEY, "something else"),
        ("\x1b[2J" * 100_000, "something else"),
    ],
    ids=["none", "too long", "another", "a line more", "capitals", "words", "key", "endless"],
)
def test_another_digest(digest: str, got: str, tiny: Tiny) -> None:
    contract = tiny.manifest.contract
    says = served(contract)
    says["parameters"][digest_parameter(contract.head.version)] = {"string_value": digest}
    text = said(contract, says)
    assert f"{contract.digest[:12]}…, got {got}. " in text
    assert "nobody" not in text
    with pytest.raises(ContractMismatch, match=f"got {got}"):
        check_digest(contract, ServedModel.parse(says, {}), ADDRESS)


@pytest.mark.parametrize("what", ["inputs", "outputs"])
def test_other_tensors_than_agreed(what: str, tiny: Tiny) -> None:
    """The tensor that is expected is named, and no other."""
    contract = tiny.manifest.contract
    stranger = {"name": KEY * 1000, "datatype": KEY, "shape": [10**300] * 1000}
    first = (contract.payload[0] if what == "inputs" else contract.answer).name
    says = served(contract)
    honest = says[what]
    for bent, got in (
        ([stranger, *honest[1:]], f"no {first!r}"),
        ([], f"no {first!r}"),
        ([{**stranger, "name": first}, *honest[1:]], f"{first!r} with another type or shape"),
        ([{**honest[0], "datatype": "FP64"}, *honest[1:]], f"{first!r} with another type or shape"),
        ([*honest, stranger], "others besides them"),
    ):
        text = said(contract, says | {what: bent})
        assert f"expected the {what} {{" in text
        assert f", got {got}. Serve" in text


@pytest.mark.parametrize(("size", "got"), [(1, 1), (0, 0), (-(10**3000), 0)], ids=["1", "0", "endless"])
def test_smaller_batches_than_agreed(size: int, got: int, tiny: Tiny) -> None:
    contract = tiny.manifest.contract
    assert f"batches up to {contract.head.max_batch_size}, got {got}. " in said(
        contract, served(contract) | {"max_batch_size": size}
    )
