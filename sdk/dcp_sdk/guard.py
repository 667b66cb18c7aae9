"""The last door: exactly what the contract says, or nothing leaves the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .contract import Contract
from .errors import PrivacyGuardError
from .obfuscate import Payload

__all__ = ["check_payload"]


def check_payload(contract: Contract, payload: Sequence[object]) -> Payload:
    """Return copies of ``payload`` that are certain to hold what the contract allows, and not a byte more.

    The copies are checked, not the originals: what passed cannot change afterwards, and no view can drag
    its base array along.

    Args:
        contract: States name, type, shape, range and order of each tensor.
        payload: One numpy array ``(N, *shape)`` per tensor, in the contract's order; the same N from 1 to
            ``head.max_batch_size``.

    Returns:
        C-contiguous arrays that own their memory.

    Raises:
        PrivacyGuardError: Anything differs. The message holds names, types and shapes, never values.
    """
    if len(payload) != len(contract.payload):
        raise _refuse(f"expected {len(contract.payload)} tensors, got {len(payload)}")
    # A subclass (masked, memory-mapped) may carry more than its plain values, or serialise in its own way.
    checked: list[npt.NDArray[Any]] = []
    for spec, value in zip(contract.payload, payload, strict=True):
        if type(value) is not np.ndarray:
            raise _refuse(f"{spec.name}: expected a plain numpy array, got {type(value).__name__}")
        checked.append(value.copy(order="C"))
        if violation := spec.violation(checked[-1]):
            raise _refuse(violation)
    if contract.packing is not None and max(checked[-1][:, -1].tolist()) > contract.packing.last_byte:
        raise _refuse(f"{contract.payload[-1].name}: bits that belong to no value are not 0")
    batches = {len(copy) for copy in checked}
    if len(batches) != 1:
        raise _refuse(f"the tensors disagree about the batch: {sorted(batches)}")
    if max(batches) > contract.head.max_batch_size:
        raise _refuse(f"expected a batch of at most {contract.head.max_batch_size}, got {max(batches)}")
    return tuple(checked)


def _refuse(reason: str) -> PrivacyGuardError:
    return PrivacyGuardError(f"{reason}. Nothing was sent. The device graph is at fault: export the bundle again.")
