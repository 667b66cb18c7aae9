"""Predict what picture files show: the SDK in ten lines.

python examples/predict_file.py --bundle bundles/gender_112 --server grpc://localhost:8001 face.jpg
"""

import argparse

from dcp_sdk import PrivateClient

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--bundle", required=True, help="folder of the bundle")
parser.add_argument("--server", required=True, help="grpc://HOST:PORT or memory://MODEL_REPOSITORY")
parser.add_argument("pictures", nargs="+")
options = parser.parse_args()

with PrivateClient(options.bundle, options.server) as client:
    for picture in options.pictures:
        prediction = client.predict(picture)
        print(f"{picture}: {prediction.label} {prediction.probability:.1%}, {prediction.bytes_sent} bytes")
