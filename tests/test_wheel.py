"""What a device installs, as ``docs/deploy_device.md`` tells: a wheel of ``dcp_sdk`` only, offline, without torch."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

from dcp_sdk import __version__
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


PAGE = ROOT / "docs" / "deploy_device.md"


def documented(folder: Path) -> str:
    """Take the commands of the page's section about an offline install, with this Python, under ``folder``."""
    (section,) = re.findall(r"^## Install without a network$(.+?)^## ", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    script = "\n".join(re.findall(r"^\$ (.+)$", section, re.MULTILINE))
    for told, here in (("python3.11", sys.executable), ("/media/stick", folder), ("/opt/dcp", folder / "dcp")):
        assert told in script
        script = script.replace(told, str(here))
    return script


def test_wheel_in_a_new_environment(tmp_path: Path) -> None:
    def run(*command: str | Path, cwd: Path = tmp_path) -> str:
        done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert __version__ in run("bash", "-euc", documented(tmp_path), cwd=ROOT)
    (wheel,) = (tmp_path / "wheelhouse").glob("dcp_private_client-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        tops = {entry.partition("/")[0] for entry in archive.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"dcp_sdk"}

    shipped = (PAPER, ROOT / "triton_models", ROOT / "examples" / "data" / "astronaut.jpg")
    assert "Female" in run(tmp_path / "dcp" / "bin" / "python", "-c", CHECK, *shipped)
    assert "dcp" in run(tmp_path / "dcp" / "bin" / "dcp", "--help")
