"""A whole audit, and what it refuses before it begins."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dcp_sdk import PrivateClient
from dcp_sdk.bundles.bundle import Bundle
from dcp_sdk.bundles.manifest import Manifest
from dcp_sdk.bundles.measurements import LIKELIHOOD
from dcp_sdk.bundles.privacy_report import PrivacyReport
from dcp_sdk.errors import BundleError, ConfigError
from tests.tiny import PAPER, ROOT, Tiny
from tests.trained import Trained, train_and_export
from tests.training.payloads import BRIEF
from training.attacks import ATTACKS, COPIES, ENSEMBLE, RECONSTRUCTIONS, AttackSettings
from training.config import Recipe
from training.evaluate import attack_settings, evaluate, without_data


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
            moving=(3, 5),
            work=tmp_path / "work",
        )
    assert [attack.name for attack in report.attacks][-2:] == [LIKELIHOOD, ENSEMBLE]
    seen = [(point.frames, point.moving) for point in report.many_frames]
    assert seen == [(2, False), (40, False), (3, True), (5, True)]
    few, many, *_ = report.many_frames
    assert many.balanced_accuracy.value > few.balanced_accuracy.value, "this bundle hides nothing under its noise"
    assert many.luck is not None
    assert many.balanced_accuracy.value > many.luck.balanced_accuracy.high
    assert many.ranking is not None
    assert report.certificate is not None
    assert report.certificate.shuffled_accuracy is not None
    assert few.auc_attack is not None
    assert f"; AUC {few.auc:.3f} (" in (pair.bundle / "MODEL_CARD.md").read_text()
    assert report.protected is False
    assert "of a face moved by simulation" in report.verdict


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


def test_a_quick_look_does_not_claim_more(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "training.evaluate", "--bundle", str(tmp_path), "--quick", "--seeds", "3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "leave out --seeds and --moving" in done.stderr


@pytest.mark.parametrize("words", [["--data", "/faces/"], ["--data=/faces"], ["--data", "/faces", "--quick"]])
def test_where_somebody_keeps_faces_is_not_published(words: list[str]) -> None:
    told = without_data(["--bundle", "b", *words])
    assert not any("faces" in word for word in told)
    assert told[:2] == ["--bundle", "b"]
    assert [word for word in told if "DIR" in word] in (["DIR"], ["--data=DIR"])
