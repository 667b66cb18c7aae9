"""What a device installs: the wheel holds ``dcp_sdk`` only, and works in a new environment without torch."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from tests.tiny import PAPER, ROOT

CHECK = """
import importlib.util, sys
import dcp_sdk
assert importlib.util.find_spec("torch") is None, "torch came along"
assert importlib.util.find_spec("training") is None
print(dcp_sdk.__version__, sorted(name for name in sys.modules if name == "onnx"))
from dcp_sdk import PrivateClient
with PrivateClient(sys.argv[1], f"memory://{sys.argv[2]}", device="cpu") as client:
    print(client.predict(sys.argv[3]).label)
"""


def test_wheel_in_a_new_environment(tmp_path: Path) -> None:
    def run(*command: str | Path) -> str:
        done = subprocess.run([*map(str, command)], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith("dcp_private_client-")
    with zipfile.ZipFile(wheel) as archive:
        tops = {entry.partition("/")[0] for entry in archive.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"dcp_sdk"}

    run(sys.executable, "-m", "venv", "new")
    python = tmp_path / "new" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", wheel)
    shipped = (PAPER, ROOT / "triton_models", ROOT / "examples" / "data" / "astronaut.jpg")
    assert "Female" in run(python, "-c", CHECK, *shipped)
    assert "dcp" in run(tmp_path / "new" / "bin" / "dcp", "--help")
