"""What is drawn from payloads, and what somebody reads of the drawings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import cv2
import numpy as np
import pytest

from dcp_sdk.bundles.measurements import Reconstruction
from tests.trained import Trained
from tests.training.payloads import BRIEF, SETTINGS
from training.attacks import ATTACKS, AttackSettings, Guess, Knowledge
from training.audit.drawings import Reader, measure_reconstruction
from training.generated import draw_pictures
from training.payloads import Payloads


def test_the_decoder_draws_what_a_payload_holds_and_no_more(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """Payloads that are small copies of the pictures give them away; noise gives the mean picture at best.

    So do the drawings with the sensitive attribute, here the tint.
    """

    def learn_quickly(known: Payloads, settings: AttackSettings) -> Callable[[Payloads], Guess]:
        return lambda asked: ATTACKS["linear probe"](known, asked, settings)

    monkeypatch.setattr("training.audit.drawings.learn_pictures", learn_quickly)  # a ResNet takes minutes
    pictures, _, tints = draw_pictures(240, 32, seed=5)
    smooth = np.stack([cv2.GaussianBlur(picture, (0, 0), 3) for picture in pictures])
    small = smooth[:, 2::4, 2::4].transpose(0, 3, 1, 2)
    channels = np.tile(np.arange(3, dtype=np.uint8), (240, 1))
    labels = np.unique(tints, return_inverse=True)[1]
    noise = np.random.default_rng(0).integers(0, 256, small.shape).astype(np.uint8)
    leaked, target = np.arange(200), np.arange(200, 240)

    def drawn(features: np.ndarray) -> Reconstruction:
        known = Payloads(channels, features, labels, np.zeros_like(labels), 3, 1 / 255)
        settings = dataclasses.replace(SETTINGS, epochs=4)
        knowledge = Knowledge(trained.bundle, trained.manifest.contract, known[leaked], smooth[leaked], settings, BRIEF)
        reader = Reader(knowledge)
        return measure_reconstruction("decoder", reader, known[target], smooth[target], known[target[:2]])

    open_book, closed_book = drawn(np.ascontiguousarray(small)), drawn(noise)
    assert open_book.ssim > open_book.mean_picture_ssim + 0.1
    assert closed_book.ssim < closed_book.mean_picture_ssim + 0.05
    assert open_book.psnr_db > closed_book.psnr_db
    assert open_book.attribute is not None
    assert closed_book.attribute is not None
    assert open_book.attribute.low > 0.5
    assert closed_book.attribute.low < 1 / 3 + 0.05
    assert closed_book.pictures_attribute is not None
    assert closed_book.pictures_attribute.low > 0.5
    assert len(open_book.panels) == 2
