"""Use a model in the cloud without showing it the picture.

>>> from dcp_sdk import PrivateClient
>>> with PrivateClient("bundles/gender", "grpc://localhost:8001") as client:  # doctest: +SKIP
...     print(client.predict("face.jpg").label)
"""

from ._version import __version__
from .camera import Camera
from .client import PrivateClient
from .config import Device, ServerAddress, Timeouts
from .contract import Contract, Manifest
from .errors import (
    BundleError,
    ConfigError,
    ContractMismatch,
    DCPError,
    FrameError,
    PrivacyGuardError,
    RuntimeUnavailable,
    ServerError,
    ServerRejected,
    ServerTimeout,
    ServerUnavailable,
    SignatureError,
)
from .frames import Frame, FrameSource, load_image
from .predictions import Prediction, Timings
from .privacy_report import PrivacyReport
from .sources import Arrays, Folder, Video, open_source
from .transport import Transport

__all__ = [
    "Arrays",
    "BundleError",
    "Camera",
    "ConfigError",
    "Contract",
    "ContractMismatch",
    "DCPError",
    "Device",
    "Folder",
    "Frame",
    "FrameError",
    "FrameSource",
    "Manifest",
    "Prediction",
    "PrivacyGuardError",
    "PrivacyReport",
    "PrivateClient",
    "RuntimeUnavailable",
    "ServerAddress",
    "ServerError",
    "ServerRejected",
    "ServerTimeout",
    "ServerUnavailable",
    "SignatureError",
    "Timeouts",
    "Timings",
    "Transport",
    "Video",
    "__version__",
    "load_image",
    "open_source",
]
