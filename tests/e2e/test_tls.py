"""TLS, certificates on both sides and access keys: what is wrong is said, is never tried again, and leaks nothing.

``grpcs://`` meets a real Triton. Triton's HTTP has no TLS, so ``https://`` meets a proxy with TLS before it.
"""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from dcp_sdk import AccessDenied, ConfigError, PrivateClient, Security, ServerUnavailable, Timeouts, TLSFailed
from dcp_sdk.bench import measure
from dcp_sdk.preprocess import Image
from dcp_sdk.serving import TritonServer
from tests.e2e import fault as faults
from tests.e2e.authority import Authority, Identity
from tests.e2e.bodies import only_payloads_left
from tests.e2e.secrets import Secrets
from tests.e2e.tap import Tap, port_of, tap
from tests.e2e.tls_proxy import tls_proxy, tls_server
from tests.tiny import ROOT, Tiny

pytestmark = [pytest.mark.triton, pytest.mark.parametrize("scheme", ["grpcs", "https"])]

KEY = "a-key-that-nobody-may-see"


@dataclass(frozen=True)
class Trust:
    """Who vouches for whom."""

    authority: Authority
    stranger: Authority
    server: Identity
    device: Identity
    expired: Identity
    elsewhere: Identity
    impostor: Identity
    """A device for which only the stranger vouches."""

    @property
    def mutual(self) -> Security:
        """What the device needs where both sides must know each other."""
        return Security(
            ca_file=self.authority.file,
            certificate_file=self.device.certificate,
            certificate_key_file=self.device.key,
        )


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> Trust:
    """Make all certificates."""
    folder = tmp_path_factory.mktemp("certificates")
    authority, stranger = Authority(folder, "authority"), Authority(folder, "stranger")
    return Trust(
        authority,
        stranger,
        authority.vouch("server"),
        authority.vouch("device"),
        authority.vouch("expired", days=-1),
        authority.vouch("elsewhere", hosts=("triton.example.org",)),
        stranger.vouch("impostor"),
    )


Serve = Callable[..., Tap]


@pytest.fixture
def inside(tiny: Tiny, secrets: Secrets) -> Iterator[list[Tap]]:
    """Listen behind what ends TLS: whatever the test did, each body in there must be a payload."""
    taps: list[Tap] = []
    yield taps
    for wire in taps:
        only_payloads_left(wire, tiny, secrets)


@pytest.fixture
def serve(scheme: str, tiny: Tiny, tiny_server: TritonServer, inside: list[Tap]) -> Iterator[Serve]:
    """Start a server with a certificate, and a tap before it: ``serve(identity, clients=FILE)``."""
    with ExitStack() as opened:

        def start(identity: Identity, *, clients: Path | None = None) -> Tap:
            http_port = port_of(tiny_server, "http")
            if scheme == "https":
                inside.append(opened.enter_context(tap(http_port)))
                http_port = inside[-1].port
            port = opened.enter_context(tls_server(scheme, tiny, http_port, identity, clients=clients))
            return opened.enter_context(tap(port))

        yield start


def connect(tiny: Tiny, address: str, security: Security | None) -> PrivateClient:
    return PrivateClient(tiny.bundle, address, device="cpu", timeouts=Timeouts(connect_s=5), security=security)


def refused(tiny: Tiny, wire: Tap, address: str, security: Security | None, noise: Image) -> TLSFailed:
    """Fail for a reason of TLS, at once or with the first picture, which does not leave then."""
    with pytest.raises(TLSFailed) as caught, connect(tiny, address, security) as client:
        client.predict(noise)
    assert len(wire.streams) <= 3, "one attempt, and two to find out why"
    return caught.value


def test_both_sides_know_each_other(
    scheme: str, serve: Serve, trust: Trust, tiny: Tiny, noise: Image, secrets: Secrets
) -> None:
    wire = serve(trust.server, clients=trust.authority.file)
    for host in ("localhost", "127.0.0.1"):
        with connect(tiny, f"{scheme}://{host}:{wire.port}", trust.mutual) as client:
            prediction = client.predict(noise)
            assert prediction.server == f"{scheme}://{host}:{wire.port}"
            assert len(client.predict_batch([noise] * 9)) == 9
            wire.cut()
            assert client.predict(noise).label == prediction.label, "made anew, and checked anew"
    assert secrets.kept not in wire.sent, "what travels is encrypted"
    assert secrets.found_in(wire.sent) == []
    for own, word in ((None, "certificate_file"), (trust.impostor, "certificate")):
        wire.streams.clear()
        options = {} if own is None else {"certificate_file": own.certificate, "certificate_key_file": own.key}
        stranger = Security(ca_file=trust.authority.file, **options)
        error = refused(tiny, wire, f"{scheme}://localhost:{wire.port}", stranger, noise)
        assert word in str(error)


def test_what_bench_compares_with_has_certificates_too(
    scheme: str, serve: Serve, inside: list[Tap], trust: Trust, tiny: Tiny
) -> None:
    wire = serve(trust.server, clients=trust.authority.file)
    with connect(tiny, f"{scheme}://localhost:{wire.port}", trust.mutual) as client:
        assert measure(client, calls=1).calls == 1
    inside.clear()  # NVIDIA's client has headers of its own


def test_a_certificate_that_cannot_be_read_for_a_moment(
    scheme: str, serve: Serve, trust: Trust, tiny: Tiny, noise: Image, tmp_path: Path
) -> None:
    """It is no option that makes no sense: another server is asked then, and later this one again."""
    wire, file = serve(trust.server), tmp_path / "authority.pem"
    shutil.copy(trust.authority.file, file)
    with connect(tiny, f"{scheme}://localhost:{wire.port}", Security(ca_file=file)) as client:
        client.predict(noise)
        for content in (None, b"half of a certif", b"", bytes(512)):
            file.unlink() if content is None else file.write_bytes(content)
            wire.cut()
            with pytest.raises(TLSFailed, match="Security: expected"):
                client.predict(noise)
        shutil.copy(trust.authority.file, file)
        assert client.predict(noise).label


def test_a_front_whose_server_is_away(scheme: str, tiny_server: TritonServer, trust: Trust, tiny: Tiny) -> None:
    """It shakes hands and hangs up. That may pass, unlike a certificate that is refused."""
    security = Security(ca_file=trust.authority.file)
    with tap(port_of(tiny_server, scheme.removesuffix("s"))) as wire, tls_proxy(wire.port, trust.server) as front:
        connect(tiny, f"{scheme}://localhost:{front}", security).close()
        wire.refuse()
        with pytest.raises(ServerUnavailable, match="another certificate"):
            connect(tiny, f"{scheme}://localhost:{front}", security)
        wire.listen()
        connect(tiny, f"{scheme}://localhost:{front}", security).close()


def test_noise_in_place_of_an_answer_is_no_certificate(
    scheme: str, serve: Serve, trust: Trust, tiny: Tiny, noise: Image
) -> None:
    """TLS worked until the payload was sent; so it is tried again."""
    wire = serve(trust.server)

    class Once(faults.Garbage):
        def reply(self, data: bytes, send: faults.Send) -> None:
            wire.fault = faults.Fault()
            super().reply(data, send)

    with connect(tiny, f"{scheme}://localhost:{wire.port}", Security(ca_file=trust.authority.file)) as client:
        client.predict(noise)
        wire.fault = Once()
        assert client.predict(noise).sends == 2


def test_a_server_that_this_device_does_not_trust(
    scheme: str, serve: Serve, trust: Trust, tiny: Tiny, noise: Image
) -> None:
    wire = serve(trust.server)
    for authority in (trust.stranger.file, None):
        wire.streams.clear()
        error = refused(tiny, wire, f"{scheme}://localhost:{wire.port}", Security(ca_file=authority), noise)
        assert "no authority that this device trusts" in str(error)
        assert "ca_file" in str(error)


def test_a_certificate_that_is_renewed_needs_no_new_client(
    scheme: str, serve: Serve, trust: Trust, tiny: Tiny, noise: Image
) -> None:
    """A server comes back with a certificate that has expired, and then with a good one."""
    wire, expired = serve(trust.server), serve(trust.expired)
    good, bad = wire.target, expired.target
    with connect(tiny, f"{scheme}://localhost:{wire.port}", Security(ca_file=trust.authority.file)) as client:
        label = client.predict(noise).label
        for _ in range(2):
            wire.target = bad
            wire.cut()
            with pytest.raises(TLSFailed, match="has expired"):
                client.predict(noise)
            wire.target = good
            wire.cut()
            assert client.predict(noise).label == label


@pytest.mark.parametrize(("who", "says"), [("expired", "has expired"), ("elsewhere", "another host name")])
def test_a_certificate_that_is_no_good(
    who: str, says: str, scheme: str, serve: Serve, trust: Trust, tiny: Tiny, noise: Image
) -> None:
    wire = serve(getattr(trust, who))
    error = refused(tiny, wire, f"{scheme}://localhost:{wire.port}", Security(ca_file=trust.authority.file), noise)
    assert says in str(error)


def test_plaintext_meets_tls(scheme: str, serve: Serve, trust: Trust, tiny: Tiny, noise: Image) -> None:
    wire = serve(trust.server)
    error = refused(tiny, wire, f"{scheme.removesuffix('s')}://localhost:{wire.port}", None, noise)
    assert f"Use {scheme}://localhost:{wire.port}" in str(error)


def test_tls_meets_plaintext(scheme: str, tiny_server: TritonServer, trust: Trust, tiny: Tiny, noise: Image) -> None:
    with tap(port_of(tiny_server, scheme.removesuffix("s"))) as wire:
        error = refused(tiny, wire, f"{scheme}://localhost:{wire.port}", Security(ca_file=trust.authority.file), noise)
    assert "does not speak TLS" in str(error)


def test_access_keys(scheme: str, tiny: Tiny, noise: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The right key, out of a variable or a file; a wrong one; none; one that is put right while the client lives."""
    with TritonServer(tiny.repository, venv=ROOT / ".venv-triton", key=KEY) as server:
        address = server.grpc_address if scheme == "grpcs" else server.http_address
        monkeypatch.setenv("DCP_TEST_KEY", KEY)
        right = Security(api_key_variable="DCP_TEST_KEY")
        with connect(tiny, address, right) as client:
            assert client.predict(noise).label
        file = tmp_path / "key"
        file.write_text("a-wrong-key-that-nobody-may-see\n")
        wrong = Security(api_key_file=file)
        for security in (wrong, None):
            with pytest.raises(AccessDenied, match="wants a key") as caught:
                with connect(tiny, address, security) as client:
                    client.predict(noise)
            said = "".join(traceback.format_exception(caught.value)) + repr(security) + repr(client)
            assert KEY not in said
            assert "a-wrong-key" not in said
        client = connect(tiny, address, right)
        monkeypatch.delenv("DCP_TEST_KEY")
        with client, pytest.raises(ConfigError, match="access key"):
            connect(tiny, address, right)
        file.write_text(f"{KEY}\n")
        with connect(tiny, address, wrong) as client:
            assert client.predict(noise).label


def test_a_wrong_key_does_not_open_the_circuit(scheme: str, tiny: Tiny, noise: Image, tmp_path: Path) -> None:
    """A key that is mended is taken up by the same client, at once."""
    file = tmp_path / "key"
    file.write_text(KEY)
    with TritonServer(tiny.repository, venv=ROOT / ".venv-triton", key=KEY) as server:
        plain = scheme.removesuffix("s")
        with tap(port_of(server, plain)) as wire:
            with connect(tiny, f"{plain}://127.0.0.1:{wire.port}", Security(api_key_file=file)) as client:
                client.predict(noise)
                file.write_text("wrong-for-a-while")
                wire.cut()
                for _ in range(8):
                    with pytest.raises(AccessDenied):
                        client.predict(noise)
                file.write_text(KEY)
                assert client.predict(noise).sends == 1
