"""``MODEL_CARD.md``: what a bundle is, how it came about, what was measured, and what it does not protect against."""

from __future__ import annotations

from dcp_sdk.bundles.manifest import Manifest, Provenance
from dcp_sdk.bundles.measurements import percent, share
from dcp_sdk.bundles.privacy_report import PrivacyReport
from dcp_sdk.errors import ConfigError

from ..config import Recipe
from .statements import area, checked, draws, exposed, luck, ranked_from_frames, statements, unlike_trained

__all__ = ["render"]


def render(manifest: Manifest, report: PrivacyReport | None = None) -> str:
    """Return the card as Markdown.

    Args:
        manifest: Of the bundle.
        report: Measurements of ``training.evaluate``; None says that there are none.
    """
    sections = [_head(manifest), _training(manifest), _limits(manifest)]
    sections[1:1] = [_utility(report), _privacy(report)] if report else [_UNMEASURED]
    return "\n\n".join(sections) + "\n"


_UNMEASURED = """## Measurements

None yet. `python -m training.evaluate --bundle DIR --model-repository DIR --data DIR` makes them and writes them here.
Until then nothing is known about what this bundle hides."""


def _head(manifest: Manifest) -> str:
    contract, pruning = manifest.contract, manifest.contract.pruning
    height, width = contract.values_shape[-2:]
    rule = {
        "dynamic": "the pruner's choice for this very picture",
        "random": "drawn at random for every picture",
        "none": "all of them",
        "static": "the same for every picture",
    }[pruning.rule]
    return f"""# {manifest.name}

A device computes {pruning.channels} channels of {height} x {width} from a {contract.preprocessing.size_px} px picture, \
and sends {pruning.kept} of them ({rule}), as {contract.payload_bytes:,} bytes. {_neck(manifest)}A server answers
**{contract.task.name}** ({", ".join(contract.task.labels)}). The attribute that the method tries to hide is
**{contract.sensitive.name}** ({", ".join(contract.sensitive.labels)})."""


def _neck(manifest: Manifest) -> str:
    neck = manifest.provenance.bottleneck
    return "" if neck is None else f"They come from a narrow neck: {neck}. "


def _training(manifest: Manifest) -> str:
    origin = manifest.provenance
    costs = "".join(f"\n| {what} | {cost} |" for what, cost in unlike_trained(manifest).items())
    return f"""## Training

| | |
|---|---|
| data | {origin.data} |
| command | {_command(origin)} |
| recipe | `{origin.recipe}`, seed {origin.seed}; whole in `manifest.json` under `provenance.settings` |
| code | commit `{origin.commit}` |
| time | {origin.hours:g} h{_cut_off(origin)} |
| exported | {origin.created}, {", ".join(f"{name} {version}" for name, version in origin.versions.items())} |
| checkpoint | SHA-256 `{origin.checkpoint_sha256}` |
| contract digest | `{manifest.contract.digest}` |{costs}"""


def _cut_off(origin: Provenance) -> str:
    optim = origin.settings.get("optim")
    planned = optim.get("epochs") if isinstance(optim, dict) else None
    if origin.epochs is None or planned is None or origin.epochs == planned:
        return ""
    return f", **cut off after {origin.epochs} of {planned} epochs**"


def _command(origin: Provenance) -> str:
    """Say what trains it again: the recipe, or where its settings are if they are no recipe of ours."""
    for overrides in ((), (f"seed={origin.seed}",)):
        try:
            recipe = Recipe.load(origin.recipe, overrides)
        except ConfigError:
            break
        if recipe == Recipe.model_validate(origin.settings):
            changes = "".join(f" --set {override}" for override in overrides)
            return f"`python -m training.train --recipe {origin.recipe}{changes} --data DIR --out runs/{origin.recipe}`"
    return (
        "`python -m training.train --recipe FILE --data DIR --out RUN`, where FILE holds what stands in `manifest.json` "
        "under `provenance.settings`"
    )


def _limits(manifest: Manifest) -> str:
    sensitive = manifest.contract.sensitive.name
    return f"""## What it does not protect against

* **A fresh adversary**, beyond what is measured above. The numbers are those of the attacks that were tried; a stronger one
  may read more.
* **Other attributes** than {sensitive}, such as identity or what stands in the background: nothing was asked to hide them. What was
  measured of others stands above.
* **Reconstruction** of the picture from the payload, beyond what is measured above.
* **Anything beside the payload**: who sends, when, how often, and from where.
* **A device that is not yours**: whoever runs code on it sees the picture.
* **Other pictures** than those it was trained on. Accuracy and privacy are measured on one data set, whose labels were
  assigned by people or by a model. {sensitive.capitalize()} and the task are social categories squeezed into a few classes; do not decide
  about a person with them."""


def _utility(report: PrivacyReport) -> str:
    rows = "\n".join(
        f"| {group.attribute} {group.label} | {group.pictures:,} | {percent(group.balanced_accuracy)} |"
        for group in report.utility.groups
    )
    return f"""## How well it answers

{report.utility.pictures:,} validation pictures, through `device.onnx`, the guard and the task head. Balanced accuracy, with a 95 % interval.{draws(report)}

| pictures | count | balanced accuracy |
|---|---:|---:|
| all | {report.utility.pictures:,} | {percent(report.utility.balanced_accuracy)} |
{rows}"""


def _privacy(report: PrivacyReport) -> str:
    rows = "\n".join(
        f"| {attack.name} | {percent(attack.balanced_accuracy)} | {area(attack)} | {attack.note} |"
        for attack in report.attacks
    )
    return f"""## What an adversary reads

**{report.verdict}**

Fresh adversaries, trained on {report.leaked:,} payloads exactly as a server receives them, with their labels, after everything
else was frozen; tested on {report.tested:,} others. Chance is {share(report.chance)} balanced; always naming the largest group would be
right for {share(report.majority)}. Of several seeds the strongest is shown.{luck(report)}

| fresh adversary | balanced accuracy | macro AUC | chosen on held-out pairs |
|---|---:|---:|---|
{rows}

{_exposed(report)}{_readout(report)}{_beside(report)}{_certificate(report)}Measured {report.created} on {report.hardware}, first seed {report.seed}, with
`{report.command}`."""


def _certificate(report: PrivacyReport) -> str:
    lines = [f"* {what}: {value}. Holds if: {condition}." for what, value, condition in statements(report)]
    return "\n".join(["Against *any* attacker:", "", *lines, "", checked(report), "", ""]) if lines else ""


def _exposed(report: PrivacyReport) -> str:
    return f"{sentence}\n\n" if (sentence := exposed(report)) else ""


def _readout(report: PrivacyReport) -> str:
    if report.readout is None:
        return ""
    return f"Is the answer already in the payload? One linear layer on it does the task with {percent(report.readout)}.\n\n"


def _beside(report: PrivacyReport) -> str:
    lines = (
        [
            f"* {drawing.name} draws the picture with SSIM {drawing.ssim:.2f} ({drawing.psnr_db:.1f} dB); always drawing the mean "
            f"picture gives {drawing.mean_picture_ssim:.2f}."
            + (
                ""
                if drawing.attribute is None
                else f" From its drawings {report.sensitive} is read with {percent(drawing.attribute)} balanced accuracy."
            )
            for drawing in report.reconstructions
        ]
        + [
            f"* {channel.name}: {percent(channel.balanced_accuracy)}, "
            f"{'nothing more than guessing' if channel.silent else '**tells something**'}."
            for channel in report.side_channels
        ]
        + [
            f"* {point.attack} with {point.pairs:,} leaked pairs: {percent(point.balanced_accuracy)}."
            for point in report.leaked_curve
        ]
        + [
            f"* {point.attack} from {point.seen}: {percent(point.balanced_accuracy)}{ranked_from_frames(point)}."
            for point in report.many_frames
        ]
        + [
            f"* {other.name} ({len(other.labels)} groups, guessing gives {share(1 / len(other.labels))}), which nobody asked to "
            f"hide: {percent(other.balanced_accuracy)}."
            for other in report.others
        ]
    )
    return "\n".join([*lines, "", ""]) if lines else ""
