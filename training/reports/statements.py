"""A certificate in sentences that a buyer understands: what, how much, and under which assumption."""

from __future__ import annotations

from collections.abc import Callable

from dcp_sdk.bundles.manifest import ExportCost, Manifest
from dcp_sdk.bundles.measurements import Z_95, FramesPoint, Luck, Ranked, points, share
from dcp_sdk.bundles.privacy_report import PrivacyReport

__all__ = ["area", "checked", "draws", "exposed", "luck", "ranked_from_frames", "statements", "unlike_trained"]


def statements(report: PrivacyReport) -> list[tuple[str, str, str]]:
    """Return ``(what, how much, if)`` for each thing that the report's certificate states."""
    certificate = report.certificate
    if certificate is None:
        return []
    sensitive = report.sensitive
    lines = [("bits that one payload can carry at all", f"{certificate.capacity_bits:,}", "always: it is its length")]
    if certificate.best_accuracy is not None:
        lines.append(
            (
                f"balanced accuracy in {sensitive} of the best possible attacker on one payload of these pictures",
                share(certificate.best_accuracy),
                "on average over the noise, of which one draw may give away more, by an attacker who knows the noise "
                f"and, by heart, all {report.tested:,} "
                f"pictures that were tested{_by_heart(report)}; for other "
                "pictures it is an estimate",
            )
        )
    if certificate.information_bits is not None and certificate.information_error is not None:
        reach = Z_95 * certificate.information_error
        lines.append(
            (
                f"bits that one payload tells about {sensitive}",
                f"{certificate.information_bits:.3f} \N{PLUS-MINUS SIGN} {reach:.3f}",
                "as above"
                if certificate.shuffled_bits is None
                else f"as above; of shuffled labels it would tell {max(0.0, certificate.shuffled_bits):.3f}"
                f"{_up_to(certificate.most_shuffled_bits, '{:.3f}'.format)}",
            )
        )
    for frames, epsilon in certificate.epsilons.items():
        seen = "one frame" if frames == 1 else f"{frames} frames of one picture"
        weak = ": too large to mean anything" if epsilon > 20 else ""
        lines.append(
            (
                f"\N{GREEK SMALL LETTER EPSILON} of differential privacy at "
                f"\N{GREEK SMALL LETTER DELTA} = {certificate.delta:g}, {seen}",
                f"{epsilon:,.1f}",
                f"always, between any two pictures whatsoever{weak}",
            )
        )
    if certificate.reconstruction_mse is not None:
        lines.append(
            (
                "least mean squared error of a pixel in any reconstruction (pixels within 0..1)",
                f"{certificate.reconstruction_mse:.4f}",
                "pictures vary like a Gaussian with the data set's covariance, which is the kindest assumption"
                f"{_derivatives(certificate.reconstruction_pictures)}",
            )
        )
    return lines


def checked(report: PrivacyReport) -> str:
    """Say in one sentence whether any attack did better than the certificate allows; empty where nothing is bounded."""
    certificate = report.certificate
    if certificate is None:
        return ""
    if report.violations:
        return f"WRONG: {'; '.join(report.violations)}. The certificate's assumptions do not hold here."
    drawers = sum(drawing.mse is not None for drawing in report.reconstructions)
    checks = []
    if certificate.best_accuracy is not None and (readers := len(report.attacks)):
        checks.append(f"what {readers} adversaries read: none more than is possible, by more than its interval")
    if certificate.reconstruction_mse is not None and drawers:
        checks.append(f"the mean error of {drawers} reconstructions: none less than the least")
    return f"Checked against {'; and against '.join(checks)}.{_power(report)}" if checks else ""


def _power(report: PrivacyReport) -> str:
    """Say how wrong the certificate could be without any adversary of this report showing it."""
    best = report.certificate.best_accuracy if report.certificate else None
    strongest = report.strongest
    if best is None or strongest is None:
        return ""
    noticed = best + strongest.value - strongest.low
    if noticed >= 1:
        return " No adversary could have shown that it is wrong."
    return f" Only one who reads {report.sensitive} with more than {share(noticed)} would have shown that it is wrong."


def _derivatives(pictures: float | None) -> str:
    if pictures is None:
        return ": so many bits tell no more (rate-distortion theory)"
    alike = f"as much as {pictures:.0f} if each counted alike"
    return f", and the derivatives at some pictures stand for those at all ({alike})"


def _by_heart(report: PrivacyReport) -> str:
    certificate = report.certificate
    if certificate is None or certificate.shuffled_accuracy is None:
        return ""
    shuffled = f"{share(certificate.shuffled_accuracy)}{_up_to(certificate.most_shuffled_accuracy, share)}"
    return f" (with the labels shuffled that attacker reads {shuffled}; guessing gives {share(report.chance)})"


def _up_to(most: float | None, written: Callable[[float], str]) -> str:
    return "" if most is None else f" on average, up to {written(most)} in 97.5 % of orders"


def luck(report: PrivacyReport) -> str:
    """Say what the strongest of so many would read if all of them guessed; empty where that was not measured."""
    if report.luck is None:
        return ""
    answers, ranking = report.luck.balanced_accuracy, report.luck.auc
    ranks = "" if ranking is None else f", and rank with an AUC of {ranking.value:.3f}, up to {ranking.high:.3f}"
    return (
        f" If none of them knew anything, the strongest would read {share(answers.value)} on average, up to "
        f"{share(answers.high)}{ranks} (the same answers with the labels in {report.luck.shuffles:,} other orders; up "
        "to: in 97.5 % of them). Each such limit is of one reading: of many, one in forty lies beyond its own by luck."
    )


def ranked_from_frames(point: FramesPoint) -> str:
    """Go on, behind a semicolon, with how well people are ranked from many frames and what luck would do; empty where
    neither was measured.
    """
    said = ""
    if point.auc is not None:
        said += f"; AUC {area(point)}"
        said += f" by {point.auc_attack}" if point.auc_attack not in (None, point.attack) else ""
    if point.luck is not None:
        said += f"; by luck up to {share(point.luck.balanced_accuracy.high)}"
        said += f", AUC {point.luck.auc.high:.3f}" if point.luck.auc is not None else ""
    return said


def area(one: Ranked) -> str:
    """Write an AUC with its interval; empty where there is none."""
    if one.auc is None:
        return ""
    ranking = one.ranking
    return f"{one.auc:.3f}" + ("" if ranking is None else f" ({ranking.low:.3f} to {ranking.high:.3f})")


def exposed(report: PrivacyReport) -> str:
    """Say which group any adversary tells most of; empty where none does."""
    if report.most_exposed is None:
        return ""
    group, exposure = report.most_exposed
    said = f"called so more often than the others are on average by {points(exposure)} points, 0 for who guesses."
    beside = _exposed_by_luck(group, report.luck) + _exposed_by_frames(report)
    return f"The group that any of them exposes most is {group}: {said}{beside}"


def _exposed_by_frames(report: PrivacyReport) -> str:
    seen = [(exposure, group, point) for point in report.many_frames for group, exposure in point.exposures.items()]
    if not seen:
        return ""
    exposure, group, point = max(seen, key=lambda each: each[0].value)
    return f" From {point.seen} it is {group}, by {points(exposure)} points.{_exposed_by_luck(group, point.luck)}"


def _exposed_by_luck(group: str, luck: Luck | None) -> str:
    if luck is None or luck.exposure is None:
        return ""
    if group in luck.exposures:
        return (
            f" If none of them knew anything, that group would be exposed by up to {100 * luck.exposures[group]:.1f}."
        )
    value, high = (f"{100 * number:.1f}" for number in (luck.exposure.value, luck.exposure.high))
    return f" If none of them knew anything, that would be {value} on average and up to {high}."


def draws(report: PrivacyReport) -> str:
    """Say that the task's figures are means, where one draw of the noise would not do."""
    several = report.utility.draws
    return f" Each picture was asked about {several} times, each with its own noise; the mean counts." * (several > 1)


def unlike_trained(manifest: Manifest) -> dict[str, str]:
    """Say what it costs that the bundle is not quite what was trained, by what is different; empty where nothing is."""
    origin, costs = manifest.provenance, {}
    if (bits := origin.bits_cost) is not None:
        words = f"A value has {manifest.contract.bits} bits instead of the {bits.trained_bits} of its training"
        costs["fewer bits"] = f"{words}: {_answers_change(bits)}"
    if (half := origin.half_client_cost) is not None:
        costs["half precision"] = f"The client network computes in half precision: {_answers_change(half)}"
    return costs


def _answers_change(cost: ExportCost) -> str:
    accuracy = ""
    if cost.accuracy is not None and cost.accuracy_trained is not None:
        accuracy = (
            f", and {share(cost.accuracy)} of {cost.labelled:,} validation pictures are right instead of "
            f"{share(cost.accuracy_trained)}"
        )
    return f"{cost.answers_changed:,} of {cost.pictures:,} answers change{accuracy}."
