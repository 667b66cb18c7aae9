"""One moment for all stages of a call: after it nobody waits any longer."""

from __future__ import annotations

import time

from .errors import DeadlineExceeded

__all__ = ["Deadline"]


class Deadline:
    """A moment in the future.

    Args:
        timeout_s: Seconds from now.
    """

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._end = time.monotonic() + timeout_s

    def postpone(self, seconds: float) -> None:
        """Let it pass so much later: for time that was not the call's to use."""
        self._end += seconds

    def left_s(self) -> float:
        """Seconds until then; 0 if it has passed."""
        return max(0.0, self._end - time.monotonic())

    def remaining_s(self) -> float:
        """Seconds that are left.

        Raises:
            TimeoutError: None are.
        """
        remaining = self._end - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("the deadline has passed")
        return remaining

    def check(self, stage: str) -> None:
        """Make sure that ``stage`` left some time.

        Raises:
            DeadlineExceeded: It did not.
        """
        if self.left_s() == 0:
            raise self.exceeded(stage)

    def exceeded(self, stage: str) -> DeadlineExceeded:
        """Return what to raise when ``stage`` left no time."""
        return DeadlineExceeded(
            f"expected an answer within {self.timeout_s:.3g} s, but they were over after {stage}. "
            "Nothing was sent. Allow more with Timeouts(predict_s=…), or look into the load of this device."
        )
