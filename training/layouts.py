"""How data sets lie in their folders: FairFace's layout, any CSV, CelebA, CIFAR-10, and a generated set.

Each reader says which pictures there are and what they are labelled; :mod:`training.data` decodes them.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from torchvision import datasets

from dcp_sdk.errors import ConfigError

from .config import DataConfig
from .console import console
from .generated import draw_pictures

__all__ = ["READERS", "Row"]


class Row(NamedTuple):
    """One labelled picture before it is decoded."""

    origin: str
    """For messages: the CSV line or the index it came from."""
    source: Any
    """Path of an image file, or uint8 ``(H, W, 3)``."""
    task: str
    sensitive: str


def _csv_rows(
    path: Path, config: DataConfig, folder: Path, split: str | None, passed: dict[str, str] | None = None
) -> list[Row]:
    """Read the rows of one split, or of the whole file; blanks around a value are no part of it.

    ``passed`` takes the rows of other splits: where they stand, and which that is.
    """
    wanted = [config.file_column, config.task.name, config.sensitive.name]
    if split is not None and config.split_column is not None:
        wanted.append(config.split_column)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            absent = [column for column in wanted if column not in (reader.fieldnames or [])]
            if absent:
                raise ConfigError(f"{path}: no column {absent}; it has {reader.fieldnames}")
            rows = []
            for written in reader:
                origin = f"{path}, line {reader.line_num}"
                record = {column: (written[column] or "").strip() for column in wanted}
                empty = [column for column in wanted if not record[column]]
                if empty:
                    raise ConfigError(f"{origin}: no value in column {empty}")
                if split is not None and config.split_column is not None and record[config.split_column] != split:
                    if passed is not None:
                        passed[origin] = record[config.split_column]
                    continue
                picture = folder / record[config.file_column]
                if not picture.is_file():
                    raise ConfigError(f"{origin}: no picture at {picture}")
                rows.append(Row(origin, picture, record[config.task.name], record[config.sensitive.name]))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"expected a CSV with columns {wanted} at {path}: {error}") from error
    return rows


def _csv(config: DataConfig, folder: Path) -> tuple[list[Row], list[Row]]:
    if config.train_csv == config.val_csv and config.split_column is None:
        raise ConfigError(
            f"data: expected two files, or one with a split_column, got {config.train_csv} for both splits: what was "
            "trained would be judged on the very same pictures"
        )
    passed: dict[str, str] = {}
    train, val = (
        _csv_rows(folder / file, config, folder, split, passed)
        for file, split in ((config.train_csv, config.train_split), (config.val_csv, config.val_split))
    )
    neither = Counter(split for split in passed.values() if split not in (config.train_split, config.val_split))
    for split, count in neither.items():
        console.print(f"{count:,} rows left out: their {config.split_column} is {split!r}", style="yellow")
    return train, val


def _fairface(config: DataConfig, folder: Path) -> tuple[list[Row], list[Row]]:
    splits = []
    for split in ("train", "val"):
        found = sorted(folder.glob(f"*_label_{split}.csv"))
        if len(found) != 1:
            raise ConfigError(f"expected exactly one *_label_{split}.csv in {folder}, found {len(found)}")
        splits.append(_csv_rows(found[0], config, folder, None))
    return splits[0], splits[1]


def _celeba(config: DataConfig, folder: Path) -> tuple[list[Row], list[Row]]:
    def rows(split: str) -> list[Row]:
        data = datasets.CelebA(str(folder), split=split, target_type="attr")
        try:
            task, sensitive = (data.attr_names.index(a.name) for a in (config.task, config.sensitive))
        except ValueError as error:
            raise ConfigError(f"CelebA: {error}; attributes are {data.attr_names}") from error
        images = Path(data.root) / data.base_folder / "img_align_celeba"
        return [
            Row(f"CelebA {split} {name}", images / name, str(int(a[task])), str(int(a[sensitive])))
            for name, a in zip(data.filename, data.attr, strict=True)
        ]

    return _available("CelebA", folder, lambda: (rows("train"), rows("valid")))


_LIVING = {"bird", "cat", "deer", "dog", "frog", "horse"}


def _cifar10(config: DataConfig, folder: Path) -> tuple[list[Row], list[Row]]:
    known: dict[str, Callable[[str], str]] = {"class": str, "living": lambda name: "yes" if name in _LIVING else "no"}
    for attribute in (config.task, config.sensitive):
        if attribute.name not in known:
            raise ConfigError(f"CIFAR-10 has the attributes {sorted(known)}, not {attribute.name!r}")

    def rows(train: bool) -> list[Row]:
        data: Any = datasets.CIFAR10(str(folder), train=train)  # type: ignore[no-untyped-call, unused-ignore]
        task, sensitive = known[config.task.name], known[config.sensitive.name]
        names: list[str] = [data.classes[target] for target in data.targets]
        split = "train" if train else "test"
        return [Row(f"CIFAR-10 {split} {i}", data.data[i], task(name), sensitive(name)) for i, name in enumerate(names)]

    return _available("CIFAR-10", folder, lambda: (rows(True), rows(False)))


def _available(name: str, folder: Path, read: Callable[[], tuple[list[Row], list[Row]]]) -> tuple[list[Row], list[Row]]:
    try:
        return read()
    except (RuntimeError, OSError) as error:  # torchvision's own "Dataset not found or corrupted"
        raise ConfigError(f"torchvision finds no {name} in {folder}: {error}") from error


def _generated(config: DataConfig, folder: Path) -> tuple[list[Row], list[Row]]:
    del folder  # drawn, not read

    def rows(split: str, count: int, seed: int) -> list[Row]:
        pictures, shapes, tints = draw_pictures(count, config.size_px, seed)
        return [
            Row(f"generated {split} {i}", picture, shape, tint)
            for i, (picture, shape, tint) in enumerate(zip(pictures, shapes, tints, strict=True))
        ]

    return rows("train", config.generated_pictures, 1), rows("val", max(20, config.generated_pictures // 4), 2)


READERS: dict[str, Callable[[DataConfig, Path], tuple[list[Row], list[Row]]]] = {
    "fairface": _fairface,
    "csv": _csv,
    "celeba": _celeba,
    "cifar10": _cifar10,
    "generated": _generated,
}
"""By ``kind`` in a recipe: given its data section and a folder, the rows for training and those for validation."""
