"""Do the files of a model repository agree? This finds accidents; who may write to it can make anything agree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..contract import CONTRACT_FILE, Contract, sha256_file
from ..errors import ConfigError
from . import triton_config
from .on_disk import (
    GRAPH_FILE,
    MAIN_CONFIG,
    MODEL_CODE_FILE,
    accessible,
    is_ended,
    is_model,
    model_folders,
    numbered_folders,
    read_contract,
    served_versions,
    version_folders,
)

__all__ = ["KNOWN_CODE", "Problem", "verify"]

KNOWN_CODE = frozenset({"61edfd00b87b9d967198ae983b99e1d7eb0f44184d7ecac37785a0934bdfd40c"})
"""SHA-256 of each ``model.py`` that this SDK ever exported."""

_FILES = frozenset({CONTRACT_FILE, GRAPH_FILE, MODEL_CODE_FILE})
_AGAIN = "export the head again, or copy it again"
_RIGHTS = "run this as a user who may read it"
_PUT_BACK = f"put its {CONTRACT_FILE} back: it is `contract` in the manifest.json of its bundle"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in a repository that does not agree with the rest."""

    where: Path
    what: str
    """What was expected and what came."""
    remedy: str


def verify(repository: Path, expected: Sequence[Contract] = ()) -> Iterator[Problem]:
    """Compare files, configurations and hashes with the contracts.

    Args:
        repository: The folder that Triton serves.
        expected: Contracts of bundles that must be served here.

    Yields:
        Each problem; none if all agree.
    """
    try:
        folders = model_folders(repository)
    except ConfigError as error:
        yield Problem(repository, str(error), _RIGHTS)
        return
    for folder in folders:
        try:
            if not is_ended(folder) and (is_model(folder) or version_folders(folder)):
                yield from _model(folder)
        except ConfigError as error:
            yield Problem(folder, str(error), _RIGHTS)
    for contract in expected:
        model = repository / contract.head.model
        try:
            there = {read_contract(folder).digest: int(folder.name) for folder in version_folders(model)}
            served = served_versions(model)
        except ConfigError:  # told above
            continue
        if (number := there.get(contract.digest)) not in served:
            state = "not there" if number is None else "retired"
            what = f"expected contract {contract.digest[:12]}… served, it is {state}"
            remedy = "dcp repository select, or export the bundle's head again"
            yield Problem(model / str(contract.head.version), what, remedy)


def _model(model: Path) -> Iterator[Problem]:
    numbers = [int(folder.name) for folder in version_folders(model)]

    def select(versions: Sequence[int]) -> str:
        return f"dcp repository select {model.parent} {model.name} {' '.join(map(str, versions))}"

    try:
        served = set(served_versions(model))
    except ConfigError as error:
        yield Problem(model / MAIN_CONFIG, str(error), select(numbers))
        return
    contracts: dict[int, Contract] = {}
    for number in sorted({*served, *(int(folder.name) for folder in numbered_folders(model))}):
        folder = model / str(number)
        if number not in numbers:
            if number in served:
                what, remedy = "expected the contract of this version, which is served, got none", _PUT_BACK
            else:
                what = "expected the contract of this version, got none: an export was cut off, or it is lost"
                remedy = f"{_PUT_BACK}; or delete the folder if no device asks for it"
            yield Problem(folder / CONTRACT_FILE, what, remedy)
            continue
        try:
            contract = read_contract(folder)
        except ConfigError as error:
            yield Problem(folder / CONTRACT_FILE, str(error), _PUT_BACK)
            continue
        named = contract.head.model, contract.head.version
        if named == (model.name, number):
            contracts[number] = contract
        else:
            what = f"expected the contract of {model.name} version {number}, got {named[0]} version {named[1]}"
            yield Problem(folder / CONTRACT_FILE, what, _PUT_BACK)
        yield from _version(folder, contract)
    if len({contract.family for contract in contracts.values()}) > 1:
        yield Problem(model, "expected versions of one contract, got several", "export them again")
    elif not served:
        yield Problem(model / MAIN_CONFIG, "expected a version that is served, got none", select(numbers))
    elif served <= set(contracts):  # else nobody knows what the configuration should be
        yield from _configuration(model, [contracts[number] for number in sorted(served)], select(sorted(served)))


def _version(folder: Path, contract: Contract) -> Iterator[Problem]:
    own = f"{_AGAIN}; if it is your own, nobody but you can say what it does"
    expected = {GRAPH_FILE: ({contract.head.sha256}, _AGAIN), MODEL_CODE_FILE: (KNOWN_CODE, own)}
    for name, (known, remedy) in expected.items():
        try:
            found = sha256_file(folder / name)
        except FileNotFoundError:
            found = "no file"
        except OSError as error:
            found = type(error).__name__
        if found not in known:
            wanted = " or ".join(f"{sha256[:12]}…" for sha256 in sorted(known))
            yield Problem(folder / name, f"expected SHA-256 {wanted}, got {found[:16]}", remedy)
    # A server that may write here keeps model.py compiled in __pycache__, whatever its environment says.
    with accessible(folder):
        there = sorted(folder.iterdir())
    for path in there:
        if path.name not in (*_FILES, "__pycache__"):
            yield Problem(path, f"expected {', '.join(sorted(_FILES))} and nothing else", "delete it")


def _configuration(model: Path, served: Sequence[Contract], remedy: str) -> Iterator[Problem]:
    for name, content in triton_config.files(served).items():
        try:
            found = "something else" if (model / name).read_bytes() != content else None
        except OSError as error:
            found = type(error).__name__
        if found is not None:
            yield Problem(model / name, f"expected what its contracts render, got {found}", remedy)
