"""Where and when a number was measured, written beside it."""

from __future__ import annotations

import importlib.metadata
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from training.checkpoint import git_commit
from training.metrics import hardware

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("onnxruntime-gpu", "numpy", "opencv-python", "opencv-python-headless", "tritonclient", "torch")


def record(name: str, command: str, figures: dict[str, Any], *, provider: str = "CPUExecutionProvider") -> None:
    """Print ``figures`` and write them to ``results/NAME.json``."""
    facts = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "load_average": round(os.getloadavg()[0], 1),
        "provider": provider,
        "commit": git_commit(),
        "command": command,
        "versions": _versions(),
        **figures,
    }
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(facts, indent=2)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    print(text)


def _versions() -> dict[str, str]:
    installed = {found.name for found in importlib.metadata.distributions()}
    return {package: importlib.metadata.version(package) for package in _PACKAGES if package in installed}
