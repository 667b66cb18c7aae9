from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import dcp_sdk
from dcp_sdk import errors


def test_all_is_sorted_and_true() -> None:
    assert dcp_sdk.__all__ == sorted(set(dcp_sdk.__all__))
    assert all(hasattr(dcp_sdk, name) for name in dcp_sdk.__all__)


def test_every_error_is_public() -> None:
    assert set(errors.__all__) <= set(dcp_sdk.__all__)


def test_version() -> None:
    assert dcp_sdk.__version__ == metadata.version("dcp-private-client"), "what is installed is what runs"


def test_import_is_light() -> None:
    heavy = ("torch", "onnx", "grpc", "gevent", "cryptography", "google.protobuf", "asyncio")
    code = f"import sys, dcp_sdk; print(*set({heavy}).intersection(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []
