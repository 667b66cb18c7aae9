"""The ``dcp`` commands about a bundle's files: inspect, pack, keygen, sign, verify. ``cli.py`` offers them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from ..bundles.bundle import ARCHIVE_SUFFIX, DEVICE_GRAPH_FILE, PRIVACY_REPORT_FILE, Bundle, write_atomically
from ..bundles.manifest import Manifest
from ..bundles.onnx_check import check_graph, check_hash
from ..bundles.privacy_report import PrivacyReport
from ..bundles.signature import SIGNATURE_FILE, Signature
from ..bundles.signing_keys import PASSPHRASE_VARIABLE, generate, load_private
from ..errors import ConfigError
from .output import output
from .tables import contract_table, privacy_table, readable_bytes

__all__ = ["BundleArgument", "TrustedKeyOption", "inspect", "keygen", "pack", "sign", "verify"]


BundleArgument = Annotated[Path, typer.Argument(help=f"Folder of the bundle, or its archive ({ARCHIVE_SUFFIX}).")]
TrustedKeyOption = Annotated[
    list[Path] | None,
    typer.Option("--trusted-key", help="Public key (PEM) that must have signed the bundle; may be repeated."),
]


def inspect(bundle: BundleArgument, *, trusted_key: TrustedKeyOption = None) -> None:
    """Show what a bundle sends and answers, who signed it, and check that it is unchanged."""
    opened = Bundle.open(bundle, trusted_keys=trusted_key)
    manifest, report = _check(opened)
    output().print(contract_table(manifest))
    output().print(Text(f"\n{opened.path / DEVICE_GRAPH_FILE} is the file that was exported.", "green"), soft_wrap=True)
    output().print(_signed_by(opened.signature, verified=trusted_key is not None), soft_wrap=True)
    if report is None:
        output().print(Text(f"No privacy report ({PRIVACY_REPORT_FILE}): how much leaks was not measured.", "yellow"))
        return
    output().print(Text(f"\n{report.verdict}", "green" if report.protected else "red"))
    output().print(privacy_table(report))


def pack(
    folder: Annotated[Path, typer.Argument(help="Folder of the bundle.")],
    out: Annotated[Path, typer.Argument(help=f"Archive to write; its name ends in {ARCHIVE_SUFFIX}.")],
) -> None:
    """Write a bundle as one file. The same folder gives the same bytes."""
    if out.suffix != ARCHIVE_SUFFIX:
        raise ConfigError(f"expected a name that ends in {ARCHIVE_SUFFIX}, got {out.name!r}.")
    opened = Bundle.open(folder)
    _check(opened)
    content = opened.pack()
    write_atomically(out, content)
    output().print(Text(f"{out}: {len(opened.files)} files, {readable_bytes(len(content))}."), soft_wrap=True)


def keygen(
    private: Annotated[Path, typer.Argument(help="New file for the private key: keep it where bundles are signed.")],
    public: Annotated[Path, typer.Argument(help="New file for the public key: give it to the devices.")],
) -> None:
    """Make a pair of keys for signing bundles."""
    passphrase = _passphrase()
    made = generate(private, public, passphrase)
    output().print(Text(f"Key {made}\n{private} signs, {public} verifies."), soft_wrap=True)
    if passphrase is None:
        output().print(
            Text(f"{private} is not encrypted: ${PASSPHRASE_VARIABLE} is not set.", "yellow"), soft_wrap=True
        )


def sign(
    bundle: BundleArgument,
    *,
    private_key: Annotated[Path, typer.Option(help=f"Private key (PEM); ${PASSPHRASE_VARIABLE} holds its passphrase.")],
) -> None:
    """Sign every file of a bundle as it is now. Whatever changes afterwards breaks the signature."""
    private = load_private(private_key, _passphrase())
    opened = Bundle.open(bundle)
    _check(opened)
    signature = Signature.make(opened.files, private)
    opened.save_signature(signature)
    count = len({*opened.files} - {SIGNATURE_FILE})
    output().print(Text(f"{bundle}: {count} files, signed by key {signature.key_id}."), soft_wrap=True)


def verify(
    bundle: BundleArgument,
    *,
    trusted_key: Annotated[
        list[Path], typer.Option(help="Public key (PEM) that must have signed it; may be repeated.")
    ],
) -> None:
    """Check that a bundle is what the holder of a key signed, and that it can be used."""
    opened = Bundle.open(bundle, trusted_keys=trusted_key)
    _check(opened)
    output().print(_signed_by(opened.signature, verified=True), soft_wrap=True)


def _check(bundle: Bundle) -> tuple[Manifest, PrivacyReport | None]:
    """Refuse now what a device would refuse later."""
    manifest = Manifest.load(bundle)
    graph, where = bundle.read(DEVICE_GRAPH_FILE), bundle.path / DEVICE_GRAPH_FILE
    check_hash(graph, manifest.contract.device_sha256, where)
    check_graph(graph, where)
    return manifest, PrivacyReport.load(bundle, manifest.contract)


def _signed_by(signature: Signature | None, *, verified: bool) -> Text:
    if signature is None:
        return Text("Not signed.", "yellow")
    if verified:
        return Text(f"Signed by key {signature.key_id}, and unchanged since.", "green")
    return Text(f"Says that key {signature.key_id} signed it; verify that with --trusted-key.", "yellow")


def _passphrase() -> str | None:
    return os.environ.get(PASSPHRASE_VARIABLE) or None
