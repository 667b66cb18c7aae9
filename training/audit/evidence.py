"""What a server holds: payloads of pictures that leaked with their labels, and of those that it wants to know about."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from dcp_sdk.bundles.manifest import Manifest

from ..data import Labels, Splits, fingerprint
from ..payloads import Payloads, collect
from .cache import ResultCache, attack_code, code
from .many_frames import averages

__all__ = ["Evidence"]


@dataclass(frozen=True)
class Evidence:
    """Payloads of one bundle, as its deployed graph sends them: collected once, and written down."""

    bundle: Path
    manifest: Manifest
    splits: Splits
    """In :func:`training.data.order`. The training split is what leaked; adversaries are judged on the validation
    split."""
    pairs: int | None
    """Leaked pairs at most."""
    work: Path | None
    """Folder of the caches; None keeps none."""

    @cached_property
    def leaked(self) -> Payloads:
        """What the adversaries learn from."""
        everything = self._payloads("train")
        return everything if self.pairs is None else everything[np.arange(min(len(everything), self.pairs))]

    @cached_property
    def target(self) -> Payloads:
        """What they answer for."""
        return self._payloads("val")

    @property
    def leaked_pictures(self) -> npt.NDArray[np.uint8]:
        """The pictures behind :attr:`leaked`, uint8 ``(N, S, S, 3)``."""
        return self.splits.train.pictures[: len(self.leaked)]

    def labelled(self, known: Labels, truth: Labels) -> tuple[Payloads, Payloads]:
        """Return :attr:`leaked` and :attr:`target` with other labels, of all pictures: what else may be asked for."""
        return replace(self.leaked, labels=known[: len(self.leaked)]), replace(self.target, labels=truth)

    def averages(self, counts: tuple[int, ...], *, moving: bool = False) -> list[tuple[Payloads, Payloads]]:
        """Return, for each number of frames, what leaked and what is asked about, as :func:`.many_frames.averages`."""
        if not counts:
            return []
        leaked, target = (self._averages(side, counts, moving=moving) for side in ("train", "val"))
        return [(known[np.arange(len(self.leaked))], unknown) for known, unknown in zip(leaked, target, strict=True)]

    def cache(self, *how: object) -> ResultCache:
        """Return the cache of answers that ``how``, these payloads and the code of the attacks decide."""
        return ResultCache(self.work, self.manifest.contract.digest, *how, self._seen, attack_code())

    def _payloads(self, side: Literal["train", "val"]) -> Payloads:
        pictures = getattr(self.splits, side)
        return self._collected().payloads(side, partial(collect, self.bundle, self.manifest, pictures))

    def _averages(self, side: str, counts: tuple[int, ...], *, moving: bool) -> list[Payloads]:
        pictures = getattr(self.splits, side)
        names = [f"{side}, {count} frames{' of a moving face' if moving else ''}" for count in counts]
        return self._collected("audit/many_frames.py", "audit/motion.py").many(
            names, partial(averages, self.bundle, self.manifest, pictures, counts, moving=moving)
        )

    def _collected(self, *files: str) -> ResultCache:
        """Return the cache of payloads that these pictures, and such files of ours, decide."""
        key = [self.manifest.contract.digest, self.splits.fingerprint, *([code(*files)] if files else [])]
        return ResultCache(self.work, *key)

    @cached_property
    def _seen(self) -> str:
        """Fingerprint of what the adversaries learn from and answer for, labels included."""
        pairs = (self.leaked, self.target)
        return fingerprint(*(array for one in pairs for array in (one.channels, one.features, one.labels, one.answers)))
