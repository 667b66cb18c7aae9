"""A kiosk that nobody visits: predict what a camera sees, outlive outages of the server, show systemd that it lives.

python examples/kiosk.py --bundle bundle.dcp --trusted-key public.pem --server grpcs://HOST:PORT

Exit status 78 says that something is wrong from the start which no new start mends. See docs/deploy_device.md.
"""

import argparse
import os
import signal
import socket
import sys
import time
from collections import deque
from pathlib import Path

from dcp_sdk import (
    BundleError,
    ConfigError,
    ContractMismatch,
    DCPError,
    DeadlineExceeded,
    Prediction,
    PrivateClient,
    Security,
    ServerError,
    mean_probabilities,
)

PAUSE_S = 1.0
FRAMES = 10
"""Over which answers are averaged: noise makes single ones doubtful. Whoever stands there must stay for so long."""
NEEDS_SOMEBODY = 78
"""sysexits.h calls it EX_CONFIG."""


def tell_systemd(state: str) -> None:
    """Say ``READY=1`` or ``WATCHDOG=1``, if systemd has started us."""
    if address := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.sendto(state.encode(), address.replace("@", "\0", 1))


def run(client: PrivateClient, source: int | str) -> None:
    """Predict for ever. Whoever answers, or knows why there is no answer, is alive; who hangs is killed by systemd."""
    recent: deque[Prediction] = deque(maxlen=FRAMES)
    while True:
        try:
            for prediction in client.stream(source):
                tell_systemd("WATCHDOG=1")
                recent.append(prediction)
                mean = mean_probabilities(recent)
                label = max(mean, key=mean.__getitem__)
                print(f"{label} {mean[label]:.0%}", flush=True)
        except (ServerError, DeadlineExceeded) as error:
            tell_systemd("WATCHDOG=1")
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            time.sleep(PAUSE_S)


def main() -> None:
    """Read the command line, and run until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", required=True, help="folder of the bundle, or its archive")
    parser.add_argument("--server", required=True, action="append", help="address; give it again for another server")
    parser.add_argument("--trusted-key", type=Path, action="append", help="public key that must have signed the bundle")
    parser.add_argument("--ca-file", type=Path, help="authorities that may vouch for the server")
    parser.add_argument("source", nargs="?", default="0", help="number of the camera, URL, video file or folder")
    options = parser.parse_args()
    source = int(options.source) if options.source.isdigit() else options.source
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # systemd's LoadCredential=key:… puts the server's access key there, readable by this service alone.
    key = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nowhere"), "key")
    security = Security(ca_file=options.ca_file, api_key_file=key if key.exists() else None)
    ready = False
    try:
        with PrivateClient(
            options.bundle, options.server, trusted_keys=options.trusted_key, security=security
        ) as client:
            tell_systemd("READY=1")
            ready = True
            run(client, source)
    except DCPError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        # What was well once may be well again.
        lasting = isinstance(error, ConfigError | BundleError) and not isinstance(error, ContractMismatch)
        sys.exit(NEEDS_SOMEBODY if lasting and not ready else 1)


if __name__ == "__main__":
    main()
