"""Every error that the SDK raises on purpose. ``docs/errors.md`` tells when each comes, and its remedy.

::

    DCPError
    ├ ConfigError             an option makes no sense            (also ValueError)
    ├ FrameError              not a picture, or no picture came   (also ValueError)
    ├ BundleError             the bundle is missing, damaged or not understood
    │  ├ ContractMismatch     device bundle and server do not belong together
    │  └ SignatureError       nobody who is trusted signed the bundle as it is
    ├ RuntimeUnavailable      the asked-for device (CUDA) is not to be had, or memory or threads ran out
    ├ PrivacyGuardError       the payload is not what the contract says; nothing was sent
    ├ DeadlineExceeded        the device used up the time of the call   (also TimeoutError)
    └ ServerError
       ├ ServerUnavailable    nobody answers, the server is full, or the model is not loaded
       │  └ CircuitOpen       it failed too often a moment ago; nothing was sent
       ├ ServerTimeout        no answer within the time that was given  (also DeadlineExceeded)
       └ ServerRejected       the server answered, with a refusal or with nonsense
          ├ AccessDenied      the access key is missing or wrong
          └ TLSFailed         no secure connection: a certificate, a name, or one side speaks plaintext

A message says what was expected, what came and what to do. It never holds a pixel, an activation or a payload.
"""

from __future__ import annotations

__all__ = [
    "AccessDenied",
    "BundleError",
    "CircuitOpen",
    "ConfigError",
    "ContractMismatch",
    "DCPError",
    "DeadlineExceeded",
    "FrameError",
    "PrivacyGuardError",
    "RuntimeUnavailable",
    "ServerError",
    "ServerRejected",
    "ServerTimeout",
    "ServerUnavailable",
    "SignatureError",
    "TLSFailed",
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
    """The device that was asked for cannot run the whole graph, or memory or threads ran out. Nothing falls back."""


class PrivacyGuardError(DCPError):
    """A payload differs from what the contract allows to leave the device. Nothing was sent."""


class DeadlineExceeded(DCPError, TimeoutError):
    """The deadline of a call passed, in a stage that the message names."""


class ServerError(DCPError):
    """The remote half failed."""


class ServerUnavailable(ServerError):
    """No server at this address, it has no room, or it does not have the task head ready. May pass by itself."""


class CircuitOpen(ServerUnavailable):
    """The server failed several times in a row a moment ago, so nothing was sent. The message says until when."""


class ServerTimeout(ServerError, DeadlineExceeded):
    """The server did not answer in the time that was given."""


class ServerRejected(ServerError):
    """The server refused the request, or its answer is not what the contract says. Trying again does not help."""


class AccessDenied(ServerRejected):
    """The server wants an access key, and got none or a wrong one."""


class TLSFailed(ServerRejected):
    """No secure connection: one side does not trust the other's certificate, or does not speak TLS."""
