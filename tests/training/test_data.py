from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from dcp_sdk.errors import ConfigError, FrameError
from dcp_sdk.preprocess import preprocess
from training import data
from training.config import AttributeConfig, DataConfig

HEADER = "file,age,gender,race,service_test\n"


def config(kind: str, **settings: object) -> DataConfig:
    names = {"task": {"name": "gender"}, "sensitive": {"name": "race"}}
    return DataConfig.model_validate({"kind": kind, "size_px": 32, **names, **settings})


@pytest.fixture
def fairface(tmp_path: Path) -> Path:
    """FairFace's own layout, with noise for faces."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 4)):
        (tmp_path / split).mkdir()
        rows = []
        for number in range(1, count + 1):
            noise = rng.integers(0, 256, (40, 36, 3), np.uint8)
            assert cv2.imwrite(str(tmp_path / split / f"{number}.jpg"), noise)
            gender, race = ("Male", "Female")[number % 2], ("East Asian", "Indian", "Black")[number % 3]
            rows.append(f"{split}/{number}.jpg,20-29,{gender},{race},False\n")
        (tmp_path / f"fairface_label_{split}.csv").write_text(HEADER + "".join(rows))
    return tmp_path


def test_fairface_layout(fairface: Path) -> None:
    splits = data.load(config("fairface"), fairface)
    assert (len(splits.train), len(splits.val)) == (6, 4)
    assert splits.task.labels == ("Female", "Male")
    assert splits.sensitive.labels == ("Black", "East Asian", "Indian")
    assert [splits.task.labels[number] for number in splits.train.task[:2]] == ["Female", "Male"]
    on_device = cv2.imread(str(fairface / "val" / "3.jpg"))[..., ::-1]
    expected = preprocess(np.ascontiguousarray(on_device), config("fairface").preprocessing)
    assert np.array_equal(splits.val.pictures[2], expected), "training must see what the device makes of a frame"


def test_another_attribute_is_read_in_the_order_of_the_pictures(fairface: Path) -> None:
    names, train, val = data.labels(config("fairface"), fairface, AttributeConfig(name="gender"))
    splits = data.load(config("fairface"), fairface)
    assert names == splits.task.labels
    assert np.array_equal(train, splits.train.task)
    assert np.array_equal(val, splits.val.task)
    with pytest.raises(ConfigError, match=r"line 2: expected a number to cut into groups, got .*20-29"):
        data.labels(config("fairface"), fairface, AttributeConfig(name="age", edges=(30,)))


def test_csv_with_a_split_column(fairface: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Blanks around a value are no part of it, and what belongs to neither split is said."""
    train, val = ((fairface / f"fairface_label_{split}.csv").read_text().splitlines()[1:] for split in ("train", "val"))
    lines = [f"{line},train" for line in train[:3]] + [f"{line} ,Train" for line in train[3:]]
    lines += [f"{line.replace(',False', ' ,False')}, test " for line in val]
    (fairface / "all.csv").write_text("file,age,gender,race,service_test,part\n" + "\n".join(lines))
    settings = {"train_csv": "all.csv", "val_csv": "all.csv", "split_column": "part", "val_split": "test"}
    splits = data.load(config("csv", **settings), fairface)
    assert (len(splits.train), len(splits.val)) == (3, 4)
    assert splits.sensitive.labels == ("Black", "East Asian", "Indian")
    said = " ".join(capsys.readouterr().err.split())
    assert "3 rows left out: their part is 'Train'" in said
    assert "validation: 4 pictures; gender: Female 2, Male 2; race: Black 1, East Asian 1, Indian 2" in said


def test_a_file_in_both_splits_is_refused_and_a_picture_in_both_is_told(
    fairface: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(fairface / "train" / "1.jpg", fairface / "val" / "1.jpg")
    data.load(config("fairface"), fairface)
    assert "1 of 4 validation pictures are training pictures, too" in capsys.readouterr().err
    labels = fairface / "fairface_label_val.csv"
    labels.write_text(labels.read_text().replace("val/2.jpg", "train/2.jpg"))
    with pytest.raises(ConfigError, match=r"val\.csv, line 3: .*2\.jpg, which stands in .*train\.csv, line 3"):
        data.load(config("fairface"), fairface)


def test_what_nobody_asked_to_hide_is_looked_for_at_once(fairface: Path) -> None:
    with pytest.raises(ConfigError, match=r"no column \['colour'\]"):
        data.load(config("fairface", others=[{"name": "colour"}]), fairface)


def edit(old: str, new: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "fairface_label_train.csv"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return damage


def one_class(folder: Path) -> None:
    edit("Female", "Male")(folder)


def unreadable(folder: Path) -> None:
    (folder / "train" / "3.jpg").write_bytes(b"\xff\xd8 not a picture")


DAMAGES: dict[str, tuple[Callable[[Path], None], type[Exception], str]] = {
    "a label is missing": (edit("3.jpg,20-29,Female", "3.jpg,20-29,"), ConfigError, r"train\.csv, line 4.*gender"),
    "a column is missing": (edit("race", "origin"), ConfigError, r"train\.csv.*no column \['race'\]"),
    "a file is missing": (lambda f: (f / "train/2.jpg").unlink(), ConfigError, r"train\.csv, line 3.*2\.jpg"),
    "a picture is unreadable": (unreadable, FrameError, r"train\.csv, line 4"),
    "one class only": (one_class, ConfigError, r"only the class .*Male"),
    "a label in val that train lacks": (
        edit("Black", "Indian"),
        ConfigError,
        r"val\.csv, line \d+.*'Black'",
    ),
    "a class that no validation picture shows": (
        lambda f: (f / "fairface_label_val.csv").write_text(
            HEADER + "val/1.jpg,1,Male,Black,x\nval/2.jpg,1,Female,Black,x"
        ),
        ConfigError,
        r"validation pictures of each race, got none of \['East Asian', 'Indian'\] among 2",
    ),
    "a label that is too long": (edit("Black", "B" * 200), ConfigError, "at most 128 characters"),
    "an empty file": (lambda f: (f / "fairface_label_train.csv").write_text(""), ConfigError, "no column"),
    "no labels at all": (lambda f: (f / "fairface_label_train.csv").unlink(), ConfigError, "exactly one"),
    "not text": (lambda f: (f / "fairface_label_train.csv").write_bytes(b"\xff\xfe\x00"), ConfigError, "CSV"),
}


@pytest.mark.parametrize(("damage", "error", "message"), DAMAGES.values(), ids=DAMAGES)
def test_what_is_wrong_is_named_with_file_and_line(
    fairface: Path, damage: Callable[[Path], None], error: type[Exception], message: str
) -> None:
    damage(fairface)
    with pytest.raises(error, match=message):
        data.load(config("fairface"), fairface)


@pytest.mark.parametrize("kind", ["celeba", "cifar10"])
def test_torchvisions_sets_say_where_they_were_looked_for(kind: str, tmp_path: Path) -> None:
    names = {"task": {"name": "living"}, "sensitive": {"name": "class"}} if kind == "cifar10" else {}
    with pytest.raises(ConfigError, match=str(tmp_path)):
        data.load(config(kind, **names), tmp_path)


@pytest.fixture
def any_checksum(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torchvision read small files in its own layouts: it knows the checksums of the real ones."""
    monkeypatch.setattr("torchvision.datasets.celeba.check_integrity", lambda path, md5: Path(path).is_file())
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, md5: Path(path).is_file())


@pytest.mark.usefixtures("any_checksum")
def test_celeba_in_torchvisions_layout(tmp_path: Path) -> None:
    folder = tmp_path / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    rows = [("1.jpg", 0, 1, -1), ("2.jpg", 0, -1, 1), ("3.jpg", 1, 1, 1), ("4.jpg", 2, -1, 1), ("5.jpg", 1, -1, -1)]
    for name, *_ in rows:
        assert cv2.imwrite(str(folder / "img_align_celeba" / name), np.full((40, 36, 3), 9 * int(name[0]), np.uint8))
    tables = {
        "list_eval_partition.txt": "".join(f"{name} {split}\n" for name, split, *_ in rows),
        "list_attr_celeba.txt": "5\nMale Young\n" + "".join(f"{name} {a:2} {b:2}\n" for name, _, a, b in rows),
        "identity_CelebA.txt": "".join(f"{name} 1\n" for name, *_ in rows),
    }
    for other in ("list_bbox_celeba.txt", "list_landmarks_align_celeba.txt"):
        tables[other] = "5\nx y\n" + "".join(f"{name} 0 0\n" for name, *_ in rows)
    for name, text in tables.items():
        (folder / name).write_text(text)
    splits = data.load(config("celeba", task={"name": "Male"}, sensitive={"name": "Young"}), tmp_path)
    assert (splits.task.labels, splits.train.task.tolist(), splits.val.task.tolist()) == (("0", "1"), [1, 0], [1, 0])
    assert (splits.train.sensitive.tolist(), splits.val.sensitive.tolist()) == ([0, 1], [1, 0])
    assert np.abs(splits.val.pictures.mean((1, 2, 3)) - [27, 45]).max() < 1, "pictures in another order than labels"
    with pytest.raises(ConfigError, match=r"attributes are .*'Young'"):
        data.load(config("celeba", task={"name": "Male"}, sensitive={"name": "Race"}), tmp_path)


@pytest.mark.usefixtures("any_checksum")
def test_cifar10_in_torchvisions_layout(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    classes = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": classes}))
    for number, name in enumerate([*(f"data_batch_{batch}" for batch in range(1, 6)), "test_batch"]):
        grey = np.repeat(np.arange(10, dtype=np.uint8)[:, None] * 20 + number, 3072, axis=1)
        (folder / name).write_bytes(pickle.dumps({"data": grey, "labels": list(range(10))}))
    splits = data.load(config("cifar10", task={"name": "living"}, sensitive={"name": "class"}), tmp_path)
    assert (len(splits.train), len(splits.val), splits.sensitive.labels) == (50, 10, tuple(classes))
    living = [splits.task.labels[number] for number in splits.val.task]
    assert living == ["no", "no", *["yes"] * 6, "no", "no"]
    assert splits.val.pictures.mean((1, 2, 3)).tolist() == [20 * number + 5 for number in splits.val.sensitive]
    with pytest.raises(ConfigError, match="CIFAR-10 has the attributes"):
        data.load(config("cifar10", task={"name": "living"}, sensitive={"name": "race"}), tmp_path)


def test_one_file_for_both_splits_needs_a_column_that_tells_them_apart(fairface: Path) -> None:
    with pytest.raises(ConfigError, match="for both splits"):
        data.load(config("csv", train_csv="all.csv", val_csv="all.csv"), fairface)


def test_a_folder_is_demanded(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--data DIR"):
        data.load(config("csv"), None)


def test_generated_pictures_are_the_same_every_time() -> None:
    settings = {"task": {"name": "shape"}, "sensitive": {"name": "tint"}, "generated_pictures": 20}
    first, second = (data.load(config("generated", **settings), None) for _ in range(2))
    assert np.array_equal(first.train.pictures, second.train.pictures)
    assert not np.array_equal(first.train.pictures[:5], first.val.pictures[:5])


def test_pictures_sorted_by_class_are_mixed_and_keep_their_labels() -> None:
    splits = data.load(
        config("generated", task={"name": "shape"}, sensitive={"name": "tint"}, generated_pictures=40), None
    )
    mixed = data.shuffled(splits)
    for before, after in ((splits.train, mixed.train), (splits.val, mixed.val)):
        chosen = data.order(len(before))
        assert sorted(chosen) == list(range(len(before)))
        assert list(chosen) != list(range(len(before)))
        assert np.array_equal(after.pictures, before.pictures[chosen])
        assert np.array_equal(after.task, before.task[chosen])
        assert np.array_equal(after.sensitive, before.sensitive[chosen])
