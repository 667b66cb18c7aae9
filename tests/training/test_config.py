from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from dcp_sdk.errors import ConfigError
from training.config import RECIPES, AttributeConfig, Recipe


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_loads_and_is_named_like_its_file(path: Path) -> None:
    assert Recipe.load(path).name == path.stem


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.epochs", "section.key=value"),
        ("optim.epochs=none", "optim.epochs"),
        ("optim.speed=3", "optim.speed"),
        ("pruning.ratio=0", "ratio"),
        ("pruning.rule=none", "ratio 0"),
        ("network.split=2", "network.split"),
        ("name.first=x", "expected name to be a section"),
        ("optim.epochs=[", "expected a YAML value"),
        ("optim.learning_rate=.inf", "finite number"),
        ("data.mean=[.nan,0,0]", "finite number"),
        ("data.std=[0,1,1]", "data.std.0"),
        ("data.sensitive.name=shape", "task and sensitive are both 'shape'"),
        ("data.task.labels=[disc,disc]", "a label stands twice"),
        ("data.task.labels=[disc]", "data.task.labels"),
        ("seed=99999999999999999999", "seed"),
        ("name=''", "name"),
        ('name="two\\nlines"', "name"),
    ],
)
def test_nonsense_is_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Recipe.load(Path("generated"), [override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: other.yaml", "other.yaml: extends: mine.yaml extends this recipe itself"),
        ("extends: 5", "expected the name of a recipe beside it, got 5"),
        ("name: \xe9".encode("latin-1"), "expected a YAML recipe"),
    ],
    ids=["itself", "no name", "not UTF-8"],
)
def test_a_file_that_is_no_recipe(text: str | bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    (tmp_path / "other.yaml").write_text("extends: mine.yaml")
    with pytest.raises(ConfigError, match=message):
        Recipe.load(tmp_path / "mine.yaml")


def test_a_folder_does_not_stand_for_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "generated").mkdir()
    assert Recipe.load("generated").name == "generated"


def test_a_missing_recipe_names_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="utkface_gender_112"):
        Recipe.load(tmp_path / "mine.yaml")


def test_numbers_are_cut_into_groups() -> None:
    age = AttributeConfig(name="age", edges=(30, 45.5))
    assert [age.group(value) for value in ("18", "29.9", "30", "45", "45.5", "90")] == [
        "under 30",
        "under 30",
        "30 to under 45.5",
        "30 to under 45.5",
        "45.5 and over",
        "45.5 and over",
    ]
    for value in ("nan", "inf", "old"):
        with pytest.raises(ValueError, match=value):
            age.group(value)
    assert AttributeConfig(name="race").group("White") == "White"
    for wrong in ({"edges": (2, 1)}, {"edges": (1, 2), "labels": ("a", "b")}):
        with pytest.raises(ValidationError):
            AttributeConfig.model_validate({"name": "age", **wrong})


@pytest.mark.parametrize(
    "override",
    ["defense={name: deep_obfuscator}", "pruning.adversary_weight=2"],
)
def test_settings_that_would_do_nothing_are_refused(override: str) -> None:
    with pytest.raises(ConfigError, match=r"deep_obfuscator|adversary_weight"):
        Recipe.load(Path("utkface_gender_64_latent"), [override])
