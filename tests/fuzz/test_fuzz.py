"""What fuzzing once found stays mended, and a few hundred new inputs find nothing; ``python -m tests.fuzz`` goes on."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.fuzz.targets import CASES, TARGETS, Target, seeds

FEW = {"manifest": 400, "bundle": 300, "image": 300, "grpc": 150, "http": 150}


@pytest.fixture(scope="module", params=TARGETS)
def named(request: pytest.FixtureRequest) -> Iterator[tuple[str, Target]]:
    with TARGETS[request.param]() as target:
        yield request.param, target


def test_what_was_found_once_stays_mended(named: tuple[str, Target]) -> None:
    name, target = named
    for case in [*seeds(name), *(path.read_bytes() for path in sorted((CASES / name).glob("*")))]:
        target(case)


def test_a_few_new_inputs_find_nothing(named: tuple[str, Target]) -> None:
    name, target = named
    drawn = random.Random(name)  # the same inputs in each run: a failure can be looked at
    well_formed = seeds(name)
    for _ in range(FEW[name]):
        target(changed(drawn.choice(well_formed), drawn))


def changed(data: bytes, drawn: random.Random) -> bytes:
    """Replace some stretches by other bytes, from elsewhere in the data or made up, of another length perhaps."""
    for _ in range(drawn.randint(1, 4)):
        at, length = drawn.randint(0, len(data)), drawn.choice((0, 1, 1, 4, 16))
        source = drawn.randint(0, len(data))
        new = drawn.choice(
            (drawn.randbytes(length), data[source : source + drawn.choice((1, 4, 16))], b"\xff" * length)
        )
        data = data[:at] + new + data[at + length :]
    return data
