"""Predict what a camera sees, frame by frame, until Ctrl-C. A video file or a folder of pictures works too.

The noise that protects a picture makes single answers doubtful, so the mean over the last frames is shown. It costs
privacy: whoever averages answers averages payloads, too. A report says how much 10 and 100 frames tell.

python examples/camera.py --bundle bundles/gender_112 --server grpc://localhost:8001
"""

import argparse
import contextlib
import sys
from collections import deque

from dcp_sdk import DCPError, PrivateClient, mean_probabilities

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--bundle", required=True, help="folder of the bundle")
parser.add_argument("--server", required=True, help="grpc://HOST:PORT or memory://MODEL_REPOSITORY")
parser.add_argument("source", nargs="?", default="0", help="number of the camera, URL, video file or folder")
parser.add_argument("--average", type=int, default=10, help="frames in the mean; 1 shows each answer as it is")
options = parser.parse_args()
recent = deque(maxlen=options.average)
source = int(options.source) if options.source.isdigit() else options.source

try:
    with PrivateClient(options.bundle, options.server) as client, contextlib.suppress(KeyboardInterrupt):
        for prediction in client.stream(source):
            recent.append(prediction)
            mean = mean_probabilities(recent)
            label = max(mean, key=mean.__getitem__)
            print(
                f"{label} {mean[label]:.1%}, "
                f"frame {prediction.frame_age_ms:.0f} ms old, network {prediction.timings.network_ms:.1f} ms"
            )
except DCPError as error:
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    sys.exit(2)
