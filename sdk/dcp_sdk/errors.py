"""Every error that the SDK raises on purpose.

::

    DCPError
    ├ ConfigError             an option makes no sense            (also ValueError)
    ├ FrameError              not a picture, or no picture came   (also ValueError)
    ├ BundleError             the bundle is missing, damaged or not understood
    │  ├ ContractMismatch     device bundle and server do not belong together
    │  └ SignatureError       nobody who is trusted signed the bundle as it is
    ├ RuntimeUnavailable      the asked-for device (CUDA) is not to be had
    ├ PrivacyGuardError       the payload is not what the contract says; nothing was sent
    └ ServerError
       ├ ServerUnavailable    nobody answers, or the model is not loaded
       ├ ServerTimeout        no answer within the time that was given
       └ ServerRejected       the server answered, with a refusal or with nonsense

A message says what was expected, what came and what to do. It never holds a pixel, an activation or a payload.
"""

from __future__ import annotations

__all__ = [
    "BundleError",
    "ConfigError",
    "ContractMismatch",
    "DCPError",
    "FrameError",
    "PrivacyGuardError",
    "RuntimeUnavailable",
    "ServerError",
    "ServerRejected",
    "ServerTimeout",
    "ServerUnavailable",
    "SignatureError",
]


class DCPError(Exception):
    """Base of all errors of this package."""


class ConfigError(DCPError, ValueError):
    """An option or an address makes no sense; the caller can mend it."""


class FrameError(DCPError, ValueError):
    """What should have been a picture is not one, or the source gave none."""


class BundleError(DCPError):
    """The bundle is missing, damaged, or written by something that this version does not understand."""


class ContractMismatch(BundleError):
    """The server's task head was not exported together with this bundle."""


class SignatureError(BundleError):
    """The bundle has no signature by a trusted key, or not for these files, or one that cannot be read."""


class RuntimeUnavailable(DCPError):
    """The device that was asked for cannot run the whole graph. There is no silent fallback."""


class PrivacyGuardError(DCPError):
    """A payload differs from what the contract allows to leave the device. Nothing was sent."""


class ServerError(DCPError):
    """The remote half failed."""


class ServerUnavailable(ServerError):
    """No server at this address, or it does not have the task head ready."""


class ServerTimeout(ServerError):
    """The server did not answer in the time that was given."""


class ServerRejected(ServerError):
    """The server refused the request, or its answer is not what the contract says."""
