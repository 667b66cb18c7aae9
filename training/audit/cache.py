"""Payloads and results that were seen already, so that a long evaluation goes on where it was cut off."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError

from ..payloads import Payloads

__all__ = ["ResultCache", "attack_code", "code", "judging_code"]

_TRAINING = Path(__file__).parents[1]

Result = TypeVar("Result", bound=BaseModel)


class ResultCache:
    """One file per result, in a folder named after everything that decides them.

    Args:
        folder: Holds the caches of all evaluations; None keeps nothing.
        key: Objects whose ``repr`` decides the results. Another key is another cache.
    """

    def __init__(self, folder: Path | None, *key: object) -> None:
        digest = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
        self._folder = None if folder is None else folder / digest

    def payloads(self, name: str, collect: Callable[[], Payloads]) -> Payloads:
        """Return the payloads written down under ``name``, or collect them and write them down.

        Where the device draws at random, a second collection would be a second look at the same pictures.
        """
        return self.many([name], lambda: [collect()])[0]

    def many(self, names: Sequence[str], collect: Callable[[], list[Payloads]]) -> list[Payloads]:
        """As :meth:`payloads`, for several that are collected in one go."""
        if self._folder is None:
            return collect()
        paths = [self._folder / f"{name}.npz" for name in names]
        if not all(path.exists() for path in paths):
            self._folder.mkdir(parents=True, exist_ok=True)
            for path, payloads in zip(paths, collect(), strict=True):
                if path.exists():
                    continue
                partial = path.with_name(f"{path.stem}.partial.npz")  # a file that was cut off must not look whole
                np.savez(partial, **vars(payloads))
                partial.replace(path)
        return [_read(path) for path in paths]

    def once(self, name: str, kind: type[Result], measure: Callable[[], Result]) -> Result:
        """Return the result that was written down under ``name``, or measure it and write it down."""
        if self._folder is None:
            return measure()
        path = self._folder / f"{name.replace(' ', '_')}.json"
        try:
            return kind.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):  # not there yet, or cut off while it was written
            result = measure()
            self._folder.mkdir(parents=True, exist_ok=True)
            path.write_text(result.model_dump_json(indent=2), encoding="utf-8")
            return result


def _read(path: Path) -> Payloads:
    with np.load(path) as file:
        return Payloads(
            file["channels"],
            file["features"],
            file["labels"],
            file["answers"],
            int(file["total_channels"]),
            float(file["scale"]),
        )


def attack_code() -> str:
    """Hash of what attacks: an attack that was changed answers anew."""
    names = ["config.py", "metrics.py", "networks.py", "payloads.py", "pruning.py", "schedule.py", "small_maps.py"]
    return code(*names, *(f"attacks/{path.name}" for path in (_TRAINING / "attacks").glob("*.py")))


def judging_code() -> str:
    """Hash of what puts answers into figures."""
    return code(*(f"audit/{path.name}" for path in (_TRAINING / "audit").glob("*.py")))


@cache
def code(*names: str) -> str:
    """Hash of files of this package."""
    return hashlib.sha256(b"".join((_TRAINING / name).read_bytes() for name in sorted(names))).hexdigest()
