"""What a report concludes from its figures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from dcp_sdk.bundles.bundle import PRIVACY_REPORT_FILE
from dcp_sdk.bundles.manifest import Manifest
from dcp_sdk.bundles.measurements import (
    AttackResult,
    Certificate,
    Confusion,
    FramesPoint,
    Interval,
    LeakedPoint,
    Luck,
    Reconstruction,
    SideChannel,
    Utility,
)
from dcp_sdk.bundles.privacy_report import PrivacyReport
from dcp_sdk.errors import BundleError
from tests.tiny import SHIPPED

CLEAR, BETRAYED = (Interval(value=value, low=value - 0.02, high=value + 0.02) for value in (0.22, 0.5))


def attack(read: Interval, training_loss: float = 1.0) -> AttackResult:
    return AttackResult(
        name="MLP",
        balanced_accuracy=read,
        accuracy=read,
        recalls={},
        training_loss=training_loss,
        prior_entropy=1.6,
        minutes=1,
    )


def report(**more: object) -> PrivacyReport:
    return PrivacyReport(
        contract_digest="0" * 64,
        sensitive="race",
        chance=0.2,
        majority=0.235,
        leaked=1000,
        tested=500,
        utility=Utility(pictures=500, balanced_accuracy=BETRAYED, groups=(), confusion=Confusion(labels=(), counts=())),
        attacks=(attack(CLEAR),),
        seed=0,
        created="today",
        hardware="here",
        command="this",
    ).model_copy(update=more)


def drawing(mse: float, read: Interval = CLEAR) -> Reconstruction:
    return Reconstruction(
        name="decoder", pictures=5, ssim=0.3, psnr_db=15, mse=mse, mean_picture_ssim=0.4, attribute=read
    )


def test_what_nobody_reads_is_protected_against_what_was_tried() -> None:
    assert report().protected is True
    assert "were tried" in report().verdict


@pytest.mark.parametrize(
    "leak",
    [
        {"attacks": (attack(CLEAR), attack(BETRAYED))},
        {"many_frames": (FramesPoint(frames=100, attack="MLP", balanced_accuracy=BETRAYED),)},
        {"reconstructions": (drawing(0.1, BETRAYED),)},
        {"side_channels": (SideChannel(name="mask only", balanced_accuracy=BETRAYED, chance=0.2),)},
    ],
)
def test_one_way_to_read_it_is_enough(leak: dict[str, object]) -> None:
    assert report(**leak).protected is False
    assert report(**leak).verdict.startswith("NOT PROTECTED")


@pytest.mark.parametrize("majority", [0.235, 0.9])
def test_the_bar_lies_ten_points_above_guessing_however_large_the_largest_group_is(majority: float) -> None:
    def told(value: float, reach: float = 0.01) -> bool | None:
        read = Interval(value=value, low=value - reach, high=value + reach)
        return report(majority=majority, attacks=(attack(read),)).protected

    assert told(0.28) is True
    assert told(0.31) is False
    assert told(0.29, reach=0.05) is None, "too few pictures to tell"
    assert "10 points of guessing" in report(majority=majority).verdict


def test_what_is_more_than_guessing_is_said_and_few_pairs_count_as_well() -> None:
    more = Interval(value=0.26, low=0.23, high=0.29)
    frames = report(many_frames=(FramesPoint(frames=100, attack="MLP", balanced_accuracy=more),))
    assert frames.protected
    assert frames.verdict.endswith("and that is more than guessing.")
    assert report(leaked_curve=(LeakedPoint(pairs=70, attack="MLP", balanced_accuracy=BETRAYED),)).protected is False


def test_more_than_guessing_is_more_than_the_luckiest_guesser_reads() -> None:
    """Of many adversaries that guess, the best is above chance by more than its interval often enough."""
    read = Interval(value=0.225, low=0.205, high=0.245)
    lucky, unlucky = (
        Luck(
            shuffles=1000,
            balanced_accuracy=Interval(value=high - 0.01, low=high - 0.02, high=high),
            auc=Interval(value=0.51, low=0.49, high=0.53),
        )
        for high in (0.23, 0.22)
    )
    assert report(attacks=(attack(read),)).verdict.endswith("and that is more than guessing.")
    assert "more than guessing" not in report(attacks=(attack(read),), luck=lucky).verdict
    assert report(attacks=(attack(read),), luck=unlucky).verdict.endswith("and that is more than guessing.")
    seen = FramesPoint(frames=100, attack="MLP", balanced_accuracy=read, luck=lucky)
    assert "more than guessing" not in report(many_frames=(seen,)).verdict
    assert "more than guessing" in report(many_frames=(seen.model_copy(update={"luck": unlucky}),)).verdict


def test_who_ranks_better_than_guessing_tells_something_whatever_it_answers() -> None:
    def ranks(auc: float, error: float = 0.01, training_loss: float = 1.0) -> AttackResult:
        read = Interval(value=0.2, low=0.18, high=0.22)
        return attack(read, training_loss).model_copy(update={"auc": auc, "auc_error": error})

    assert report(attacks=(ranks(0.51),)).verdict == report(attacks=(ranks(0.49),)).verdict
    told = report(attacks=(ranks(0.49), ranks(0.54)))
    assert told.protected is True
    assert "best by MLP: AUC 0.540 (0.520 to 0.560), guessing has 0.500." in told.verdict
    luck = Luck(shuffles=9, balanced_accuracy=CLEAR, auc=Interval(value=0.52, low=0.5, high=0.55))
    assert "AUC" not in told.model_copy(update={"luck": luck}).verdict
    betrayed = report(attacks=(ranks(0.66, 0.01),))
    assert betrayed.protected is False
    assert betrayed.verdict.endswith(
        "What decides is how MLP ranks people, by AUC: 66.0 % (64.0 to 68.0), and the bar is 64.0 %."
    )
    assert report(attacks=(ranks(0.62, 0.03),)).protected is None
    frames = FramesPoint(frames=100, attack="MLP", balanced_accuracy=CLEAR, auc=0.7, auc_error=0.01)
    assert report(many_frames=(frames,)).protected is False
    channel = SideChannel(name="the answer", balanced_accuracy=CLEAR, chance=0.2, auc=0.7, auc_error=0.01)
    assert report(side_channels=(channel,)).protected is False
    near_guessing = ranks(0.54, training_loss=1.6)
    assert near_guessing.counts, "its loss stayed near guessing, and yet it learnt something"
    assert near_guessing.note.endswith("its loss stayed near guessing")
    assert report(attacks=(near_guessing,)).protected is None, "who cannot read such payloads shows no protection"
    assert not ranks(0.51, training_loss=1.6).counts


def test_weak_attackers_prove_nothing() -> None:
    assert report(quick=True).protected is None
    idle = report(attacks=(attack(BETRAYED, training_loss=1.6),))
    assert idle.protected is None
    assert "nothing is known" in idle.verdict


def test_the_verdict_tells_what_a_stream_gives_away() -> None:
    frames = (FramesPoint(frames=10, attack="a", balanced_accuracy=CLEAR),)
    assert "10 frames of one picture" in report(many_frames=frames).verdict
    moving = FramesPoint(frames=10, moving=True, attack="a", balanced_accuracy=BETRAYED)
    told = report(many_frames=(*frames, moving))
    assert told.protected is False
    assert "From 10 frames of one picture: 22.0 %" in told.verdict
    assert "From 10 frames of a face moved by simulation: 50.0 %" in told.verdict
    fewer = frames[0].model_copy(update={"balanced_accuracy": Interval(value=0.24, low=0.22, high=0.26)})
    more = FramesPoint(frames=100, attack="a", balanced_accuracy=CLEAR)
    said = report(many_frames=(fewer, more)).verdict
    assert "From 10 frames of one picture: 24.0 %" in said, "who has a hundred has ten of them, too"
    assert "100 frames" not in said


def test_who_ranks_best_from_frames_is_named_though_another_answers_best() -> None:
    luck = Luck(shuffles=9, balanced_accuracy=CLEAR, auc=Interval(value=0.51, low=0.5, high=0.52))
    seen = FramesPoint(
        frames=10, attack="MLP", balanced_accuracy=CLEAR, auc=0.53, auc_error=0.01, auc_attack="probe", luck=luck
    )
    assert "best by probe from 10 frames of one picture: AUC 0.530" in report(many_frames=(seen,)).verdict
    lucky = seen.model_copy(update={"auc": 0.515})
    assert "AUC" not in report(many_frames=(lucky,)).verdict
    assert "how probe with 10 frames" in report(many_frames=(seen.model_copy(update={"auc": 0.7}),)).verdict


def test_one_group_that_is_outed_is_not_protected_however_little_the_mean_says() -> None:
    """One group in three is named for what it is, twice as often as the others are; the mean hides it."""
    counts = ((160, 120, 120), (20, 190, 190), (20, 190, 190))
    outing = attack(CLEAR).model_copy(update={"confusion": Confusion(labels=("a", "b", "c"), counts=counts)})
    told = report(attacks=(outing,))
    assert told.most_exposed is not None
    assert told.most_exposed[0] == "a"
    assert told.protected is False
    assert "What decides is one group: a, called so more often than others by +35.0" in told.verdict

    def by_luck(most: float) -> Luck:
        exposure = Interval(value=most / 2, low=0, high=most)
        return Luck(shuffles=9, balanced_accuracy=CLEAR, auc=None, exposure=exposure)

    assert told.model_copy(update={"luck": by_luck(0.12)}).protected is False
    assert told.model_copy(update={"luck": by_luck(0.4)}).protected is True, "of a few pictures luck exposes as much"
    few = by_luck(0.4).model_copy(update={"exposures": {"a": 0.12, "b": 0.4, "c": 0.12}})
    assert told.model_copy(update={"luck": few}).protected is False, (
        "of another group, which excuses this one of nothing"
    )


def test_one_group_that_many_frames_out_is_not_protected() -> None:
    def seen(luck: float, **more: object) -> PrivacyReport:
        exposure = Interval(value=luck / 2, low=0, high=luck)
        by_luck = Luck(shuffles=9, balanced_accuracy=CLEAR, auc=None, exposure=exposure, exposures={"a": luck})
        point = FramesPoint(frames=100, attack="MLP", balanced_accuracy=CLEAR, luck=by_luck)
        return report(many_frames=(point.model_copy(update=more),))

    outed = {"exposures": {"a": Interval(value=0.3, low=0.2, high=0.4)}}
    assert seen(0.12).protected is True
    assert seen(0.4, **outed).protected is True
    assert seen(0.12, **outed).protected is False
    said = (
        "one group: a, called so more often than others by +30.0 (20.0 to 40.0) points, from 100 frames of one picture."
    )
    assert seen(0.12, **outed).verdict.endswith(said)
    nearly = Interval(value=0.56, low=0.54, high=0.58)
    before = seen(0.06, balanced_accuracy=nearly).model_copy(update={"chance": 0.5, "attacks": (attack(nearly),)})
    assert before.protected is False, "of two groups each is exposed by twice what accuracy is beyond guessing"


def test_knowing_pairs_by_heart_is_no_learning() -> None:
    by_heart = attack(CLEAR, training_loss=0.3).model_copy(update={"held_out_loss": 1.6})
    assert not by_heart.trained
    assert report(attacks=(by_heart,)).protected is None
    assert by_heart.model_copy(update={"held_out_loss": 1.2}).trained


def test_an_attack_that_beats_the_certificate_is_named() -> None:
    certificate = Certificate(capacity_bits=32, reconstruction_mse=0.02, best_accuracy=0.25)
    assert report(certificate=certificate, reconstructions=(drawing(0.03),)).violations == ()
    assert report(attacks=(attack(BETRAYED),), reconstructions=(drawing(0.001),)).violations == ()
    broken = report(certificate=certificate, attacks=(attack(BETRAYED),), reconstructions=(drawing(0.001),))
    reads, draws = broken.violations
    assert "25.0 % is possible" in reads
    assert "0.0010" in draws
    few = drawing(0.019).model_copy(update={"mse_error": 0.001})
    assert report(certificate=certificate, reconstructions=(few,)).violations == (), "within what few pictures show"


def test_a_group_is_exposed_by_what_is_known_of_it_not_by_how_often_it_is_named() -> None:
    def intervals(*counts: tuple[int, ...]) -> dict[str, Interval]:
        answers = Confusion(labels=("a", "b", "c"), counts=counts)
        return attack(CLEAR).model_copy(update={"confusion": answers}).exposures

    def exposures(*counts: tuple[int, ...]) -> dict[str, float]:
        return {group: exposure.value for group, exposure in intervals(*counts).items()}

    assert exposures((0, 100, 0), (0, 50, 0), (0, 10, 0)) == {"a": 0, "b": 0, "c": 0}, "always the same answer"
    assert exposures((10, 0, 0), (0, 10, 0), (0, 0, 10)) == {"a": 1, "b": 1, "c": 1}
    assert exposures((60, 40, 0), (10, 40, 50), (20, 30, 50))["a"] == pytest.approx(0.6 - 0.15)
    assert attack(CLEAR).exposures == {}
    # Who guesses one group in three is outside of the interval once in twenty times.
    counts = np.random.default_rng(0).multinomial(90, [1 / 3] * 3, (2000, 3))
    covered = [one.low <= 0 <= one.high for table in counts for one in intervals(*map(tuple, table.tolist())).values()]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.01)


def test_who_reads_far_beyond_guessing_counts_however_it_came_to_that() -> None:
    """A loss near the prior and a control that failed excuse nobody who answers rightly."""
    groups = dict.fromkeys("abcde", 0.45)
    reads = Interval(value=0.45, low=0.43, high=0.47)
    one = attack(reads, training_loss=1.6).model_copy(update={"recalls": groups})
    assert not one.trained
    assert one.counts
    assert not one.model_copy(update={"balanced_accuracy": Interval(value=0.2, low=0.18, high=0.22)}).counts
    assert report(attacks=(attack(CLEAR), one)).protected is False


def test_without_some_of_the_adversaries_nothing_is_called_protected() -> None:
    assert report(attacks=(attack(CLEAR),)).protected is True
    few = report(attacks=(attack(CLEAR),), untried=("gradient boosting",))
    assert few.protected is None
    assert few.verdict.startswith("Not known, without gradient boosting")
    assert report(attacks=(attack(BETRAYED),), untried=("gradient boosting",)).protected is False
    idle = attack(CLEAR, training_loss=1.6).model_copy(update={"name": "ViT"})
    assert report(attacks=(attack(CLEAR), idle)).verdict.startswith(
        "Not known: these do not work on such payloads: ViT"
    )


def test_a_few_leaked_pairs_show_no_protection() -> None:
    assert report(leaked=499).verdict.startswith("Not known, with 499 leaked pairs: 500 are the least")
    assert report(leaked=500).protected is True
    assert report(leaked=60, attacks=(attack(BETRAYED),)).protected is False


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"chance": 0.9}, r"guessing gives 0.2, got race with 0.9"),
        ({"chance": float("nan")}, "chance"),
        ({"sensitive": "shoe size"}, "got shoe size with 0.2"),
        ({"attacks": (attack(CLEAR).model_copy(update={"auc": float("nan")}),)}, "auc"),
        ({"contract_digest": "1" * 64}, "another bundle"),
    ],
)
def test_a_report_that_moves_its_own_bar_is_refused(more: dict[str, object], message: str, tmp_path: Path) -> None:
    contract = Manifest.load(SHIPPED).contract
    shutil.copytree(SHIPPED, tmp_path / "bundle")
    fitting = report(contract_digest=contract.digest)
    text = json.dumps(fitting.model_copy(update=more).model_dump())  # NaN stays NaN
    (tmp_path / "bundle" / PRIVACY_REPORT_FILE).write_text(text)
    with pytest.raises(BundleError, match=message):
        PrivacyReport.load(tmp_path / "bundle", contract)


def test_what_an_audit_of_before_did_not_measure_is_named(tmp_path: Path) -> None:
    """The shipped bundle draws noise: without who knows it, without frames, nothing is known."""
    contract = Manifest.load(SHIPPED).contract
    shutil.copytree(SHIPPED, tmp_path / "bundle")
    report(contract_digest=contract.digest).save(tmp_path / "bundle")
    loaded = PrivacyReport.load(tmp_path / "bundle", contract)
    assert loaded is not None
    frames = "many frames, frames of a face that moves"
    missing = f"likelihood under the noise, {frames}, drawings, side channels, what luck would read"
    assert loaded.verdict.startswith(f"Not known, without {missing}: MLP reads")
    loaded.save(tmp_path / "bundle")
    assert PrivacyReport.load(tmp_path / "bundle", contract) == loaded
