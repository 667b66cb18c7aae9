"""Labelled pictures, in memory.

They pass through ``dcp_sdk.preprocess``, so training sees what the device will make of a frame.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import ValidationError
from rich.progress import track
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from dcp_sdk.contract import Attribute, ImagePreprocessing
from dcp_sdk.errors import ConfigError, FrameError
from dcp_sdk.frames import load_image
from dcp_sdk.preprocess import preprocess

from .config import AttributeConfig, DataConfig
from .console import console
from .layouts import READERS, Row

__all__ = ["LabelledPictures", "Labels", "Splits", "fingerprint", "labels", "load", "order", "shuffled"]

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

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all pictures and their labels."""
        splits = (self.train, self.val)
        return fingerprint(*(array for split in splits for array in (split.pictures, split.sensitive, split.task)))


def fingerprint(*arrays: npt.NDArray[Any]) -> str:
    """Hash of arrays, their shapes and types."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def load(config: DataConfig, folder: Path | None) -> Splits:
    """Read both splits of a data set into memory (S x S x 3 bytes a picture).

    Args:
        config: The recipe's data section.
        folder: Root of the data set; None only for ``kind: generated``.

    Raises:
        ConfigError: A file, column or label is missing, an attribute (or one of ``others``) has fewer than two classes
            or a class without pictures in one of the splits, or both splits hold the same file; names file and line.
        FrameError: A picture cannot be read; names file and line.
    """
    if folder is None and config.kind != "generated":
        raise ConfigError(f"data kind {config.kind!r} needs the folder of the data set: --data DIR")
    train_rows, val_rows = _rows(config, folder)
    _refuse_shared_files(train_rows, val_rows)
    task, sensitive = (
        _attribute(attribute, role, train_rows, val_rows)
        for attribute, role in ((config.task, "task"), (config.sensitive, "sensitive"))
    )
    for other in config.others:  # an audit reads them, hours later
        labels(config, folder, other)
    augment: list[Any] = []
    if config.flip:
        augment.append(v2.RandomHorizontalFlip())
    if config.shift_px:
        augment.append(v2.RandomCrop(config.size_px, padding=config.shift_px, padding_mode="edge"))
    transform = v2.Compose(augment) if augment else None
    splits = Splits(
        train=_decode(train_rows, config.preprocessing, task, sensitive, "training", transform),
        val=_decode(val_rows, config.preprocessing, task, sensitive, "validation", None),
        task=task,
        sensitive=sensitive,
    )
    _tell_shared_pictures(splits)
    return splits


def shuffled(splits: Splits) -> Splits:
    """Put the pictures of both splits into :func:`order`, for who looks at the first few or watches the clock."""

    def mixed(some: LabelledPictures) -> LabelledPictures:
        chosen = order(len(some))
        return LabelledPictures(some.pictures[chosen], some.task[chosen], some.sensitive[chosen], some.transform)

    return replace(splits, train=mixed(splits.train), val=mixed(splits.val))


def order(count: int) -> Labels:
    """Return one random order of so many pictures, always the same: files often lie sorted by class."""
    return np.random.default_rng(0).permutation(count)


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
    found = _attribute(attribute, "sensitive", train_rows, val_rows)
    return found.labels, _numbers(train_rows, found, "sensitive"), _numbers(val_rows, found, "sensitive")


def _refuse_shared_files(train_rows: Sequence[Row], val_rows: Sequence[Row]) -> None:
    trained = {row.source: row for row in train_rows if isinstance(row.source, Path)}
    for row in val_rows:
        if isinstance(row.source, Path) and row.source in trained:
            raise ConfigError(
                f"{row.origin}: expected validation pictures that are not trained with, got {row.source}, which stands "
                f"in {trained[row.source].origin}, too. Leave it out of one of them."
            )


def _tell_shared_pictures(splits: Splits) -> None:
    known = {fingerprint(picture) for picture in splits.train.pictures}
    if seen := sum(fingerprint(picture) in known for picture in splits.val.pictures):
        console.print(
            f"{seen} of {len(splits.val):,} validation pictures are training pictures, too: figures on them flatter",
            style="yellow",
        )


def _counts(rows: Sequence[Row], attribute: Attribute, role: str) -> str:
    counts = Counter(getattr(row, role) for row in rows)
    return f"{attribute.name}: " + ", ".join(f"{label} {counts[label]:,}" for label in attribute.labels)


def _rows(config: DataConfig, folder: Path | None) -> tuple[list[Row], list[Row]]:
    """Both splits, each value as the label that it stands for."""
    train_rows, val_rows = READERS[config.kind](config, folder or Path())
    return [_labelled(row, config) for row in train_rows], [_labelled(row, config) for row in val_rows]


def _labelled(row: Row, config: DataConfig) -> Row:
    try:
        return row._replace(task=config.task.group(row.task), sensitive=config.sensitive.group(row.sensitive))
    except ValueError as error:
        raise ConfigError(f"{row.origin}: expected a number to cut into groups, got {error}") from error


def _attribute(config: AttributeConfig, role: str, train_rows: Sequence[Row], val_rows: Sequence[Row]) -> Attribute:
    """Name the classes, each of which both splits must show: else it can be neither learnt nor judged."""
    found = tuple(sorted({getattr(row, role) for row in train_rows}))
    if len(found) < 2:
        raise ConfigError(
            f"attribute {config.name!r} has only the class {found} in {len(train_rows)} training pictures; "
            "a classifier needs two. Choose another attribute or more data."
        )
    try:
        attribute = Attribute(name=config.name, labels=config.labels or found)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"attribute {config.name!r}: {first['msg']}, got {first['input']!r:.200}") from error
    for split, rows in (("training", train_rows), ("validation", val_rows)):
        absent = set(attribute.labels).difference(getattr(row, role) for row in rows)
        if rows and absent:
            raise ConfigError(
                f"expected {split} pictures of each {config.name}, got none of {sorted(absent)} among {len(rows)}. "
                "Add some, or leave the class out of both splits."
            )
    return attribute


def _numbers(rows: Sequence[Row], attribute: Attribute, role: str) -> Labels:
    number = {label: i for i, label in enumerate(attribute.labels)}
    for row in rows:
        if getattr(row, role) not in number:
            raise ConfigError(
                f"{row.origin}: {attribute.name} is {getattr(row, role)!r}, expected one of {attribute.labels}"
            )
    return np.array([number[getattr(row, role)] for row in rows], np.int64)


def _decode(
    rows: Sequence[Row],
    spec: ImagePreprocessing,
    task: Attribute,
    sensitive: Attribute,
    split: str,
    transform: Callable[[Tensor], Tensor] | None,
) -> LabelledPictures:
    if not rows:
        raise ConfigError(f"the {split} split is empty")
    labels = _numbers(rows, task, "task"), _numbers(rows, sensitive, "sensitive")
    counts = "; ".join((_counts(rows, task, "task"), _counts(rows, sensitive, "sensitive")))
    console.print(f"{split}: {len(rows):,} pictures; {counts}")
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
