"""Predict what a camera sees, frame by frame, until Ctrl-C. A video file or a folder of pictures works too.

python examples/camera.py --bundle bundles/gender_112 --server grpc://localhost:8001
"""

import argparse
import contextlib

from dcp_sdk import PrivateClient

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--bundle", required=True, help="folder of the bundle")
parser.add_argument("--server", required=True, help="grpc://HOST:PORT or memory://MODEL_REPOSITORY")
parser.add_argument("source", nargs="?", default="0", help="number of the camera, URL, video file or folder")
options = parser.parse_args()
source = int(options.source) if options.source.isdigit() else options.source

with PrivateClient(options.bundle, options.server) as client, contextlib.suppress(KeyboardInterrupt):
    for prediction in client.stream(source):
        print(
            f"{prediction.label} {prediction.probability:.1%}, "
            f"frame {prediction.frame_age_ms:.0f} ms old, network {prediction.timings.network_ms:.1f} ms"
        )
