"""Use a model in the cloud without showing it the picture.

>>> from dcp_sdk import PrivateClient
>>> with PrivateClient("bundles/gender", "grpc://localhost:8001") as client:  # doctest: +SKIP
...     print(client.predict("face.jpg").label)
"""

from typing import TYPE_CHECKING, Any

from . import _opencv as _opencv  # before anything loads OpenCV
from . import _silence as _silence  # before anything loads ONNX Runtime
from ._version import __version__
from .bundles.manifest import Manifest
from .bundles.privacy_report import PrivacyReport
from .camera import Camera
from .client import Observer, PrivateClient
from .config import CircuitBreaker, Device, OnFailure, Retries, ServerAddress, Timeouts
from .contract import Contract
from .errors import (
    AccessDenied,
    BundleError,
    CircuitOpen,
    ConfigError,
    ContractMismatch,
    DCPError,
    DeadlineExceeded,
    FrameError,
    PrivacyGuardError,
    RuntimeUnavailable,
    ServerError,
    ServerRejected,
    ServerTimeout,
    ServerUnavailable,
    SignatureError,
    TLSFailed,
)
from .frames import Frame, FrameLike, FrameSource, load_image
from .obfuscate import Payload
from .predictions import Prediction, Timings, mean_probabilities
from .security import Security
from .sources import Arrays, Folder, Video, open_source
from .stats import Percentiles, Stats
from .telemetry import Telemetry
from .transport import Transport

if TYPE_CHECKING:
    from .aio import AsyncPrivateClient

__all__ = [
    "AccessDenied",
    "Arrays",
    "AsyncPrivateClient",
    "BundleError",
    "Camera",
    "CircuitBreaker",
    "CircuitOpen",
    "ConfigError",
    "Contract",
    "ContractMismatch",
    "DCPError",
    "DeadlineExceeded",
    "Device",
    "Folder",
    "Frame",
    "FrameError",
    "FrameLike",
    "FrameSource",
    "Manifest",
    "Observer",
    "OnFailure",
    "Payload",
    "Percentiles",
    "Prediction",
    "PrivacyGuardError",
    "PrivacyReport",
    "PrivateClient",
    "Retries",
    "RuntimeUnavailable",
    "Security",
    "ServerAddress",
    "ServerError",
    "ServerRejected",
    "ServerTimeout",
    "ServerUnavailable",
    "SignatureError",
    "Stats",
    "TLSFailed",
    "Telemetry",
    "Timeouts",
    "Timings",
    "Transport",
    "Video",
    "__version__",
    "load_image",
    "mean_probabilities",
    "open_source",
]


def __getattr__(name: str) -> Any:
    if name == "AsyncPrivateClient":  # late: it loads asyncio
        from .aio import AsyncPrivateClient

        return AsyncPrivateClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
