"""What an error remembers of the functions that it went through: crash reporters send their local variables away."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar, cast

__all__ = ["forget_locals", "forgetful"]

Call = TypeVar("Call", bound=Callable[..., Any])


def forget_locals(error: BaseException) -> None:
    """Clear the local variables of all functions that have ended, in this error's traceback and in those behind it.

    Among them are pixels, the noise, and what was not pruned yet. Lines and names stay.
    """
    seen: set[int] = set()
    remaining: list[BaseException | None] = [error]
    while remaining:
        one = remaining.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            traceback.clear_frames(one.__traceback__)
            remaining += [one.__cause__, one.__context__]


@contextmanager
def _forgetting() -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        forget_locals(error)
        raise


def forgetful(call: Call) -> Call:
    """Let errors of a function, or of a coroutine, leave without what it was given and what it computed."""

    @wraps(call)
    async def awaited(*arguments: Any, **named: Any) -> Any:
        try:
            with _forgetting():
                return await call(*arguments, **named)
        finally:
            del arguments, named

    @wraps(call)
    def called(*arguments: Any, **named: Any) -> Any:
        try:
            with _forgetting():
                return call(*arguments, **named)
        finally:
            del arguments, named

    return cast(Call, awaited if inspect.iscoroutinefunction(call) else called)
