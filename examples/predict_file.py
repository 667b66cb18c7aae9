"""Predict what picture files show: the SDK in ten lines.

python examples/predict_file.py --bundle bundles/gender_112 --server grpc://localhost:8001 face.jpg
"""

import argparse
import sys

from dcp_sdk import DCPError, PrivateClient

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--bundle", required=True, help="folder of the bundle")
parser.add_argument("--server", required=True, help="grpc://HOST:PORT or memory://MODEL_REPOSITORY")
parser.add_argument("pictures", nargs="+")
options = parser.parse_args()

try:
    with PrivateClient(options.bundle, options.server) as client:
        for picture in options.pictures:
            prediction = client.predict(picture)
            print(f"{picture}: {prediction.label} {prediction.probability:.1%}, {prediction.bytes_sent} bytes")
except DCPError as error:
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    sys.exit(2)
