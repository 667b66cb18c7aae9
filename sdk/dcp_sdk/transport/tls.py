"""TLS with Python's ``ssl``: for HTTPS, and to find out why a connection failed that gRPC calls merely unavailable."""

from __future__ import annotations

import ssl
import sys

from ..deadline import Deadline
from ..errors import ConfigError
from ..security import Security
from .tcp import TLSDeadlineSocket, connect, secure

__all__ = ["PLAINTEXT", "client_context", "explain", "speaks_http", "speaks_tls", "why_no_tls"]

# OpenSSL's numbers (x509_vfy.h); the module has no names for them.
_VERIFY = {
    10: "its certificate has expired. Renew the server's certificate, or set this device's clock",
    9: "its certificate is not valid yet. Set this device's clock",
    62: "its certificate is for another host name. Use the name in the certificate as address",
    64: "its certificate is for another IP address. Use the name in the certificate as address",
}
_STRANGER = "no authority that this device trusts vouches for its certificate. Give the right Security(ca_file=…)"
PLAINTEXT = "it does not speak TLS. Use grpc:// or http://, or switch TLS on in the server"
"""Why a server does not shake hands that answers in plaintext."""
_WANTS_US = (
    "it refuses this device's certificate, or wants one and got none. Give Security(certificate_file=…, "
    "certificate_key_file=…) from the authority that the server trusts"
)
_NOT_TLS = {
    "WRONG_VERSION_NUMBER",
    "HTTP_REQUEST",
    "UNKNOWN_PROTOCOL",
    "PACKET_LENGTH_TOO_LONG",
    "RECORD_LAYER_FAILURE",
}
_ABOUT_US = ("CERTIFICATE_REQUIRED", "UNKNOWN_CA", "BAD_CERTIFICATE", "CERTIFICATE_UNKNOWN", "CERTIFICATE_EXPIRED")
_REFUSED = "HANDSHAKE_FAILURE"


def client_context(security: Security | None, *, protocol: str | None = None) -> ssl.SSLContext:
    """Read the files that ``security`` names, and state whom this device trusts.

    Args:
        security: None trusts the public authorities and shows no certificate.
        protocol: What is spoken inside, such as ``h2``.

    Raises:
        ConfigError: A file cannot be read, or does not hold what it should.
    """
    security = security or Security()
    authorities, identity = security.authorities(), security.identity()
    try:
        if authorities is None:
            context = ssl.create_default_context()
        else:
            # create_default_context(cadata=…) would add the public authorities where it takes the text for none.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(cadata=authorities.decode("ascii", "replace"))
            if sys.version_info >= (3, 13):  # as strict as create_default_context is there
                context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT
        if identity is not None:
            assert security.certificate_file is not None
            # A passphrase would be asked for at the terminal: an empty one fails instead.
            context.load_cert_chain(security.certificate_file, security.certificate_key_file, password="")
    except (ssl.SSLError, ValueError) as error:
        why = getattr(error, "reason", None) or type(error).__name__
        raise ConfigError(
            f"Security: expected PEM files: authorities, and a certificate with its own key without a passphrase, "
            f"got something else ({why})."
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if protocol is not None:
        context.set_alpn_protocols([protocol])
    return context


def explain(error: ssl.SSLError) -> str | None:
    """Say what is wrong between the two sides and what mends it; None if the connection merely broke."""
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError):
        return None
    if isinstance(error, ssl.SSLCertVerificationError):
        return _VERIFY.get(error.verify_code, _STRANGER)
    reason = (error.reason or "").replace(" ", "_").upper()
    if reason in _NOT_TLS:
        return PLAINTEXT
    if "ALERT" in reason and (reason.endswith(_ABOUT_US) or reason.endswith(_REFUSED)):
        return _WANTS_US
    return f"the handshake failed ({reason or type(error).__name__}). Compare the TLS settings of both sides"


def why_no_tls(host: str, port: int, security: Security | None, deadline: Deadline) -> str | None:
    """Shake hands once, send nothing, and say why a TLS connection does not come about; None if it does.

    Also None where nobody listens, or the connection breaks for no reason that TLS states.
    """
    try:
        context = client_context(security, protocol="h2")
        with secure(connect(host, port, deadline), context, host) as connection:
            refused = _hangs_up(connection, deadline) and not _takes_us(host, port, context, deadline)
    except ConfigError as error:
        return str(error).rstrip(".")
    except ssl.SSLError as error:
        return explain(error)
    except OSError:
        return None
    return _WANTS_US if refused else None


def _hangs_up(connection: TLSDeadlineSocket, deadline: Deadline) -> bool:
    """Wait for what an HTTP/2 server says first. With TLS 1.3 it looks at our certificate after the handshake.

    Raises:
        ssl.SSLError: It says what is wrong.
    """
    try:
        connection.settimeout(max(min(deadline.left_s(), 1.0), 0.01))
        return not connection.recv(1)
    except TimeoutError:
        return False
    except ssl.SSLError as error:
        if explain(error) is not None:
            raise
        return True
    except OSError:
        return True


def _takes_us(host: str, port: int, context: ssl.SSLContext, deadline: Deadline) -> bool:
    """Find out whether a server that hung up did so because of our certificate: Triton's gRPC does it without a word.

    With TLS 1.2 it looks at it before the handshake ends, and does not end it. A proxy whose own server is away does.
    """
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    plain = connect(host, port, deadline)
    try:
        secure(plain, context, host).close()
    except (ssl.SSLEOFError, ConnectionError):
        return False
    except OSError:  # it does not speak TLS 1.2, or not in time: nothing is known
        pass
    return True


def speaks_tls(host: str, port: int, deadline: Deadline) -> bool:
    """Find out whether a server that did not answer in plaintext answers a TLS greeting."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        secure(connect(host, port, deadline), context, host).close()
    except ssl.SSLError as error:
        return "ALERT" in (error.reason or "")
    except OSError:
        return False
    return True


def speaks_http(host: str, port: int, deadline: Deadline) -> bool:
    """Find out whether a server that hung up on a TLS greeting answers a question in plaintext."""
    try:
        with connect(host, port, deadline) as connection:
            connection.sendall(b"GET /v2/health/live HTTP/1.0\r\n\r\n")
            connection.settimeout(deadline.remaining_s())
            return connection.recv(5) == b"HTTP/"
    except OSError:
        return False
