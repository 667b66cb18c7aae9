"""The contract: what bundle and model repository share, stated once.

Training states it, ``export/`` writes it into ``manifest.json`` and renders Triton's ``config.pbtxt`` from it, and
the SDK checks it against the ONNX session, the file hashes and the server's own metadata before the first frame. No
tensor name, shape or label is typed anywhere else.

Nothing here assumes a picture except :class:`ImagePreprocessing`: the rest describes named tensors.
"""

from __future__ import annotations

import hashlib
import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

CONTRACT_FILE = "contract.json"
"""Beside each version of a head in the model repository: what the devices that ask for it have in their bundle."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Line = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
"""No control characters: a terminal would obey those of a stranger's bundle."""
Name = Annotated[Line, Field(min_length=1, max_length=128)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
DType = Literal["uint8", "uint16", "float32"]
Rule = Literal["dynamic", "random", "none", "static"]
PrunerKind = Literal["light", "paper", "saliency"]
_LIMITS = {"uint8": (0, 255), "uint16": (0, 65535)}
"""What the bytes of a type can say at all."""


class Frozen(BaseModel):
    """Base of what is stated once and never changed; nothing misspelt."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TensorSpec(Frozen):
    """One named tensor of one picture. The batch dimension comes first on every wire and is not written here."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=64)]
    """Name in the ONNX graph and in Triton's configuration."""
    dtype: DType
    """Element type."""
    shape: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=1)]
    """Sizes without the batch."""
    layout: Name
    """Meaning of the axes, e.g. ``CHW``."""
    low: float
    """Smallest value allowed, inclusive."""
    high: float
    """Largest value allowed, inclusive."""
    order: Literal["any", "strictly_ascending"] = "any"
    """``strictly_ascending``: values grow along the last axis, so none appears twice."""

    @model_validator(mode="after")
    def _range(self) -> Self:
        if not self.low <= self.high:
            raise ValueError(f"tensor {self.name!r}: low {self.low} is above high {self.high}")
        if self.dtype != "float32":
            least, most = _LIMITS[self.dtype]
            if self.low < least or self.high > most:
                raise ValueError(f"tensor {self.name!r}: range [{self.low}, {self.high}] does not fit {self.dtype}")
        return self

    @property
    def nbytes(self) -> int:
        """Bytes of one picture's tensor."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def triton_type(self) -> str:
        """Triton's name for the element type."""
        return {"uint8": "UINT8", "uint16": "UINT16", "float32": "FP32"}[self.dtype]

    def smallest(self) -> npt.NDArray[Any]:
        """Return the smallest tensor that is allowed, ``shape``: it says nothing of any picture.

        Limits between two numbers of the type allow none such; the guard refuses it like any other.
        """
        values = np.full(self.shape, self.low, self.dtype)
        if self.order == "strictly_ascending":
            values += np.arange(self.shape[-1], dtype=self.dtype)
        return values

    def violation(self, value: object) -> str | None:
        """Say why ``value`` (expected: ``(N, *shape)`` with N >= 1) breaks this specification; None if it does not.

        The sentence holds types and shapes, never values.
        """
        if not isinstance(value, np.ndarray):
            return f"{self.name}: expected a numpy array, got {type(value).__name__}"
        if value.dtype != self.dtype:
            return f"{self.name}: expected {self.dtype}, got {value.dtype}"
        if value.ndim != len(self.shape) + 1 or value.shape[0] < 1 or value.shape[1:] != self.shape:
            return f"{self.name}: expected shape (N, {', '.join(map(str, self.shape))}), got {value.shape}"
        # Plain Python: these tensors are small, and numpy's machinery, cold after each graph, costs a call much more.
        if (self.low, self.high) != _LIMITS.get(self.dtype) and not all(
            self.low <= number <= self.high
            for number in value.ravel().tolist()  # false for NaN too
        ):
            return f"{self.name}: a value lies outside [{self.low:g}, {self.high:g}] or is not a number"
        if self.order == "strictly_ascending" and not all(
            first < second for row in value.reshape(-1, value.shape[-1]).tolist() for first, second in pairwise(row)
        ):
            return f"{self.name}: values must be strictly ascending and unique"
        return None


class ImagePreprocessing(Frozen):
    """How a frame becomes the device graph's input. Crop and resize happen on uint8, normalising inside the graph."""

    kind: Literal["image"] = "image"
    size_px: Annotated[int, Field(ge=8, le=4096)]
    """Side S of the square that the graph takes."""
    crop: Literal["centre_square"] = "centre_square"
    """The largest centred square is kept."""
    interpolation: Literal["area"] = "area"
    """OpenCV's INTER_AREA when shrinking, INTER_LINEAR when enlarging."""
    colour: Literal["RGB"] = "RGB"
    mean: tuple[float, float, float]
    """Per colour, on pixels scaled to 0..1; subtracted inside the graph."""
    std: tuple[Positive, Positive, Positive]
    """Per colour, on pixels scaled to 0..1; divided by inside the graph."""


class Pruning(Frozen):
    """What is thrown away on the device, and how the rest is packed."""

    rule: Rule
    """``dynamic``: the pruner's scores of this very picture; ``random``: drawn anew; ``none``: all channels stay;
    ``static``: the same ones for every picture."""
    pruner: PrunerKind | None
    """Architecture of the pruner; None where there is none."""
    channels: Annotated[int, Field(ge=1, le=65535)]
    """C, channels of the client network's output."""
    kept: Annotated[int, Field(ge=1)]
    """k = C - round(ratio C), channels that leave the device, the same number for every picture."""
    ratio: Annotated[float, Field(ge=0, lt=1)]
    """r, share of channels that is removed."""
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """One step of the quantiser: activation = scale x uint8. One static number, since a per-picture one would leak."""

    @model_validator(mode="after")
    def _kept_follows_from_ratio(self) -> Self:
        expected = kept_channels(self.channels, self.ratio)
        if self.kept != expected:
            raise ValueError(f"ratio {self.ratio} of {self.channels} channels keeps {expected}, not {self.kept}")
        if self.rule == "none" and self.kept != self.channels:
            raise ValueError("rule 'none' keeps every channel: ratio must be 0")
        if (self.pruner is None) != (self.rule != "dynamic"):
            raise ValueError("rule 'dynamic' has a pruner, the other rules have none")
        return self


class Packing(Frozen):
    """How values of fewer than 8 bits lie in the bytes of the last payload tensor: the first one in the lowest bits."""

    bits: Literal[1, 2, 4]
    """Of one value."""
    shape: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=1)]
    """Of the values of one picture, ``(k, h, w)``, in C order."""

    @property
    def nbytes(self) -> int:
        """Bytes of one picture's values; bits that are left over are 0."""
        return -(-math.prod(self.shape) * self.bits // 8)

    @property
    def last_byte(self) -> int:
        """Largest last byte that holds nothing but values."""
        return (1 << math.prod(self.shape) * self.bits - 8 * (self.nbytes - 1)) - 1

    def unpack(self, packed: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Take values out of their bytes, as the head's graph does: ``(N, nbytes)`` -> ``(N, k, h, w)``."""
        shifts = np.arange(0, 8, self.bits, dtype=np.uint8)
        values = (packed[:, :, None] >> shifts) & np.uint8(2**self.bits - 1)
        return values.reshape(len(packed), -1)[:, : math.prod(self.shape)].reshape(-1, *self.shape)


def _each_once(labels: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(labels)) != len(labels):
        raise ValueError(f"a label stands twice in {labels}")
    return labels


ClassNames = Annotated[tuple[Name, ...], Field(min_length=2), AfterValidator(_each_once)]


class Attribute(Frozen):
    """Something that a picture shows and that a classifier can name."""

    name: Name
    labels: ClassNames
    """Class names; the position is the class number."""


class TaskHead(Frozen):
    """The remote half, as Triton knows it."""

    model: Annotated[str, Field(pattern=r"^[A-Za-z0-9_\-]+$", max_length=64)]
    """Triton model name."""
    version: Annotated[int, Field(ge=1)]
    """Triton model version: the folder under the model's."""
    sha256: Sha256
    """Hash of the head's ``model.onnx``."""
    max_batch_size: Annotated[int, Field(ge=1, le=4096)] = 64


class Contract(Frozen):
    """All that device and server must agree on. Its digest pairs a bundle with a head."""

    task: Attribute
    """What the server answers."""
    sensitive: Attribute
    """What the server should not learn. Measured in the privacy report, not promised by this field."""
    preprocessing: ImagePreprocessing
    pruning: Pruning
    device_sha256: Sha256
    """Hash of ``device.onnx``."""
    input: TensorSpec
    """What goes into the device graph."""
    noise: TensorSpec | None = None
    """Uniform random numbers that the device graph takes beside the input, drawn anew by the device for every picture
    and never sent; None where nothing is random."""
    payload: Annotated[tuple[TensorSpec, ...], Field(min_length=1)]
    """All that leaves the device: outputs of the device graph, inputs of the task head, in this order."""
    packing: Packing | None = None
    """None: each value of the last payload tensor has its own byte."""
    answer: TensorSpec
    """What the task head returns: probabilities."""
    head: TaskHead

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.answer.shape != (len(self.task.labels),):
            raise ValueError(
                f"answer has shape {self.answer.shape}, but task {self.task.name!r} has {len(self.task.labels)} labels"
            )
        if self.packing is not None and self.payload[-1].shape != (self.packing.nbytes,):
            raise ValueError(
                f"{self.payload[-1].name}: {self.packing.bits} bits for each of {self.packing.shape} values are "
                f"{self.packing.nbytes} bytes, not {self.payload[-1].shape}"
            )
        if self.payload[-1].dtype != "uint8":
            raise ValueError(f"{self.payload[-1].name}: values are bytes (uint8), not {self.payload[-1].dtype}")
        names = [t.name for t in (*self.device_inputs, *self.payload, self.answer)]
        if len(set(names)) != len(names):
            raise ValueError(f"a tensor name appears twice: {names}")
        return self

    @property
    def device_inputs(self) -> tuple[TensorSpec, ...]:
        """All that goes into the device graph."""
        return (self.input,) if self.noise is None else (self.input, self.noise)

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of this contract (sorted keys, no spaces, no nulls): 64 hexadecimal digits."""
        return _digest(self.model_dump(mode="json", exclude_none=True))

    def with_head(self, model: str, version: int) -> Self:
        """Return the same contract with the head under another name."""
        head = TaskHead.model_validate(self.head.model_dump() | {"model": model, "version": version})
        return self.model_copy(update={"head": head})

    @property
    def family(self) -> str:
        """Digest of all but which head answers: contracts of one family differ in nothing else.

        Their heads answer for the same device graph through the same tensors, so they are versions of one Triton
        model. A head for anything else is another model.
        """
        head = {"head": {"max_batch_size": self.head.max_batch_size}}
        return _digest(self.model_dump(mode="json", exclude_none=True) | head)

    @property
    def values_shape(self) -> tuple[int, ...]:
        """``(k, h, w)``, the values of the kept channels of one picture."""
        return self.payload[-1].shape if self.packing is None else self.packing.shape

    def unpack(self, features: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return the kept channels' quantised values, ``(N, k, h, w)``, of N payloads. Whole bytes stay as they are."""
        return features if self.packing is None else self.packing.unpack(features)

    @property
    def bits(self) -> int:
        """Of one value on the wire."""
        return 8 if self.packing is None else self.packing.bits

    @property
    def payload_bytes(self) -> int:
        """Bytes that leave the device for one picture, without the protocol's framing. Constant by design."""
        return sum(t.nbytes for t in self.payload)

    @property
    def dense_bytes(self) -> int:
        """Bytes of the unpruned float32 activations of one picture, for comparison."""
        return 4 * self.pruning.channels * math.prod(self.values_shape[1:])


def kept_channels(channels: int, ratio: float) -> int:
    """K = C - round(r C), at least 1 (section 3 of the paper; round half to even)."""
    return max(1, channels - round(ratio * channels))


def digest_parameter(version: int) -> str:
    """Key under ``parameters`` in Triton's model configuration: :attr:`Contract.digest` of a version's bundles."""
    return f"contract_digest.{version}"


def sha256_file(path: Path) -> str:
    """SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(value: object) -> str:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
