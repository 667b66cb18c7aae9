from __future__ import annotations

import numpy as np
import pytest

from dcp_sdk import ConfigError, Prediction, ServerRejected, Timings, mean_probabilities
from dcp_sdk.predictions import decode_answer
from tests import tiny as graph

CONTRACT = graph.contract("0" * 64, "1" * 64)


def rows(*values: tuple[float, ...], dtype: str = "float32") -> np.ndarray:
    return np.array(values, dtype)


def test_answers_are_averaged_label_by_label() -> None:
    timings = Timings(**dict.fromkeys(Timings.__slots__, 0.0))

    def answered(**probabilities: float) -> Prediction:
        return Prediction(
            label="no",
            index=0,
            probabilities=probabilities,
            kept_channels=(),
            bytes_sent=8,
            frame_age_ms=0,
            timings=timings,
            provider="cpu",
            server="grpc://a:1",
        )

    mean = mean_probabilities([answered(no=0.9, yes=0.1), answered(no=0.3, yes=0.7)])
    assert mean == pytest.approx({"no": 0.6, "yes": 0.4})
    for wrong in ([], [answered(no=1.0, yes=0.0), answered(a=1.0, b=0.0)]):
        with pytest.raises(ConfigError, match="predictions of one bundle"):
            mean_probabilities(wrong)


def test_probabilities_pass_unchanged() -> None:
    answer = rows((0.25, 0.75), (1, 0), (0.4995, 0.5))
    np.testing.assert_array_equal(decode_answer(CONTRACT, answer, 3), answer)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (None, "NoneType"),
        (rows((0.5, 0.5), dtype="float64"), "float64"),
        (rows((0.2, 0.3, 0.5)), "shape"),
        (rows((0.5, 0.5))[0], "shape"),
        (rows((0.5, 0.5), (0.5, 0.5)), "got 2"),
        (np.zeros((0, 2), np.float32), "shape"),
        (rows((1.5, -0.5)), "outside"),
        (rows((np.nan, 1)), "not a number"),
        (rows((np.inf, 0)), "outside"),
        (rows((0.4, 0.5)), "sum to 1"),
        (rows((0, 0)), "sum to 1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_anything_else_is_refused(answer: object, says: str) -> None:
    with pytest.raises(ServerRejected, match=says):
        decode_answer(CONTRACT, answer, 1)
