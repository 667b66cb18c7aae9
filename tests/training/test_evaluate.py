from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from dcp_sdk import PrivateClient
from dcp_sdk.bundles.bundle import Bundle
from dcp_sdk.bundles.manifest import Manifest
from dcp_sdk.bundles.measurements import Control, Reconstruction
from dcp_sdk.bundles.privacy_report import PrivacyReport
from dcp_sdk.errors import BundleError, ConfigError
from tests.benchmarks.monotone_maps import MAPS, disguised
from tests.tiny import PAPER, Tiny
from tests.trained import Trained, train_and_export
from training import data
from training.attacks import (
    ATTACKS,
    COPIES,
    ENSEMBLE,
    LIKELIHOOD,
    RECONSTRUCTIONS,
    AttackSettings,
    Guess,
    Knowledge,
    SearchSettings,
)
from training.attacks.scaling import SCALINGS, ranked
from training.attacks.side_channels import mask_only, numbers_only
from training.audit import Evidence
from training.audit.drawings import Reader, measure_reconstruction
from training.audit.measure import as_control, judge, measure_attack, run_attack, tries
from training.audit.side_channels import measure_side_channels
from training.config import NetworkConfig, Recipe
from training.evaluate import attack_settings, evaluate, without_data
from training.generated import draw_pictures
from training.metrics import balanced_accuracy
from training.payloads import Payloads

LABELS = ("a", "b", "c")
SETTINGS = AttackSettings(
    network=NetworkConfig(split=6),
    classes=3,
    seed=0,
    epochs=8,
    decoder_epochs=12,
    patience=3,
    search_epochs=1,
    search_pairs=200,
    mirror=False,
    trees=20,
)

BRIEF = SearchSettings(targets=2, steps=10, restarts=2, prior_steps=10)


def payloads(count: int, seed: int, *, tell: bool) -> Payloads:
    """Payloads of 4 out of 128 channels; with ``tell`` one of them is brighter according to the label."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    channels = np.sort(rng.permuted(np.tile(np.arange(128), (count, 1)), axis=1)[:, :4], axis=1).astype(np.uint8)
    channels[:, 0] = 0
    features = rng.integers(0, 60, (count, 4, 4, 4)).astype(np.uint8)
    if tell:
        features[:, 0] += (90 * labels)[:, None, None].astype(np.uint8)
    return Payloads(channels, features, labels, np.zeros_like(labels), 128, 0.01)


def control_of(leaked: Payloads, target: Payloads, *, head: float) -> Control:
    """Judge what boosting reads of the task, whose labels these are."""
    return as_control(run_attack("gradient boosting", leaked, target, SETTINGS), target, SETTINGS.classes, head)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_reads_what_is_there(name: str) -> None:
    leaked, target = payloads(400, 0, tell=True), payloads(200, 1, tell=True)
    result = measure_attack(name, leaked, target, SETTINGS, LABELS)
    assert result.balanced_accuracy.low > 0.5
    assert result.trained


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_reads_nothing_where_nothing_is(name: str) -> None:
    result = measure_attack(name, payloads(400, 0, tell=False), payloads(300, 1, tell=False), SETTINGS, LABELS)
    assert result.balanced_accuracy.low < 1 / 3 + 0.05
    assert not result.trained, "knowing pairs by heart is no learning"


def test_an_attack_that_stayed_at_the_prior_did_not_train() -> None:
    leaked = payloads(400, 0, tell=True)
    idle = dataclasses.replace(SETTINGS, epochs=1, trees=1)
    silent = dataclasses.replace(leaked, features=np.zeros_like(leaked.features))
    result = measure_attack("gradient boosting", silent, silent, idle, LABELS)
    assert not result.trained
    assert not result.counts


def test_who_reads_the_task_from_the_same_payloads_counts_though_he_learnt_nothing_else() -> None:
    """The control tells *nothing to learn* from *cannot learn*."""
    leaked, target = payloads(400, 0, tell=True), payloads(200, 1, tell=True)
    control = control_of(leaked, target, head=0.95)
    assert control.passed
    silent = dataclasses.replace(leaked, features=np.zeros_like(leaked.features))
    failed = control_of(silent, silent, head=0.95)
    assert not failed.passed
    idle = measure_attack("gradient boosting", silent, silent, dataclasses.replace(SETTINGS, trees=1), LABELS)
    assert not idle.trained
    assert idle.model_copy(update={"control": control}).counts
    assert not idle.model_copy(update={"control": failed}).counts


def test_reading_the_task_by_luck_is_no_control_though_the_head_does_no_better() -> None:
    silent = dataclasses.replace(payloads(400, 0, tell=False), features=np.zeros((400, 4, 4, 4), np.uint8))
    guessing = control_of(silent, silent, head=0.2)
    assert guessing.balanced_accuracy.value >= (1 / 3 + 0.2) / 2, "halfway to a head that is worse than guessing"
    assert not guessing.passed


def test_fewer_channels_than_the_split_has_are_attacked_by_the_remaining_layers_too() -> None:
    """As a defence sends them that projects: 4 of 4 instead of some of 128."""
    leaked, target = (
        dataclasses.replace(some, channels=np.tile(np.arange(4, dtype=np.uint8), (len(some), 1)), total_channels=4)
        for some in (payloads(400, 0, tell=True), payloads(100, 1, tell=True))
    )
    brief = dataclasses.replace(SETTINGS, epochs=2)
    assert measure_attack("remaining ResNet layers", leaked, target, brief, LABELS).balanced_accuracy.low > 1 / 3


def test_boosting_learns_from_as_few_pairs_as_there_are() -> None:
    few, target = payloads(40, 0, tell=True), payloads(300, 1, tell=True)
    assert measure_attack("gradient boosting", few, target, SETTINGS, LABELS).balanced_accuracy.low > 1 / 3
    fewest = measure_attack("gradient boosting", payloads(14, 0, tell=True), target, SETTINGS, LABELS)
    assert 0 <= fewest.balanced_accuracy.value <= 1, "too few to stop early by: it runs all the same"


def whispering(count: int, seed: int, *, together: float) -> Payloads:
    """Payloads that shout the answer and whisper the attribute; how often the two go together."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    answers = np.where(rng.random(count) < together, labels, 1 - labels)
    values = np.stack([40 * labels, 160 * answers], axis=1) + rng.normal(40, 25, (count, 2))
    channels = np.tile(np.arange(2, dtype=np.uint8), (count, 1))
    features = values.clip(0, 255).astype(np.uint8)[:, :, None, None]
    return Payloads(channels, features, labels, answers, 2, 1 / 255)


@pytest.mark.parametrize("name", ["linear probe", "MLP", "gradient boosting"])
def test_what_goes_together_among_the_leaked_pairs_alone_does_not_distract(name: str) -> None:
    settings = dataclasses.replace(SETTINGS, classes=2, epochs=12)
    target = whispering(1500, 1, together=0.5)

    def read(leaked: Payloads) -> float:
        return measure_attack(name, leaked, target, settings, ("a", "b")).balanced_accuracy.value

    leaked = whispering(1500, 0, together=0.9)
    naive = read(dataclasses.replace(leaked, answers=np.zeros_like(leaked.answers)))
    assert read(leaked) > naive + 0.05
    assert list(tries(leaked, target, settings, [0])) == [("0", leaked, settings)]


def test_what_goes_together_among_the_attacked_pictures_too_is_used() -> None:
    leaked, target = whispering(1500, 0, together=0.9), whispering(1500, 1, together=0.9)
    settings = dataclasses.replace(SETTINGS, classes=2)
    read = {
        key: balanced_accuracy(run_attack("linear probe", pairs, target, how).probabilities.argmax(1), target.labels)
        for key, pairs, how in tries(leaked, target, settings, [0])
    }
    assert read["0, with the answer"].value > read["0"].value + 0.05


def test_dense_puts_each_channel_where_it_belongs() -> None:
    some = payloads(5, 0, tell=True)
    dense = some.dense().numpy()
    assert np.array_equal(dense.any((2, 3)) | (some.mask() > 0), some.mask() > 0)
    for row, ids in enumerate(some.channels):
        assert np.allclose(dense[row, ids], some.features[row] * 0.01)


def test_balanced_accuracy_of_a_constant_answer_is_chance() -> None:
    truth = np.array([0] * 90 + [1] * 10)
    assert balanced_accuracy(np.zeros(100, np.int64), truth).value == 0.5
    assert balanced_accuracy(truth, truth).value == 1


def test_an_archive_is_refused_before_hours_of_attacks(tiny: Tiny, tmp_path: Path) -> None:
    archived = tmp_path / "tiny.dcp"
    archived.write_bytes(Bundle.open(tiny.bundle).pack())
    with pytest.raises(ConfigError, match=r"got the archive .*tiny\.dcp"):
        evaluate(archived, tiny.repository, None, quick=True)


def test_a_bundle_is_measured_and_its_card_says_so(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.evaluate.search_settings", lambda quick, targets: BRIEF)
    bundle = tmp_path / "bundle"
    shutil.copytree(trained.bundle, bundle)
    of_another = Manifest.load(PAPER).contract.digest
    (bundle / "privacy_report.json").write_bytes((PAPER / "privacy_report.json").read_bytes())
    report = evaluate(bundle, trained.repository, None, quick=True)
    assert report.contract_digest != of_another, "an older report does not stand in the way"
    contract = Manifest.load(bundle).contract
    assert PrivacyReport.load(bundle, contract) == report
    assert PrivacyReport.load(trained.bundle, contract) is None
    with pytest.raises(BundleError, match="another bundle"):
        PrivacyReport.load(bundle, contract.model_copy(update={"device_sha256": "0" * 64}))
    with PrivateClient(bundle, f"memory://{trained.repository}") as client:
        assert client.privacy_report == report
    assert report.certificate is not None
    assert report.certificate.capacity_bits >= 8 * contract.payload_bytes - 8 * contract.pruning.kept
    assert report.readout is not None
    assert 1 <= (report.masks or 0) <= report.tested
    assert report.many_frames == (), "nothing is random in this bundle"
    assert [channel.name for channel in report.side_channels] == [
        "mask only",
        "latency of the device graph",
        "the answer alone",
        "the answer with its probabilities",
    ]
    assert report.luck is not None
    assert report.luck.balanced_accuracy.low < report.luck.balanced_accuracy.value < report.luck.balanced_accuracy.high
    assert [attack.name for attack in report.attacks] == [*ATTACKS, ENSEMBLE]
    assert [drawing.name for drawing in report.reconstructions] == list(RECONSTRUCTIONS)
    assert report.panels is not None
    for drawing in report.reconstructions:  # a leaked picture is a person of the data set: shown to nobody
        assert len(drawing.panels) == (0 if drawing.name in COPIES else len(report.panels.pictures)), drawing.name
    assert (bundle / "privacy_report.json").stat().st_size < 500_000
    assert report.utility.pictures == sum(group.pictures for group in report.utility.groups)
    card = (bundle / "MODEL_CARD.md").read_text()
    assert all(attack.name in card for attack in report.attacks)
    assert "What it does not protect against" in card
    assert "None yet" in (trained.bundle / "MODEL_CARD.md").read_text()


def test_who_ranks_best_is_reported_beside_who_answers_best() -> None:
    truth = np.random.default_rng(0).integers(0, 3, 600)
    target = dataclasses.replace(payloads(600, 0, tell=False), labels=truth)
    noise = np.random.default_rng(1).random((600, 3))
    answers = Guess(
        probabilities=np.eye(3)[np.where(noise[:, 0] < 0.2, truth, noise.argmax(1))], training_loss=1, how=""
    )
    ranks = Guess(probabilities=0.1 * noise + 0.1 * np.eye(3)[truth] + [5, 0, 0], training_loss=1, how="")
    result = judge("x", {"0": answers, "1": ranks}, target, target, LABELS)
    assert result.balanced_accuracy.value > 0.4
    assert result.auc is not None
    assert result.auc > 0.9


def test_who_sees_more_frames_of_a_noisy_bundle_is_measured_against_luck(tmp_path: Path) -> None:
    """Every part of an audit that noise brings: who knows it, many frames, a moving face, the best there can be."""
    neck = ["network.bottleneck.channels=3", "network.bottleneck.noise=0.5", "network.bottleneck.bits=4"]
    everything = ["pruning.rule=none", "pruning.ratio=0", "data.generated_pictures=500"]
    pair = train_and_export(tmp_path, "defense.name=latent_pruning", *neck, *everything)
    weak = dataclasses.replace(attack_settings_of(pair), epochs=1, search_epochs=1, trees=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.evaluate.attack_settings", lambda *_, **__: weak)
        report = evaluate(
            pair.bundle,
            pair.repository,
            None,
            attacks=["linear probe", "gradient boosting"],
            seeds=1,
            frames=(2, 40),
            moving=3,
            work=tmp_path / "work",
        )
    assert [attack.name for attack in report.attacks][-2:] == [LIKELIHOOD, ENSEMBLE]
    seen = [(point.frames, point.moving) for point in report.many_frames]
    assert seen == [(2, False), (40, False), (3, True)]
    few, many, _ = report.many_frames
    assert many.balanced_accuracy.value > few.balanced_accuracy.value, "this bundle hides nothing under its noise"
    assert many.luck is not None
    assert many.balanced_accuracy.value > many.luck.balanced_accuracy.high
    assert many.ranking is not None
    assert report.certificate is not None
    assert report.certificate.shuffled_accuracy is not None
    assert few.auc_attack is not None
    assert f"; AUC {few.auc:.3f} (" in (pair.bundle / "MODEL_CARD.md").read_text()
    assert report.protected is False
    assert "of a moving face" in report.verdict


def test_the_answer_alone_is_what_the_head_answers(trained: Trained, tmp_path: Path) -> None:
    """A head whose errors follow the attribute: the true label of the task, in contrast, would tell nothing."""
    splits = data.load(Recipe.model_validate(trained.manifest.provenance.settings).data, None)
    evidence = Evidence(trained.bundle, trained.manifest, splits, None, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.audit.side_channels.answered", lambda _, pictures, __: tells(pictures, splits))
        told = {each.name: each for each in measure_side_channels(evidence, trained.repository, SETTINGS)}
    honest = {each.name: each for each in measure_side_channels(evidence, trained.repository, SETTINGS)}
    for name in ("the answer alone", "the answer with its probabilities"):
        assert not told[name].silent
        assert told[name].balanced_accuracy.value > honest[name].balanced_accuracy.value + 0.1


def tells(pictures: np.ndarray, splits: data.Splits) -> np.ndarray:
    """Answer class 0 for the first group, whatever the task."""
    side = splits.train if len(pictures) == len(splits.train) else splits.val
    first = side.sensitive[: len(pictures)] == 0
    return np.stack([first, ~first], axis=1).astype(np.float32)


def attack_settings_of(pair: Trained) -> AttackSettings:
    recipe = Recipe.model_validate(pair.manifest.provenance.settings)
    return attack_settings(recipe, len(pair.manifest.contract.sensitive.labels), 0, quick=True)


def test_mistakes_are_named(trained: Trained, tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match="gradient boosting"):
        evaluate(trained.bundle, trained.repository, None, attacks=["guessing"])
    with pytest.raises(ConfigError, match="needs an adversary"):
        evaluate(trained.bundle, trained.repository, None, attacks=["decoder"])
    with pytest.raises(ConfigError, match=r"provenance\.settings"):
        evaluate(tiny.bundle, tiny.repository, None)


def test_data_with_other_labels_are_refused_before_hours_of_attacks(trained: Trained, tmp_path: Path) -> None:
    bundle = shutil.copytree(trained.bundle, tmp_path / "bundle")
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    manifest["contract"]["sensitive"]["labels"].reverse()
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ConfigError, match="data do not fit the bundle"):
        evaluate(bundle, trained.repository, None)


@pytest.mark.parametrize("name", [name for name in MAPS if name != "identity"])
def test_ranks_do_not_change_under_a_monotone_map(name: str) -> None:
    """An attacker undoes any increasing map of a channel's values for free: the map must not look like protection."""
    leaked, target = payloads(300, 0, tell=True), payloads(50, 1, tell=True)
    plain, mapped = ranked(leaked)(target), ranked(disguised(leaked, name))(disguised(target, name))
    assert np.allclose(plain.features, mapped.features, atol=2e-3)
    assert np.ptp(plain.features) > 0.9


@pytest.mark.parametrize("name", SCALINGS)
def test_what_was_pruned_stays_zero(name: str) -> None:
    leaked = payloads(300, 0, tell=True)
    scaled = SCALINGS[name](leaked)(leaked)
    pruned = scaled.dense().numpy()[leaked.mask() == 0]
    assert not pruned.any()
    assert np.isfinite(scaled.values()).all()


def test_payloads_that_no_network_can_train_on_are_the_priors() -> None:
    """Values beyond float16 after every scaling but the rank: the attack survives, and the rank still reads them."""
    leaked, target = payloads(400, 0, tell=True), payloads(200, 1, tell=True)
    heavy = [dataclasses.replace(some, features=np.exp(30 * some.values()), scale=1.0) for some in (leaked, target)]
    thorough = dataclasses.replace(SETTINGS, search_epochs=3, search_pairs=600)
    result = measure_attack("batch-norm CNN", heavy[0], heavy[1], thorough, LABELS)
    assert result.how.startswith("rank-transformed")
    assert result.balanced_accuracy.low > 0.5


def test_side_channels_speak_when_there_is_something_to_say() -> None:
    leaked, target = payloads(400, 0, tell=False), payloads(300, 1, tell=False)
    silent = mask_only(leaked, target, SETTINGS)
    assert balanced_accuracy(silent.probabilities.argmax(1), target.labels).low < 1 / 3 + 0.05
    for some in (leaked, target):
        some.channels[:, 1] = 1 + some.labels  # the mask tells the label
        some.channels[:, 2:] = [100, 101]
    told = mask_only(leaked, target, SETTINGS)
    assert balanced_accuracy(told.probabilities.argmax(1), target.labels).low > 0.9
    slow = numbers_only((leaked.labels * 2.0, leaked), (target.labels * 2.0, target), SETTINGS)
    assert balanced_accuracy(slow.probabilities.argmax(1), target.labels).low > 0.9


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


@pytest.mark.parametrize("words", [["--data", "/faces/"], ["--data=/faces"], ["--data", "/faces", "--quick"]])
def test_where_somebody_keeps_faces_is_not_published(words: list[str]) -> None:
    told = without_data(["--bundle", "b", *words])
    assert not any("faces" in word for word in told)
    assert told[:2] == ["--bundle", "b"]
    assert [word for word in told if "DIR" in word] in (["DIR"], ["--data=DIR"])
