"""What a caller gets back, and how it is read from the server's answer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .contract import Contract
from .errors import ConfigError, ServerRejected
from .frames import Frame
from .obfuscate import Payload
from .runtime import Provider

__all__ = [
    "DEVICE",
    "Prediction",
    "Timings",
    "channels_sent",
    "decode_answer",
    "make_predictions",
    "mean_probabilities",
]


DEVICE = "device"
"""Stands in place of an address where the head in the bundle answered."""

_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Milliseconds in each stage of one request; in a batch, of the whole batch."""

    capture_ms: float
    """Waiting for the camera, or reading and decoding the file; 0 for an array. In a batch with cropping, which keeps
    only one picture in memory as it is."""
    preprocess_ms: float
    """Crop and resize."""
    obfuscate_ms: float
    """Device graph: client network, pruner, hard mask, packing."""
    guard_ms: float
    """Checking the payload against the contract."""
    network_ms: float
    """Request to answer, the task head's work included."""
    decode_ms: float
    """Checking the answer."""
    queue_ms: float
    """Waiting between the stages of a stream, for the caller to take the result too; next to nothing elsewhere."""
    total_ms: float
    """From the call to the result; in a stream, from when the source was asked for the frame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The task head's answer for one picture, and what it cost."""

    label: str
    """The most probable class."""
    index: int
    """Its number in the contract's ``task.labels``."""
    probabilities: Mapping[str, float]
    """Probability of each label, in the contract's order; they sum to 1."""
    kept_channels: tuple[int, ...]
    """The channels that left the device, ascending; empty if the contract has no tensor for them."""
    bytes_sent: int
    """Bytes of the payload tensors of this picture, without the protocol's framing."""
    frame_age_ms: float
    """Milliseconds from the frame's capture to this result."""
    timings: Timings
    provider: Provider
    """What the device graph ran on."""
    server: str
    """Who answered: the address, or ``device`` for the head in the bundle."""
    failure: str | None = None
    """Name of the class of error that kept servers from answering, where the device answered itself; see
    ``docs/errors.md``. None otherwise."""
    sends: int = 1
    """How often the payload was handed to a connection: more than 1 after a retry or a failover, when a server that
    broke off may have seen it too."""
    sequence: int = 0
    """Position in the stream or in the batch, from 0. In the stream of a live source numbers are missing where an
    answer waited too long and gave way to a newer one."""

    @property
    def probability(self) -> float:
        """Probability of :attr:`label`."""
        return self.probabilities[self.label]

    @property
    def answered_by(self) -> Literal["server", "device"]:
        """``device``: no server answered, and the client was made with ``on_failure="local"``."""
        return "device" if self.server == DEVICE else "server"


def mean_probabilities(predictions: Iterable[Prediction]) -> dict[str, float]:
    """Average answers about one thing, such as the last frames of one face, where noise makes single ones doubtful.

    It costs privacy: a server can average the payloads of these frames, too. A report says what 10 and 100 tell.

    Args:
        predictions: At least one, all of the same bundle.

    Returns:
        Mean probability of each label, in the contract's order.

    Raises:
        ConfigError: There is none, or they answer for different labels.
    """
    answers = [prediction.probabilities for prediction in predictions]
    if not answers or any(answer.keys() != answers[0].keys() for answer in answers):
        raise ConfigError(f"expected predictions of one bundle, at least one, got {len(answers)} of several or none.")
    return {label: sum(answer[label] for answer in answers) / len(answers) for label in answers[0]}


def decode_answer(contract: Contract, answer: object, batch: int) -> npt.NDArray[np.float32]:
    """Check the server's answer.

    Args:
        contract: States the answer's type, shape and range.
        answer: Should be float32 ``(batch, classes)``, each row summing to 1.
        batch: Pictures that were sent.

    Raises:
        ServerRejected: It is something else. The message holds types and shapes, never values.
    """
    expected = "expected the paired task head's probabilities"
    if violation := contract.answer.violation(answer):
        raise ServerRejected(f"{expected}, got {violation}. Look into the server's log.")
    probabilities: npt.NDArray[Any] = np.asarray(answer)
    if len(probabilities) != batch:
        raise ServerRejected(f"{expected} of {batch} picture(s), got {len(probabilities)}. Look into the server's log.")
    if any(abs(math.fsum(row) - 1) > _SUM_TOLERANCE for row in probabilities.tolist()):
        raise ServerRejected(f"{expected}, got rows that do not sum to 1. Look into the server's log.")
    return probabilities


def make_predictions(
    contract: Contract,
    frames: Sequence[Frame],
    payload: Payload,
    probabilities: npt.NDArray[np.float32],
    timings: Timings,
    *,
    provider: Provider,
    server: str,
    failure: str | None = None,
    sends: int = 1,
    sequence: int = 0,
) -> list[Prediction]:
    """Put together what is known about each picture of a batch.

    Args:
        contract: Names the labels.
        frames: The N pictures.
        payload: What was sent, arrays ``(N, *shape)``.
        probabilities: float32 ``(N, classes)``, from :func:`decode_answer`.
        timings: Of the batch.
        provider: What the device graph ran on.
        server: Who answered; :data:`DEVICE` for the head in the bundle.
        failure: Class of the error that kept servers from answering.
        sends: How often the payload was handed to a connection.
        sequence: Number of the first picture in the stream or the batch.
    """
    labels = contract.task.labels
    rows = probabilities.tolist()
    kept = channels_sent(contract, payload)
    bytes_sent = sum(tensor.nbytes for tensor in payload) // len(rows)
    return [
        Prediction(
            label=labels[index],
            index=index,
            probabilities=dict(zip(labels, row, strict=True)),
            kept_channels=channels,
            bytes_sent=bytes_sent,
            frame_age_ms=frame.age_ms,
            timings=timings,
            provider=provider,
            server=server,
            failure=failure,
            sends=sends,
            sequence=number,
        )
        for number, (frame, row, channels) in enumerate(zip(frames, rows, kept, strict=True), start=sequence)
        for index in (row.index(max(row)),)
    ]


def channels_sent(contract: Contract, payload: Payload) -> list[tuple[int, ...]]:
    """Tell which channels left, of each of N pictures: ascending, or none if the contract has no tensor for them."""
    for spec, tensor in zip(contract.payload, payload, strict=True):
        if spec.order == "strictly_ascending":
            return [tuple(row) for row in tensor.reshape(len(tensor), -1).tolist()]
    return [() for _ in payload[0]]
