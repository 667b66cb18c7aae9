"""Keep ONNX Runtime from reporting to its maker. Imported before all else of this package.

From 1.31 on its wheels for Linux keep a device number and a list of events in the user's cache folder (the machine, the
program's path, names in the graph, how often and how long it ran, errors), to be sent to Microsoft. It looks at this
variable when it is loaded, and nothing else stops all of it.
"""

import os
import sys

__all__ = ["VARIABLE"]

VARIABLE = "ORT_DISABLE_TELEMETRY"
"""Servers that this process starts inherit it."""

os.environ[VARIABLE] = "1"
if "onnxruntime" in sys.modules:  # too late for what it says when it is loaded, not for what comes later
    sys.modules["onnxruntime"].disable_telemetry_events()
