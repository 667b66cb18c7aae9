"""The attacker who has the device graph, the noise and the leaked pictures, and needs no payload of theirs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ..attacks import Guess, likelihood, likelihood_of_frames
from ..config import BottleneckConfig
from ..payloads import Payloads
from .certificate import MOST_VALUES, is_covered_by_noise
from .evidence import Evidence
from .many_frames import before_noise, histogram

__all__ = ["KnowsNoise"]


@dataclass(frozen=True)
class KnowsNoise:
    """Answers by :mod:`training.attacks.likelihood`, where a payload is noise on values and nothing else."""

    evidence: Evidence
    neck: BottleneckConfig

    @classmethod
    def of(cls, evidence: Evidence, neck: BottleneckConfig | None) -> KnowsNoise | None:
        """Return it; None where a payload tells something that no noise covers, or has so many values that it takes
        hours to compare each with every leaked picture.
        """
        contract = evidence.manifest.contract
        small = math.prod(contract.values_shape) <= MOST_VALUES
        if neck is None or not small or not is_covered_by_noise(contract, neck):
            return None
        return cls(evidence, neck)

    def guess(self, leaked: Payloads, target: Payloads, classes: int) -> Guess:
        """Answer from one payload each, about what ``leaked`` is labelled with."""
        levels = 2**self.evidence.manifest.contract.bits
        return likelihood(leaked, self._values, target, self.neck.deviation, levels, classes)

    def frames(self, count: int, *, moving: bool = False) -> npt.NDArray[np.uint16]:
        """Draw so many frames of each picture that is asked about: :func:`.many_frames.histogram`."""
        evidence = self.evidence
        return histogram(evidence.bundle, evidence.manifest, evidence.splits.val.pictures, count, moving=moving)

    def guess_from_frames(self, seen: npt.NDArray[np.uint16], classes: int, leaked: Payloads) -> Guess:
        """Answer from :meth:`frames`, about what ``leaked`` is labelled with."""
        return likelihood_of_frames(leaked, self._values, seen, self.neck.deviation, classes)

    @cached_property
    def _values(self) -> npt.NDArray[np.float64]:
        evidence = self.evidence
        return before_noise(evidence.bundle, evidence.manifest.contract, evidence.leaked_pictures)
