"""Labelled pictures: FairFace's layout, any CSV, CelebA, CIFAR-10, and a generated set.

Pictures pass through ``dcp_sdk.preprocess``, so training sees what the device will make of a frame.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import track
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import datasets
from torchvision.transforms import v2

from dcp_sdk.contract import Attribute, ImagePreprocessing
from dcp_sdk.errors import ConfigError, FrameError
from dcp_sdk.frames import load_image
from dcp_sdk.preprocess import preprocess

from .config import AttributeConfig, DataConfig
from .generated import draw_pictures

__all__ = ["LabelledPictures", "Labels", "Splits", "labels", "load"]

Labels = npt.NDArray[np.int64]


class LabelledPictures(Dataset[tuple[Tensor, int, int]]):
    """Pictures of one split in memory, with both labels.

    Items are ``(picture uint8 (3, S, S) RGB, task label, sensitive label)``.
    """

    def __init__(
        self,
        pictures: npt.NDArray[np.uint8],
        task: Labels,
        sensitive: Labels,
        transform: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.pictures = pictures
        """uint8 ``(N, S, S, 3)``, as the device graph takes them."""
        self.task = task
        self.sensitive = sensitive
        self.transform = transform

    def __len__(self) -> int:
        return len(self.task)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        picture = torch.from_numpy(self.pictures[index]).permute(2, 0, 1)
        if self.transform is not None:
            picture = self.transform(picture)
        return picture, int(self.task[index]), int(self.sensitive[index])


@dataclass(frozen=True)
class Splits:
    """A data set, ready for training."""

    train: LabelledPictures
    val: LabelledPictures
    task: Attribute
    sensitive: Attribute


class _Row(NamedTuple):
    """One labelled picture before it is decoded."""

    origin: str
    """For messages: the CSV line or the index it came from."""
    source: Any
    """Path of an image file, or uint8 ``(H, W, 3)``."""
    task: str
    sensitive: str


def load(config: DataConfig, folder: Path | None) -> Splits:
    """Read both splits of a data set into memory (S x S x 3 bytes a picture).

    Args:
        config: The recipe's data section.
        folder: Root of the data set; None only for ``kind: generated``.

    Raises:
        ConfigError: A file, column or label is missing, or an attribute has fewer than two classes; names file and
        line. FrameError: A picture cannot be read; names file and line.
    """
    if folder is None and config.kind != "generated":
        raise ConfigError(f"data kind {config.kind!r} needs the folder of the data set: --data DIR")
    train_rows, val_rows = _rows(config, folder)
    task, sensitive = (
        _attribute(attribute, [getattr(row, role) for row in train_rows])
        for attribute, role in ((config.task, "task"), (config.sensitive, "sensitive"))
    )
    augment: list[Any] = []
    if config.flip:
        augment.append(v2.RandomHorizontalFlip())
    if config.shift_px:
        augment.append(v2.RandomCrop(config.size_px, padding=config.shift_px, padding_mode="edge"))
    transform = v2.Compose(augment) if augment else None
    return Splits(
        train=_decode(train_rows, config.preprocessing, task, sensitive, "training", transform),
        val=_decode(val_rows, config.preprocessing, task, sensitive, "validation", None),
        task=task,
        sensitive=sensitive,
    )


def labels(
    config: DataConfig, folder: Path | None, attribute: AttributeConfig
) -> tuple[tuple[str, ...], Labels, Labels]:
    """Read the labels of one more attribute, in the order of :func:`load`'s pictures.

    Returns:
        Class names, and the numbers of both splits.

    Raises:
        ConfigError: As :func:`load`.
    """
    train_rows, val_rows = _rows(config.model_copy(update={"sensitive": attribute}), folder)
    found = _attribute(attribute, [row.sensitive for row in train_rows])
    return found.labels, _numbers(train_rows, found, "sensitive"), _numbers(val_rows, found, "sensitive")


def _rows(config: DataConfig, folder: Path | None) -> tuple[list[_Row], list[_Row]]:
    """Both splits, each value as the label that it stands for."""
    train_rows, val_rows = _READERS[config.kind](config, folder or Path())
    return [_labelled(row, config) for row in train_rows], [_labelled(row, config) for row in val_rows]


def _labelled(row: _Row, config: DataConfig) -> _Row:
    try:
        return row._replace(task=config.task.group(row.task), sensitive=config.sensitive.group(row.sensitive))
    except ValueError as error:
        raise ConfigError(f"{row.origin}: expected a number to cut into groups, got {error}") from error


def _attribute(config: AttributeConfig, values: Sequence[str]) -> Attribute:
    found = tuple(sorted(set(values)))
    if len(found) < 2:
        raise ConfigError(
            f"attribute {config.name!r} has only the class {found} in {len(values)} training pictures; "
            "a classifier needs two. Choose another attribute or more data."
        )
    return Attribute(name=config.name, labels=config.labels or found)


def _numbers(rows: Sequence[_Row], attribute: Attribute, role: str) -> Labels:
    number = {label: i for i, label in enumerate(attribute.labels)}
    for row in rows:
        if getattr(row, role) not in number:
            raise ConfigError(
                f"{row.origin}: {attribute.name} is {getattr(row, role)!r}, expected one of {attribute.labels}"
            )
    return np.array([number[getattr(row, role)] for row in rows], np.int64)


def _decode(
    rows: Sequence[_Row],
    spec: ImagePreprocessing,
    task: Attribute,
    sensitive: Attribute,
    split: str,
    transform: Callable[[Tensor], Tensor] | None,
) -> LabelledPictures:
    if not rows:
        raise ConfigError(f"the {split} split is empty")
    labels = _numbers(rows, task, "task"), _numbers(rows, sensitive, "sensitive")
    pictures = np.empty((len(rows), spec.size_px, spec.size_px, 3), np.uint8)

    def decode(index: int) -> None:
        row = rows[index]
        try:
            frame = load_image(row.source) if isinstance(row.source, Path) else np.asarray(row.source)
            pictures[index] = preprocess(frame, spec)
        except FrameError as error:
            raise FrameError(f"{row.origin}: {error}") from error

    with ThreadPoolExecutor() as pool:  # OpenCV releases the GIL
        work = pool.map(decode, range(len(rows)))
        for _ in track(work, f"Reading {split} pictures", total=len(rows), transient=True):
            pass
    return LabelledPictures(pictures, *labels, transform)


# ---------------------------------------------------------------------------------------------------- kinds of data set


def _csv_rows(path: Path, config: DataConfig, folder: Path, split: str | None) -> list[_Row]:
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
            for record in reader:
                origin = f"{path}, line {reader.line_num}"
                empty = [column for column in wanted if not (record[column] or "").strip()]
                if empty:
                    raise ConfigError(f"{origin}: no value in column {empty}")
                if split is not None and config.split_column is not None and record[config.split_column] != split:
                    continue
                picture = folder / record[config.file_column]
                if not picture.is_file():
                    raise ConfigError(f"{origin}: no picture at {picture}")
                rows.append(_Row(origin, picture, record[config.task.name], record[config.sensitive.name]))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"expected a CSV with columns {wanted} at {path}: {error}") from error
    return rows


def _csv(config: DataConfig, folder: Path) -> tuple[list[_Row], list[_Row]]:
    return (
        _csv_rows(folder / config.train_csv, config, folder, config.train_split),
        _csv_rows(folder / config.val_csv, config, folder, config.val_split),
    )


def _fairface(config: DataConfig, folder: Path) -> tuple[list[_Row], list[_Row]]:
    splits = []
    for split in ("train", "val"):
        found = sorted(folder.glob(f"*_label_{split}.csv"))
        if len(found) != 1:
            raise ConfigError(f"expected exactly one *_label_{split}.csv in {folder}, found {len(found)}")
        splits.append(_csv_rows(found[0], config, folder, None))
    return splits[0], splits[1]


def _celeba(config: DataConfig, folder: Path) -> tuple[list[_Row], list[_Row]]:
    def rows(split: str) -> list[_Row]:
        data = datasets.CelebA(str(folder), split=split, target_type="attr")
        try:
            task, sensitive = (data.attr_names.index(a.name) for a in (config.task, config.sensitive))
        except ValueError as error:
            raise ConfigError(f"CelebA: {error}; attributes are {data.attr_names}") from error
        images = Path(data.root) / data.base_folder / "img_align_celeba"
        return [
            _Row(f"CelebA {split} {name}", images / name, str(int(a[task])), str(int(a[sensitive])))
            for name, a in zip(data.filename, data.attr, strict=True)
        ]

    return _available("CelebA", folder, lambda: (rows("train"), rows("valid")))


_LIVING = {"bird", "cat", "deer", "dog", "frog", "horse"}


def _cifar10(config: DataConfig, folder: Path) -> tuple[list[_Row], list[_Row]]:
    known: dict[str, Callable[[str], str]] = {"class": str, "living": lambda name: "yes" if name in _LIVING else "no"}
    for attribute in (config.task, config.sensitive):
        if attribute.name not in known:
            raise ConfigError(f"CIFAR-10 has the attributes {sorted(known)}, not {attribute.name!r}")

    def rows(train: bool) -> list[_Row]:
        data: Any = datasets.CIFAR10(str(folder), train=train)  # type: ignore[no-untyped-call, unused-ignore]
        task, sensitive = known[config.task.name], known[config.sensitive.name]
        names: list[str] = [data.classes[target] for target in data.targets]
        split = "train" if train else "test"
        return [
            _Row(f"CIFAR-10 {split} {i}", data.data[i], task(name), sensitive(name)) for i, name in enumerate(names)
        ]

    return _available("CIFAR-10", folder, lambda: (rows(True), rows(False)))


def _available(
    name: str, folder: Path, read: Callable[[], tuple[list[_Row], list[_Row]]]
) -> tuple[list[_Row], list[_Row]]:
    try:
        return read()
    except (RuntimeError, OSError) as error:  # torchvision's own "Dataset not found or corrupted"
        raise ConfigError(f"torchvision finds no {name} in {folder}: {error}") from error


def _generated(config: DataConfig, folder: Path) -> tuple[list[_Row], list[_Row]]:
    del folder  # drawn, not read

    def rows(split: str, count: int, seed: int) -> list[_Row]:
        pictures, shapes, tints = draw_pictures(count, config.size_px, seed)
        return [
            _Row(f"generated {split} {i}", picture, shape, tint)
            for i, (picture, shape, tint) in enumerate(zip(pictures, shapes, tints, strict=True))
        ]

    return rows("train", config.generated_pictures, 1), rows("val", max(20, config.generated_pictures // 4), 2)


_READERS: dict[str, Callable[[DataConfig, Path], tuple[list[_Row], list[_Row]]]] = {
    "fairface": _fairface,
    "csv": _csv,
    "celeba": _celeba,
    "cifar10": _cifar10,
    "generated": _generated,
}
