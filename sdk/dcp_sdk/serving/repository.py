"""A Triton model repository: heads of several tasks, bundles and ratios side by side, each with its versions.

Beside every version lies ``contract.json``, what the devices that ask for it have in their bundle. All else that
describes a model is rendered from these files, so that a repository can be checked without the bundles.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from google.protobuf import text_format
from pydantic import ValidationError

from ..bundles.bundle import write_atomically
from ..contract import CONTRACT_FILE, Contract, sha256_file
from ..errors import ConfigError
from . import triton_config

__all__ = ["GRAPH_FILE", "MODEL_CODE_FILE", "HeadVersion", "ModelRepository", "Problem", "model_name"]

GRAPH_FILE = "model.onnx"
"""Name that Triton's ONNX Runtime backend gives to a version's graph."""
MODEL_CODE_FILE = "model.py"
"""Name that Triton's Python backend gives to a version's code."""

_MAIN_CONFIG = triton_config.CONFIG_FILES["onnxruntime"]
_LONGEST_STEM = 48


@dataclass(frozen=True, slots=True)
class HeadVersion:
    """One version of one head."""

    folder: Path
    contract: Contract
    served: bool
    """Whether the configuration tells Triton to load it; a version that is not served is retired."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in a repository that does not agree with the rest."""

    where: Path
    what: str
    """What was expected and what came."""
    remedy: str


def model_name(stem: str, contract: Contract) -> str:
    """Name the model of a contract's head: ``STEM_`` and eight digits that differ as soon as the contract does.

    A head for another device graph, payload or answer so never takes the place of one that devices ask for; one that
    was trained anew for the same device graph is a further version of the same model.
    """
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '_', stem)[:_LONGEST_STEM]}_{contract.family[:8]}"


class ModelRepository:
    """The folder that Triton serves.

    Args:
        path: The folder; it need not exist yet.

    Example:
        >>> ModelRepository("triton_models").models  # doctest: +SKIP
        ('task_head', 'task_head_paper')
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)

    @property
    def models(self) -> tuple[str, ...]:
        """Names of all models, sorted."""
        return tuple(sorted(config.parent.name for config in self.path.glob(f"*/{_MAIN_CONFIG}")))

    def require_models(self) -> tuple[str, ...]:
        """Return :attr:`models`.

        Raises:
            ConfigError: There are none.
        """
        if not (models := self.models):
            raise ConfigError(f"expected models (folders with config.pbtxt) in {self.path}, got none.")
        return models

    def versions(self, model: str) -> tuple[HeadVersion, ...]:
        """Return the versions of a model, the oldest first; none if there is no such model.

        Raises:
            ConfigError: A contract or the configuration is missing or damaged.
        """
        folders = _version_folders(self.path / model)
        served = self._served(model) if folders else ()
        return tuple(HeadVersion(folder, _read_contract(folder), int(folder.name) in served) for folder in folders)

    def place(self, contract: Contract, *, replace: bool = False) -> Contract:
        """Return the contract with the version that its head is to have in its model.

        A head that is there already keeps its number, any other gets the next one.

        Args:
            contract: Its head names the model.
            replace: Begin again with version 1 where the model belongs to another contract.

        Raises:
            ConfigError: The model answers for another contract, and ``replace`` is not given.
        """
        model, existing = contract.head.model, self.versions(contract.head.model)
        others = [one for one in existing if one.contract.family != contract.family]
        if others and not replace:
            raise ConfigError(
                f"{self.path / model} is the head of another contract ({others[0].contract.digest[:12]}…). Devices "
                "that ask for it would stop working; give another --head, or none, or --force to replace it."
            )
        existing = () if others else existing
        same = (one.contract.head.version for one in existing if one.contract.head.sha256 == contract.head.sha256)
        following = max((one.contract.head.version for one in existing), default=0) + 1
        return contract.with_head(model, next(same, following))

    def add(self, contract: Contract, graph: Path, code: Path, *, replace: bool = False) -> HeadVersion:
        """Install a head and serve it beside the versions that are served now.

        A running Triton sees it when it is told to load the model.

        Args:
            contract: From :meth:`place`.
            graph: The head's ``model.onnx``; it is copied.
            code: The Python backend's ``model.py``; it is copied.
            replace: Delete the model first where it belongs to another contract.

        Raises:
            ConfigError: The model answers for another contract, and ``replace`` is not given; or this version is
                another head's.
        """
        existing = self.versions(contract.head.model)
        if self.place(contract, replace=replace) != contract:
            raise ConfigError(
                f"expected a contract from place(), got version {contract.head.version}. Call that first."
            )
        # Read before anything is deleted: they may lie in the model that is replaced.
        contents = {GRAPH_FILE: graph.read_bytes(), MODEL_CODE_FILE: code.read_bytes()}
        if any(one.contract.family != contract.family for one in existing):
            shutil.rmtree(self.path / contract.head.model)
            existing = ()
        folder = self.path / contract.head.model / str(contract.head.version)
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            write_atomically(folder / name, content)
        write_atomically(folder / CONTRACT_FILE, (contract.model_dump_json(indent=2) + "\n").encode())
        # The configuration comes last: a server that polls never sees a version that is not complete.
        beside = [one.contract for one in existing if one.served and one.folder.name != folder.name]
        triton_config.write([*beside, contract], self.path)
        return HeadVersion(folder, contract, served=True)

    def select(self, model: str, versions: Iterable[int]) -> None:
        """Let the configuration name exactly these versions: retire some, or bring one back.

        Raises:
            ConfigError: There is no such version, or none is left.
        """
        wanted, known = set(versions), {one.contract.head.version: one.contract for one in self.versions(model)}
        if not wanted or not wanted <= set(known):
            raise ConfigError(
                f"{self.path / model}: expected some of the versions {sorted(known)}, got {sorted(wanted)}. "
                "To end a whole model, unload it from Triton and delete its folder."
            )
        triton_config.write([known[version] for version in sorted(wanted)], self.path)

    def retired(self) -> tuple[HeadVersion, ...]:
        """Return the versions that gave way to a newer one.

        One that is newer than all that are served was rolled back. It stays, so that its number never comes twice.
        """
        found = []
        for model in self.models:
            versions = self.versions(model)
            newest = max((one.contract.head.version for one in versions if one.served), default=0)
            found += [one for one in versions if not one.served and one.contract.head.version < newest]
        return tuple(found)

    def prune(self) -> tuple[HeadVersion, ...]:
        """Delete the folders of :meth:`retired`, and return what was deleted."""
        retired = self.retired()
        for one in retired:
            shutil.rmtree(one.folder)
        return retired

    def verify(self, expected: Sequence[Contract] = ()) -> Iterator[Problem]:
        """Compare files, configurations and hashes with the contracts.

        Args:
            expected: Contracts of bundles that must be served here.

        Yields:
            Each problem; none if all agree.
        """
        versions = (folder.parent.parent.name for folder in self.path.glob(f"*/*/{CONTRACT_FILE}"))
        for model in sorted({*self.models, *versions}):
            yield from self._verify_model(model)
        for contract in expected:
            folder = self.path / contract.head.model / str(contract.head.version)
            try:
                there = {one.contract.digest: one.served for one in self.versions(contract.head.model)}
            except ConfigError:  # told above
                continue
            if not there.get(contract.digest, False):
                state = "retired" if contract.digest in there else "not there"
                what = f"expected contract {contract.digest[:12]}… served, it is {state}"
                yield Problem(folder, what, "dcp repository select, or export the bundle's head again")

    def _verify_model(self, model: str) -> Iterator[Problem]:
        try:
            versions = self.versions(model)
            unknown = set(self._served(model)) - {one.contract.head.version for one in versions}
        except ConfigError as error:
            yield Problem(self.path / model, str(error), "export the head again")
            return
        for number in sorted(unknown):
            yield Problem(self.path / model / str(number), "expected this version, which is served, got none", "export")
        for one in versions:
            yield from _verify_version(model, one)
        families = {one.contract.family for one in versions}
        if len(families) > 1:
            yield Problem(self.path / model, "expected versions of one contract, got several", "export them again")
        elif not (served := [one.contract for one in versions if one.served]):
            numbers = " ".join(one.folder.name for one in versions)
            remedy = f"dcp repository select {self.path} {model} {numbers}"
            yield Problem(self.path / model / _MAIN_CONFIG, "expected a version that is served, got none", remedy)
        else:
            for name, content in triton_config.files(served).items():
                path = self.path / model / name
                if not path.is_file() or path.read_bytes() != content:
                    numbers = " ".join(str(one.head.version) for one in served)
                    remedy = f"dcp repository select {self.path} {model} {numbers}"
                    yield Problem(path, "expected what its contracts render, got something else", remedy)

    def _served(self, model: str) -> tuple[int, ...]:
        path = self.path / model / _MAIN_CONFIG
        if not path.exists():  # written last: an export was cut off, and nothing is served yet
            return ()
        try:
            return triton_config.served_versions(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
            raise ConfigError(
                f"expected a Triton model configuration at {path}, got {type(error).__name__}. Export the head again."
            ) from error


def _version_folders(model: Path) -> list[Path]:
    # The contract is written after graph and code: a version without one was cut off, and the next export replaces it.
    folders = [path for path in model.glob("*") if path.name.isdigit() and (path / CONTRACT_FILE).is_file()]
    return sorted(folders, key=lambda path: int(path.name))


def _read_contract(folder: Path) -> Contract:
    path = folder / CONTRACT_FILE
    try:
        return Contract.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ConfigError(
            f"expected the contract of this head at {path}, got {type(error).__name__}. Export the head again."
        ) from error


def _verify_version(model: str, one: HeadVersion) -> Iterator[Problem]:
    head, again = one.contract.head, "export the head again, or copy it again"
    if (head.model, str(head.version)) != (model, one.folder.name):
        what = f"expected the contract of {model} version {one.folder.name}, got {head.model} version {head.version}"
        yield Problem(one.folder / CONTRACT_FILE, what, again)
    graph = one.folder / GRAPH_FILE
    found = sha256_file(graph) if graph.is_file() else "no file"
    if found != head.sha256:
        yield Problem(graph, f"expected SHA-256 {head.sha256[:12]}…, got {found[:12]}", again)
    if not (one.folder / MODEL_CODE_FILE).is_file():
        yield Problem(one.folder / MODEL_CODE_FILE, "expected the Python backend's code, got no file", again)
