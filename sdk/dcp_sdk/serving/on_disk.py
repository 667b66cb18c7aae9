"""The files of a model repository: which versions lie where, whose they are, and what to say if one cannot be read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from google.protobuf import text_format
from pydantic import ValidationError

from ..contract import CONTRACT_FILE, Contract
from ..errors import BundleError, ConfigError
from . import triton_config

__all__ = [
    "GRAPH_FILE",
    "MAIN_CONFIG",
    "MODEL_CODE_FILE",
    "accessible",
    "is_ended",
    "is_model",
    "model_folders",
    "numbered_folders",
    "read_contract",
    "served_versions",
    "version_folders",
]

GRAPH_FILE = "model.onnx"
"""Name that Triton's ONNX Runtime backend gives to a version's graph."""
MODEL_CODE_FILE = "model.py"
"""Name that Triton's Python backend gives to a version's code."""
_NUMBER = re.compile("[1-9][0-9]*")
MAIN_CONFIG = triton_config.CONFIG_FILES["onnxruntime"]
"""The configuration that makes a folder a model."""


@contextmanager
def accessible(path: Path, what: str = "read") -> Iterator[None]:
    """Raise ConfigError where ``path`` cannot be read, written or deleted: what is wrong, and what to do."""
    try:
        yield
    except (OSError, BundleError) as error:
        reason = type(error.__cause__ or error).__name__
        raise ConfigError(
            f"expected that {path} can be {what}, got {reason}. Run this as a user who has the right to, where there "
            "is room on the disk."
        ) from error


def model_folders(repository: Path) -> list[Path]:
    """Return all folders of a repository, sorted; none where it does not exist.

    Raises:
        ConfigError: It cannot be read.
    """
    with accessible(repository):
        return sorted(path for path in repository.iterdir() if path.is_dir()) if repository.exists() else []


def is_model(folder: Path) -> bool:
    """Whether Triton would take it for a model. Raises ConfigError if it cannot be read."""
    with accessible(folder):
        return any(path.name == MAIN_CONFIG for path in folder.iterdir())


def version_folders(model: Path) -> list[Path]:
    """Return the folders of versions that have a contract, the oldest first. Raises ConfigError if one cannot be read.

    The contract is written after graph and code: a version without one was cut off, and the next export replaces it.
    """
    with accessible(model):
        return [path for path in numbered_folders(model) if (path / CONTRACT_FILE).exists()]


def numbered_folders(model: Path) -> list[Path]:
    """Return all folders that Triton may take for versions, by number. Raises ConfigError if one cannot be read."""
    with accessible(model):
        folders = [path for path in model.iterdir() if _NUMBER.fullmatch(path.name)] if model.exists() else []
        return sorted(folders, key=lambda path: int(path.name))


def is_ended(model: Path) -> bool:
    """Whether a model is gone but for the contracts that keep its numbers. Raises ConfigError if it cannot be read."""
    with accessible(model):
        kept = [path for path in model.rglob("*") if not path.is_dir()]
        return bool(kept) and all(path.name == CONTRACT_FILE for path in kept)


def read_contract(folder: Path) -> Contract:
    """Read the contract of a version. Raises ConfigError if it is missing or damaged."""
    path = folder / CONTRACT_FILE
    try:
        return Contract.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ConfigError(
            f"expected the contract of this head at {path}, got {type(error).__name__}. Export the head again."
        ) from error


def served_versions(model: Path) -> tuple[int, ...]:
    """Return the versions that the configuration tells Triton to load; none where there is no configuration.

    Raises:
        ConfigError: It cannot be read.
    """
    path = model / MAIN_CONFIG
    try:
        return triton_config.served_versions(path.read_text(encoding="utf-8"))
    except FileNotFoundError:  # written last: an export was cut off, and nothing is served yet
        return ()
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise ConfigError(
            f"expected a Triton model configuration at {path}, got {type(error).__name__}. "
            "dcp repository select writes it anew."
        ) from error
