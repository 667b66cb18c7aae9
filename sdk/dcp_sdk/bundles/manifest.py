"""``manifest.json`` of a bundle: its contract, and where it comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, JsonValue, ValidationError

from ..contract import Contract, Frozen, Name, Sha256
from ..errors import BundleError
from .bundle import MANIFEST_FILE, Bundle, BundleLike

__all__ = ["BitsCost", "ExportCost", "Manifest", "Provenance"]

SCHEMA_VERSION = 1
"""Version of ``manifest.json`` that this package reads and writes."""


class ExportCost(Frozen):
    """What it costs to export something else than what was trained, on pictures of the export."""

    pictures: int
    answers_changed: int
    """Of these pictures, those that get another label, with the same random numbers where there are any."""
    labelled: int = 0
    """Of these pictures, the first ones, which the training did not see; both accuracies are theirs."""
    accuracy_trained: float | None = None
    """Share that is answered right as it was trained; None where no labels are known."""
    accuracy: float | None = None
    """The same as it was exported."""


class BitsCost(ExportCost):
    """What it costs that a value has fewer bits than the checkpoint was trained with."""

    trained_bits: int
    """Of a value, in training."""


class Provenance(Frozen):
    """Where a bundle comes from. Not part of the digest: it says how, not what."""

    created: Name
    """UTC time of the export, ISO 8601."""
    recipe: Name
    """Name of the training recipe."""
    commit: Name
    """Git commit of the code that trained it, or ``unknown``."""
    seed: int
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    """The whole recipe, as ``training.train`` read it."""
    data: str = "not stated"
    """What it was trained on, and under which licence."""
    epochs: Annotated[int, Field(ge=0)] | None = None
    """Of training; a training that was cut off did fewer than ``settings`` say. None in bundles of before."""
    hours: Annotated[float, Field(ge=0)] = 0.0
    """Wall-clock hours of training."""
    checkpoint_sha256: Sha256
    bits_cost: BitsCost | None = None
    """None: values have the bits that they were trained with."""
    half_client_cost: ExportCost | None = None
    """None: the client network computes in float32."""
    versions: dict[Name, Name]
    """Versions of the packages that wrote the graphs."""

    @property
    def bottleneck(self) -> str | None:
        """The narrow neck of the client network, in words; None if the recipe has none."""
        network = self.settings.get("network")
        neck = network.get("bottleneck") if isinstance(network, dict) else None
        if not isinstance(neck, dict):
            return None
        words = [f"{neck.get('channels')} channels of {neck.get('side')} x {neck.get('side')} values"]
        words += [f"cut at {neck['reach']} standard deviations"] if neck.get("reach") else []
        words += [f"Gaussian noise of {neck['noise']}"] if neck.get("noise") else []
        return ", ".join(words)


class Manifest(Frozen):
    """``manifest.json`` of a bundle."""

    schema_version: Literal[1] = 1
    name: Name
    contract: Contract
    provenance: Provenance

    @classmethod
    def load(cls, bundle: BundleLike) -> Manifest:
        """Read and check the manifest of ``bundle``.

        Args:
            bundle: A bundle that was opened, or the path of its folder or archive, signed or not.

        Raises:
            BundleError: The bundle or the manifest is missing, is not JSON, or does not fit the schema.
        """
        opened = Bundle.of(bundle)
        data, path = opened.read(MANIFEST_FILE), opened.path / MANIFEST_FILE
        version = _schema_version(data, path)
        if version != SCHEMA_VERSION:
            raise BundleError(
                f"{path} has schema version {version!r:.20}, this package reads {SCHEMA_VERSION}. "
                "Install the dcp_sdk release that the bundle was exported with, or export it again."
            )
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "manifest"
            raise BundleError(
                f"{path} does not fit the schema at {where}: {first['msg']} ({error.error_count()} problem(s)). "
                "Do not edit a manifest by hand; export the bundle again."
            ) from error

    def save(self, bundle: Path) -> None:
        """Write ``manifest.json`` into ``bundle``."""
        (bundle / MANIFEST_FILE).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _schema_version(data: bytes, path: Path) -> object:
    """Read the version alone: a manifest of another version need not fit this schema."""
    try:
        raw = json.loads(data.decode())
    except (ValueError, RecursionError) as error:  # ValueError: not UTF-8, not JSON, a number of 5,000 digits
        raise BundleError(f"{path} is not JSON ({type(error).__name__}). Copy the bundle again.") from error
    return raw.get("schema_version") if isinstance(raw, dict) else None
