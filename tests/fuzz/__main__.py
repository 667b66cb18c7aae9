"""Fuzz one target for a while: ``python -m tests.fuzz manifest --minutes 30``.

Atheris, which follows the branches that an input takes, changes well-formed inputs until one makes the target raise,
hang or use up memory. That input is kept in ``tests/fuzz/cases/TARGET``, where the test suite runs it from then on.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tests.fuzz.targets import CASES, TARGETS

_RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "fuzz.json"
_LARGEST_BYTES, _LONGEST_S, _MEMORY_MIB = 1 << 16, 20, 3072


def main() -> int:
    """Run the fuzzer in a process of its own, and record what it did."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--corpus", type=Path, help="Folder of inputs to go on from; by default a new one.")
    options = parser.parse_args()
    try:
        atheris = version("atheris")
    except PackageNotFoundError:
        parser.error("expected atheris, it is not installed. Run: pip install 'dcp-private-client[fuzz]'.")
    cases = CASES / options.target
    cases.mkdir(parents=True, exist_ok=True)
    before = set(cases.iterdir())
    with tempfile.TemporaryDirectory() as folder:
        corpus = options.corpus or Path(folder)
        corpus.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "tests.fuzz.follow", options.target, str(corpus), str(cases)]
        command += ["-keep_seed=1", f"-artifact_prefix={cases}/", f"-max_total_time={options.minutes * 60:.0f}"]
        command += [f"-max_len={_LARGEST_BYTES}", f"-timeout={_LONGEST_S}", f"-rss_limit_mb={_MEMORY_MIB}"]
        start = time.monotonic()
        run = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
        seconds = time.monotonic() - start
    found = sorted(path.name for path in set(cases.iterdir()) - before)
    if found or run.returncode:
        print(run.stderr[-4000:], file=sys.stderr)  # noqa: T201 - a program
    figures = _figures(run.stderr) | {"seconds": round(seconds), "found": found, "exit_status": run.returncode}
    figures["cases_kept"] = sorted(path.name for path in cases.iterdir())
    _record(options.target, f"python -m tests.fuzz {options.target} --minutes {options.minutes:g}", atheris, figures)
    return int(bool(found or run.returncode))


def _figures(log: str) -> dict[str, int]:
    """Read what libFuzzer said last about inputs and branches."""
    inputs = re.findall(r"^#(\d+)\s", log, re.MULTILINE)
    branches = re.findall(r"\bcov: (\d+)", log)
    return {"inputs": int(inputs[-1]) if inputs else 0, "branches_reached": int(branches[-1]) if branches else 0}


def _record(target: str, command: str, atheris: str, figures: dict[str, object]) -> None:
    """Write the figures of this run beside those of other targets, and keep what was found before."""
    recorded = json.loads(_RESULTS.read_text(encoding="utf-8")) if _RESULTS.exists() else {}
    created = datetime.now(UTC).isoformat(timespec="seconds")
    recorded[target] = {"created": created, "command": command, "atheris": atheris, **figures}
    text = json.dumps({name: recorded[name] for name in TARGETS if name in recorded}, indent=2)
    _RESULTS.write_text(text + "\n", encoding="utf-8")
    print(json.dumps(recorded[target], indent=2))  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
