"""Nothing leaves by another way than ours: what we stand on does not report to its maker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from dcp_sdk._silence import VARIABLE
from tests.tiny import Tiny

CODE = """
import sys, numpy
from dcp_sdk import PrivateClient
with PrivateClient(sys.argv[1], f"memory://{sys.argv[2]}", device="cpu") as client:
    client.predict(numpy.zeros((9, 9, 3), numpy.uint8))
"""


def test_onnx_runtime_reports_nothing_to_its_maker(tiny: Tiny, tmp_path: Path) -> None:
    """It would put a device number and a list of events under the home folder as soon as it is loaded."""
    environment = {name: value for name, value in os.environ.items() if name not in (VARIABLE, "XDG_CACHE_HOME")}
    command = [sys.executable, "-c", CODE, str(tiny.bundle), str(tiny.repository)]
    subprocess.run(command, env=environment | {"HOME": str(tmp_path)}, check=True, timeout=120)
    assert list(tmp_path.rglob("*")) == []
    assert os.environ[VARIABLE] == "1", "so that a server which is started here inherits it"
