"""The process in which Atheris calls a target; started by ``python -m tests.fuzz``."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["dcp_sdk"]):
    from tests.fuzz.targets import TARGETS, seeds


def main() -> None:
    """Follow the branches of one target; libFuzzer ends the process."""
    _, name, corpus, cases, *flags = sys.argv
    for seed in seeds(name):
        (Path(corpus) / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    with TARGETS[name]() as target:
        atheris.Setup([sys.argv[0], corpus, cases, *flags], target)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
