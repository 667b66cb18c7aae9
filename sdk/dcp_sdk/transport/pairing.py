"""Does the model over there belong to the bundle over here? Its own metadata must say so."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Self

from pydantic import BaseModel, ValidationError

from ..contract import Contract, TensorSpec, digest_parameter
from ..errors import ContractMismatch, ServerRejected

__all__ = ["ServedConfig", "ServedModel", "check_digest", "check_pairing"]

_REMEDY = "Serve the model repository that was exported with this bundle, or install that server's bundle."

_Tensors = dict[str, tuple[str, tuple[int, ...]]]
"""Type and shape of each tensor by its name."""
_DIGEST = re.compile(r"[0-9a-f]{64}")

_NO_DESCRIPTION = "expected Triton's description of a model, got something else. Check that a Triton listens there."


class _Parameter(BaseModel):
    string_value: str = ""


class _Tensor(BaseModel):
    name: str
    datatype: str
    shape: tuple[int, ...]


class ServedConfig(BaseModel):
    """What a server says about the configuration of a model. Both Triton protocols give this same JSON."""

    max_batch_size: int = 0
    parameters: dict[str, _Parameter] = {}

    @classmethod
    def read(cls, config: object) -> ServedConfig:
        """Read the answer to Triton's request for a model's configuration.

        Raises:
            ServerRejected: It is no such answer.
        """
        try:
            return ServedConfig.model_validate(config)
        except ValidationError:  # it quotes what the server said, a key of ours perhaps
            raise ServerRejected(_NO_DESCRIPTION) from None


class ServedModel(ServedConfig):
    """What a server says about the model that it serves."""

    inputs: tuple[_Tensor, ...]
    outputs: tuple[_Tensor, ...]

    @classmethod
    def parse(cls, metadata: object, config: object) -> Self:
        """Read the answers to Triton's requests for a model's metadata and configuration.

        Raises:
            ServerRejected: They are not such answers.
        """
        try:
            if not isinstance(metadata, dict) or not isinstance(config, dict):
                raise TypeError("not JSON objects")
            return cls.model_validate({**config, **metadata})
        except (TypeError, ValidationError):
            raise ServerRejected(_NO_DESCRIPTION) from None


def check_pairing(contract: Contract, served: ServedModel, address: str) -> None:
    """Make sure that the served head was exported together with the bundle.

    Raises:
        ContractMismatch: The digest, a tensor's name, type or shape, or the largest batch differs.
    """
    check_digest(contract, served, address)
    head, remedy = _head(contract, address), _REMEDY
    for what, specs, tensors in (
        ("inputs", contract.payload, served.inputs),
        ("outputs", (contract.answer,), served.outputs),
    ):
        expected, actual = _expected(specs), {t.name: (t.datatype, t.shape) for t in tensors}
        if actual != expected:
            difference = _difference(expected, actual)
            raise ContractMismatch(f"{head}: expected the {what} {expected}, got {difference}. {remedy}")
    if served.max_batch_size < contract.head.max_batch_size:
        got = max(served.max_batch_size, 0)  # a number of the server's below zero may be of any length
        raise ContractMismatch(f"{head}: expected batches up to {contract.head.max_batch_size}, got {got}. {remedy}")


def check_digest(contract: Contract, served: ServedConfig, address: str) -> None:
    """Make sure that the served head states this contract's digest: enough where the rest was checked before.

    Raises:
        ContractMismatch: It states another one, or none.
    """
    digest = served.parameters.get(digest_parameter(contract.head.version), _Parameter()).string_value
    if digest != contract.digest:
        got = "something else" if digest else "none"  # it may be anything at all, a key of ours perhaps
        if _DIGEST.fullmatch(digest):
            got = f"{digest[:12]}…"
        raise ContractMismatch(
            f"{_head(contract, address)}: expected contract digest {contract.digest[:12]}…, got {got}. {_REMEDY}"
        )


def _head(contract: Contract, address: str) -> str:
    return f"the head {contract.head.model!r} version {contract.head.version} at {address}"


def _difference(expected: _Tensors, actual: _Tensors) -> str:
    """Say in our own words what differs: a server's names may be of any length, and hold what a terminal obeys."""
    for name, described in expected.items():
        if name not in actual:
            return f"no {name!r}"
        if actual[name] != described:
            return f"{name!r} with another type or shape"
    return "others besides them"


def _expected(specs: Iterable[TensorSpec]) -> _Tensors:
    return {spec.name: (spec.triton_type, (-1, *spec.shape)) for spec in specs}
