"""One repository for several contracts and versions: what is in it, what does not agree, what may go."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dcp_sdk import PrivateClient
from dcp_sdk.contract import CONTRACT_FILE, Contract
from dcp_sdk.errors import ConfigError, ContractMismatch
from dcp_sdk.preprocess import Image
from dcp_sdk.serving.repository import ModelRepository, model_name
from tests.sdk.helpers import run
from tests.tiny import MODEL_CODE, Tiny, write_retrained, write_tiny


@pytest.fixture
def two(tmp_path: Path) -> tuple[Tiny, Tiny]:
    """Two bundles for one device graph, whose heads are versions of one model."""
    first = write_tiny(tmp_path)
    return first, write_retrained(first, tmp_path / "retrained")


def test_each_device_finds_the_head_of_its_own_contract(two: tuple[Tiny, Tiny], picture: Image) -> None:
    answers = []
    for pair in two:
        with PrivateClient(pair.bundle, f"memory://{pair.repository}", device="cpu") as client:
            answers.append(client.predict(picture).probabilities)
    assert answers[0] != answers[1]
    repository = ModelRepository(two[0].repository)
    assert [one.contract for one in repository.versions("task_head")] == [pair.manifest.contract for pair in two]
    assert list(repository.verify([pair.manifest.contract for pair in two])) == []
    repository.select("task_head", [2])
    with pytest.raises(ContractMismatch, match=r"version 1 .* got none"):
        PrivateClient(two[0].bundle, f"memory://{two[0].repository}", device="cpu")


def test_a_version_is_retired_brought_back_and_pruned(two: tuple[Tiny, Tiny]) -> None:
    repository = two[0].repository
    one, other = (pair.manifest.contract.digest[:12] for pair in two)
    listed = run("repository", "list", repository, "--bundle", two[1].bundle).output
    assert [line.split()[1:3] for line in listed.splitlines()[1:]] == [["1", "served"], ["2", "served"]]
    assert one in listed and other in listed and "retrained" in listed
    run("repository", "select", repository, "task_head", 2)
    run("repository", "select", repository, "task_head", 1)
    assert run("repository", "prune", repository).output == "", "it was rolled back, and its number never comes twice"
    run("repository", "select", repository, "task_head", 1, 2)
    run("repository", "select", repository, "task_head", 2)
    assert "would delete" in run("repository", "prune", repository).output
    assert two[0].head.is_file()
    refused = run("repository", "verify", repository, "--bundle", two[0].bundle)
    assert refused.exit_code == 1
    assert f"{one}… served, it is retired" in refused.output
    assert "deleted" in run("repository", "prune", repository, "--yes").output
    assert not two[0].head.exists()
    assert "1 version(s), 1 bundle(s)" in run("repository", "verify", repository, "--bundle", two[1].bundle).output
    for versions in ([], [1], [2, 3]):
        with pytest.raises(ConfigError, match="expected some of the versions"):
            ModelRepository(repository).select("task_head", versions)
    assert ModelRepository(repository).place(two[0].manifest.contract).head.version == 3, "no number comes twice"


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "other graph": (lambda model: append(model / "1" / "model.onnx"), "expected SHA-256"),
    "no graph": (lambda model: (model / "1" / "model.onnx").unlink(), "got no file"),
    "no code": (lambda model: (model / "2" / "model.py").unlink(), "model.py: expected SHA-256"),
    "other code": (lambda model: append(model / "2" / "model.py"), "if it is your own, nobody but you"),
    "more code": (lambda model: (model / "1" / "numpy.py").touch(), "and nothing else"),
    "edited configuration": (lambda model: append(model / "configs" / "embedded.pbtxt"), "its contracts render"),
    "no accelerated configuration": (lambda model: (model / "configs" / "tensorrt.pbtxt").unlink(), "render"),
    "another warm-up": (lambda model: append(model / "warmup" / "channels"), "its contracts render"),
    "no configuration to be read": (lambda model: (model / "config.pbtxt").write_text("{"), "ParseError"),
    "no contract": (lambda model: (model / "1" / CONTRACT_FILE).unlink(), "in the manifest.json of its bundle"),
    "contract of another version": (
        lambda model: shutil.copy(model / "2" / CONTRACT_FILE, model / "1"),
        "contract of task_head version 1, got task_head version 2",
    ),
    "served version is gone": (lambda model: shutil.rmtree(model / "1"), "this version, which is served, got none"),
}


@pytest.mark.parametrize(("damage", "says"), DAMAGES.values(), ids=DAMAGES)
def test_what_does_not_agree_is_named(damage: Callable[[Path], object], says: str, two: tuple[Tiny, Tiny]) -> None:
    damage(two[0].repository / "task_head")
    result = run("repository", "verify", two[0].repository)
    assert result.exit_code == 1
    assert says in result.output


@pytest.mark.parametrize(
    "cut_off", [("config.pbtxt",), ("config.pbtxt", f"1/{CONTRACT_FILE}"), (f"2/{CONTRACT_FILE}",)]
)
def test_an_export_that_was_cut_off_is_finished_by_the_next(cut_off: tuple[str, ...], two: tuple[Tiny, Tiny]) -> None:
    repository = ModelRepository(two[0].repository)
    for name in cut_off:
        (repository.path / "task_head" / name).unlink()
    assert list(repository.verify()), "it is told"
    placed = []
    for pair in two:
        placed.append(repository.place(pair.manifest.contract))
        repository.add(placed[-1], pair.head, MODEL_CODE)
    assert list(repository.verify(placed)) == []


def test_a_head_never_takes_the_place_of_another_contracts(two: tuple[Tiny, Tiny], other: Tiny) -> None:
    repository = ModelRepository(two[0].repository)
    stranger = other.manifest.contract
    with pytest.raises(ConfigError, match="head of another contract"):
        repository.place(stranger)
    named = stranger.with_head(model_name("my bundle", stranger), 1)
    assert named.head.model == f"my_bundle_{stranger.family[:8]}"
    repository.add(repository.place(named), other.head, MODEL_CODE)
    assert repository.models == (named.head.model, "task_head")
    assert list(repository.verify([named, *(pair.manifest.contract for pair in two)])) == []
    for unplaced in (stranger, two[1].manifest.contract.with_head("task_head", 1)):
        with pytest.raises(ConfigError):
            repository.add(unplaced, other.head, MODEL_CODE)
    repository.add(repository.place(stranger, replace=True), other.head, MODEL_CODE, replace=True)
    (taken,) = repository.versions("task_head")
    assert taken.contract == stranger.with_head("task_head", 3), "who asks for versions 1 or 2 must not get this one"
    with pytest.raises(ContractMismatch, match=r"version 1 .* got none"):
        PrivateClient(two[0].bundle, f"memory://{repository.path}", device="cpu")
    assert (taken.folder / "model.py").read_bytes() == MODEL_CODE.read_bytes()


def test_a_lost_contract_is_asked_for_and_its_number_is_not_given_away(two: tuple[Tiny, Tiny], tmp_path: Path) -> None:
    repository, (first, second) = ModelRepository(two[0].repository), two
    before = second.head.read_bytes()
    contract = second.head.parent / CONTRACT_FILE
    kept = contract.read_bytes()
    contract.unlink()
    (problem,) = repository.verify()
    assert "put its contract.json back" in problem.remedy, "and nothing that would end the service of version 2"
    third = write_retrained(first, tmp_path / "third", seed=7)
    assert third.manifest.contract.head.version == 3
    assert second.head.read_bytes() == before
    contract.write_bytes(kept)
    repository.select("task_head", [1, 2, 3])
    assert list(repository.verify([pair.manifest.contract for pair in (*two, third)])) == []


@pytest.mark.parametrize("damage", ["", "x {", "{"])
def test_select_works_when_it_is_needed_most(damage: str, two: tuple[Tiny, Tiny]) -> None:
    """A roll-back must not ask whether all else is well."""
    model = two[0].repository / "task_head"
    (model / "config.pbtxt").write_text(damage)
    (model / "2" / CONTRACT_FILE).write_text("{")
    assert run("repository", "select", two[0].repository, "task_head", 1).exit_code == 0
    with PrivateClient(two[0].bundle, f"memory://{two[0].repository}", device="cpu"):
        pass
    listed = run("repository", "list", two[0].repository)
    assert listed.exit_code == 0
    assert "damaged" in listed.output
    assert run("repository", "prune", two[0].repository, "--yes").output == "", "what is damaged is kept"
    shutil.copy(model / "1" / CONTRACT_FILE, model / "2")
    refused = run("repository", "select", two[0].repository, "task_head", 2)
    assert "Put each contract.json back" in " ".join(refused.output.split())


UNREADABLE = ["", "config.pbtxt", "configs", "1", "1/model.onnx", "1/model.py", f"1/{CONTRACT_FILE}", "warmup/channels"]


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_is_a_problem_and_no_traceback(name: str, two: tuple[Tiny, Tiny]) -> None:
    """In a process without the right to read everything, which root has."""
    path = two[0].repository / "task_head" / name
    path.chmod(0)
    drop = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.geteuid() == 0 else []
    for folder in two[0].repository.parents:
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    command = [*drop, sys.executable, "-m", "dcp_sdk.cli", "repository", "verify", str(two[0].repository)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    path.chmod(0o755)
    assert done.returncode == 1, done.stderr
    assert "PermissionError" in done.stdout
    assert "Traceback" not in done.stderr + done.stdout


def test_a_model_whose_newest_contract_is_lost_does_not_end(two: tuple[Tiny, Tiny]) -> None:
    """Its number would come again, and devices that ask for it would get another head's answers."""
    repository = ModelRepository(two[0].repository)
    (repository.path / "task_head" / "2" / CONTRACT_FILE).unlink()
    with pytest.raises(ConfigError, match="expected the contract of version 2, whose number must not come twice"):
        repository.end("task_head")
    assert (repository.path / "task_head" / "2").is_dir()


def test_what_is_left_of_a_model_is_not_served_again(two: tuple[Tiny, Tiny], tmp_path: Path) -> None:
    repository = ModelRepository(two[0].repository)
    (repository.path / "task_head" / "notes").symlink_to(tmp_path)  # is deleted, and what it points at is not
    repository.end("task_head")
    assert tmp_path.is_dir()
    with pytest.raises(ConfigError, match="expected some of the versions"):
        repository.select("task_head", [2])
    assert "deleted" in run("repository", "end", two[0].repository, "task_head", "--yes").output, "may be said again"


def test_a_model_ends_and_its_numbers_do_not_come_again(two: tuple[Tiny, Tiny], tmp_path: Path) -> None:
    repository = ModelRepository(two[0].repository)
    ended = two[1].manifest.contract
    assert "would delete" in run("repository", "end", two[0].repository, "task_head").output
    assert list(repository.verify([ended])) == []
    assert "deleted" in run("repository", "end", two[0].repository, "task_head", "--yes").output
    assert [path.name for path in (repository.path / "task_head").rglob("*.*")] == [CONTRACT_FILE]
    assert repository.models == () and list(repository.verify()) == []
    again = write_retrained(two[0], tmp_path / "again", seed=7)
    assert again.manifest.contract.head.version == 3
    assert repository.models == ("task_head",)
    with pytest.raises(ConfigError, match="expected one of the models"):
        repository.end("nothing")


def test_a_graph_of_another_contract_is_not_installed(two: tuple[Tiny, Tiny]) -> None:
    first, second = two
    before = first.head.read_bytes()
    with pytest.raises(ConfigError, match="another graph"):
        ModelRepository(first.repository).add(first.manifest.contract, second.head, MODEL_CODE)
    assert first.head.read_bytes() == before


def test_a_name_follows_from_all_but_the_head(two: tuple[Tiny, Tiny], other: Tiny) -> None:
    def renamed(contract: Contract) -> str:
        return model_name("head", contract.with_head("another", 7))

    one, retrained, stranger = (pair.manifest.contract for pair in (*two, other))
    assert renamed(one) == model_name("head", one) == model_name("head", retrained) != model_name("head", stranger)
    assert len({contract.digest for contract in (one, retrained, stranger)}) == 3


def test_an_empty_folder_is_told_from_a_repository(tmp_path: Path) -> None:
    for command in ("list", "verify", "prune"):
        assert "expected models" in run("repository", command, tmp_path).output


def test_a_full_disk_changes_nothing_and_the_next_try_works(two: tuple[Tiny, Tiny]) -> None:
    """A file that may not grow: the system refuses to write as it does where the disk is full."""
    repository, graph = two[0].repository, two[1].head
    before = {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()}
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from dcp_sdk.contract import Contract\n"
        "from dcp_sdk.serving.repository import ModelRepository\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "repository, contract = ModelRepository(sys.argv[1]), Contract.model_validate_json(sys.argv[2])\n"
        "try:\n"
        "    if sys.argv[3] == 'select': repository.select('task_head', [2])\n"
        "    else: repository.add(contract, Path(sys.argv[4]), Path(sys.argv[5]))\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    contract = two[1].manifest.contract.model_dump_json()
    for what in ("select", "add"):
        words = [sys.executable, "-c", code, repository, contract, what, graph, MODEL_CODE]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        assert done.stdout.startswith("ConfigError"), done.stdout
        assert {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()} == before
    assert run("repository", "select", repository, "task_head", 2).exit_code == 0
    ModelRepository(repository).add(two[1].manifest.contract, graph, MODEL_CODE)
    assert list(ModelRepository(repository).verify([two[1].manifest.contract])) == []
