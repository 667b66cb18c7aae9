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

from ..bundles.bundle import write_atomically
from ..contract import CONTRACT_FILE, Contract, sha256_file
from ..errors import ConfigError
from . import triton_config
from .on_disk import (
    GRAPH_FILE,
    MAIN_CONFIG,
    MODEL_CODE_FILE,
    accessible,
    is_model,
    model_folders,
    numbered_folders,
    read_contract,
    served_versions,
    version_folders,
)
from .verification import Problem, verify

__all__ = ["HeadVersion", "ModelRepository", "model_name"]

_LONGEST_STEM = 48


@dataclass(frozen=True, slots=True)
class HeadVersion:
    """One version of one head."""

    folder: Path
    contract: Contract
    served: bool
    """Whether the configuration tells Triton to load it; a version that is not served is retired."""


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
        """Names of all models, sorted.

        Raises:
            ConfigError: A folder cannot be read.
        """
        return tuple(folder.name for folder in model_folders(self.path) if is_model(folder))

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
        folders = version_folders(self.path / model)
        served = served_versions(self.path / model) if folders else ()
        return tuple(HeadVersion(folder, read_contract(folder), int(folder.name) in served) for folder in folders)

    def require_versions(self, model: str) -> tuple[HeadVersion, ...]:
        """Return :meth:`versions`.

        Raises:
            ConfigError: There are none.
        """
        if not (versions := self.versions(model)):
            raise ConfigError(f"expected one of the models {', '.join(self.models)}, got {model!r}.")
        return versions

    def place(self, contract: Contract, *, replace: bool = False) -> Contract:
        """Return the contract with the version that its head is to have in its model.

        A head that is there already keeps its number, any other gets the next one.

        Args:
            contract: Its head names the model.
            replace: Take the model from another contract. The number is a new one: who asks for an old one gets none.

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
        number = next(same, None) or self._unfinished(contract) or max(self._numbers(model), default=0) + 1
        return contract.with_head(model, number)

    def _numbers(self, model: str) -> set[int]:
        """Numbers that devices may ask for: of all that lies there, and of what Triton is told to load."""
        folders = {int(folder.name) for folder in numbered_folders(self.path / model)}
        try:
            return folders | set(served_versions(self.path / model))
        except ConfigError:  # it is written anew
            return folders

    def _unfinished(self, contract: Contract) -> int | None:
        """Return under which number this very head lies without a contract: an export was cut off, or it is lost."""
        for folder in numbered_folders(self.path / contract.head.model):
            graph, lost = folder / GRAPH_FILE, not (folder / CONTRACT_FILE).exists()
            if lost and graph.exists() and sha256_file(graph) == contract.head.sha256:
                return int(folder.name)
        return None

    def add(self, contract: Contract, graph: Path, code: Path, *, replace: bool = False) -> HeadVersion:
        """Install a head and serve it beside the versions that are served now.

        A running Triton sees it when it is told to load the model.

        Args:
            contract: From :meth:`place`.
            graph: The head's ``model.onnx``; it is copied.
            code: The Python backend's ``model.py``; it is copied.
            replace: Delete the versions of another contract that the model belongs to.

        Raises:
            ConfigError: The model answers for another contract, and ``replace`` is not given; or this version is
                another head's; or there is no room, or no right to write there.
        """
        existing = self.versions(contract.head.model)
        if self.place(contract, replace=replace) != contract:
            raise ConfigError(
                f"expected a contract from place(), got version {contract.head.version}. Call that first."
            )
        if sha256_file(graph) != contract.head.sha256:
            raise ConfigError(f"expected the head of this contract, got another graph at {graph}. Export it again.")
        folder = self.path / contract.head.model / str(contract.head.version)
        with accessible(folder, "written"):
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / GRAPH_FILE, graph.read_bytes())
            write_atomically(folder / MODEL_CODE_FILE, code.read_bytes())
            write_atomically(folder / CONTRACT_FILE, (contract.model_dump_json(indent=2) + "\n").encode())
            # The configuration comes last: a server that polls never sees a version that is not complete.
            own = [one for one in existing if one.contract.family == contract.family]
            beside = [one.contract for one in own if one.served and one.folder.name != folder.name]
            triton_config.write([*beside, contract], self.path)
            for one in existing:  # after all is written, so that nothing is lost where it cannot be
                if one not in own:
                    shutil.rmtree(one.folder)
        return HeadVersion(folder, contract, served=True)

    def select(self, model: str, versions: Iterable[int]) -> None:
        """Let the configuration name exactly these versions: retire some, or bring one back.

        Raises:
            ConfigError: There is no such version, or none is left.
        """
        wanted = set(versions)
        folders = {
            int(folder.name): folder
            for folder in version_folders(self.path / model)
            if (folder / GRAPH_FILE).exists()  # of a model that was ended there is a contract alone
        }
        if not wanted or not wanted <= set(folders):
            raise ConfigError(
                f"{self.path / model}: expected some of the versions {sorted(folders)}, got {sorted(wanted)}. "
                "To end a whole model, unload it from Triton, then: dcp repository end."
            )
        # Others may be damaged, and so may the configuration: that is when somebody rolls back.
        contracts = [read_contract(folders[version]) for version in sorted(wanted)]
        named = [(one.head.model, one.head.version) for one in contracts]
        if named != [(model, version) for version in sorted(wanted)] or len({one.family for one in contracts}) > 1:
            raise ConfigError(
                f"{self.path / model}: expected contracts of {model} {sorted(wanted)}, for one device graph, "
                f"got {named}. Put each {CONTRACT_FILE} back: it is `contract` in the manifest.json of its bundle."
            )
        with accessible(self.path / model, "written"):
            triton_config.write(contracts, self.path)

    def retired(self) -> tuple[HeadVersion, ...]:
        """Return the versions that gave way to a newer one.

        One that is newer than all that are served was rolled back. It stays, so that its number never comes twice. A
        model that does not agree with itself keeps all of its versions.
        """
        found = []
        for model in self.models:
            try:
                versions = self.versions(model)
            except ConfigError:
                continue
            newest = max((one.contract.head.version for one in versions if one.served), default=0)
            found += [one for one in versions if not one.served and one.contract.head.version < newest]
        return tuple(found)

    def prune(self) -> tuple[HeadVersion, ...]:
        """Delete the folders of :meth:`retired`, and return what was deleted.

        Raises:
            ConfigError: One cannot be deleted.
        """
        retired = self.retired()
        for one in retired:
            with accessible(one.folder, "deleted"):
                shutil.rmtree(one.folder)
        return retired

    def end(self, model: str) -> None:
        """Delete a model, which Triton has unloaded, but for the contract of its newest version.

        It keeps the number: devices may still ask for it, and a head that got it again would answer them.

        Raises:
            ConfigError: There is no such model, its newest contract is damaged or lost, or it cannot be deleted.
        """
        last = self.require_versions(model)[-1]
        newest, number = last.folder, last.contract.head.version
        if number < (lost := max(self._numbers(model))):
            raise ConfigError(
                f"{self.path / model}: expected the contract of version {lost}, whose number must not come twice, got "
                f"none. Put its {CONTRACT_FILE} back: it is `contract` in the manifest.json of its bundle."
            )
        with accessible(self.path / model, "deleted"):
            (self.path / model / MAIN_CONFIG).unlink(missing_ok=True)  # first: from now on it is no model
            for path in [*(self.path / model).iterdir(), *newest.iterdir()]:
                if path not in (newest, newest / CONTRACT_FILE):
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def verify(self, expected: Sequence[Contract] = ()) -> Iterator[Problem]:
        """Compare files, configurations and hashes with the contracts: :func:`.verification.verify`."""
        return verify(self.path, expected)
