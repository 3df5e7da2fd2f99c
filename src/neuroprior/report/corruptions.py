"""Accuracy under the corruptions of CIFAR-10-C: curves by group, errors, tables of a run."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow.compute as pc

from neuroprior.experiment.results import ConditionCard, Measurements
from neuroprior.report.further import with_n
from neuroprior.report.tables import (
    Curve,
    Estimate,
    Table,
    csv_cells,
    curve_of,
    over_seeds,
    percent,
    range_phrase,
    seeds_phrase,
)
from neuroprior.robustness import EXTRA_CORRUPTIONS, USUAL_CORRUPTIONS, CorruptionCurve, CorruptionKind
from neuroprior.types import InputError

GROUPS: Mapping[str, tuple[CorruptionKind, ...]] = {
    "Noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "Blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "Weather": ("snow", "frost", "fog", "brightness"),
    "Digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}
"""The usual kinds as Hendrycks & Dietterich group them."""

_Measured = tuple[ConditionCard, dict[int, CorruptionCurve]]
_KINDS: tuple[CorruptionKind, ...] = (*USUAL_CORRUPTIONS, *EXTRA_CORRUPTIONS)
_SPELT = {"gaussian": "Gaussian", "jpeg": "JPEG"}


def kind_said(kind: str) -> str:
    """`gaussian_noise` as `Gaussian noise`, in a sentence."""
    return " ".join(_SPELT.get(word, word) for word in kind.split("_"))


def corruption_curves(results: Measurements, condition: str) -> dict[int, CorruptionCurve]:
    """Accuracy by kind and severity, of each seed that has been asked all of the condition's kinds and severities."""
    mine = results.metrics.filter(
        (pc.field("condition") == condition) & pc.starts_with(pc.field("metric"), "corruption.")
    )
    curves = {kind: curve_of(mine, condition, f"corruption.{kind}") for kind in _KINDS if len(mine)}
    curves = {kind: curve for kind, curve in curves.items() if curve}
    severities = sorted({x for curve in curves.values() for x in curve.x})
    found = {}
    for seed in sorted({seed for curve in curves.values() for seed in curve.seeds}):
        values = [[curve.seeds_at(severity).get(seed) for severity in severities] for curve in curves.values()]
        if any(value is None for row in values for value in row):
            continue
        accuracy = np.array(values, dtype=np.float64)
        n = min(count for curve in curves.values() for count in curve.counts)
        found[seed] = CorruptionCurve(tuple(curves), tuple(int(severity) for severity in severities), accuracy, n)
    return found


def corrupted_conditions(results: Measurements) -> list[_Measured]:
    """The conditions that were measured, with their curves by seed."""
    found = [(card, corruption_curves(results, card.name)) for card in results.conditions]
    return [(card, curves) for card, curves in found if curves]


def group_curve(curves: Mapping[int, CorruptionCurve], kinds: Sequence[CorruptionKind]) -> Curve:
    """Mean accuracy over those of the kinds that were measured, against severity; empty where none was."""
    by_severity: dict[int, dict[int, float]] = {}
    counts: dict[int, int] = {}
    for seed, curve in curves.items():
        rows = [curve.kinds.index(kind) for kind in kinds if kind in curve.kinds]
        for column, severity in enumerate(curve.severities if rows else ()):
            by_severity.setdefault(severity, {})[seed] = float(curve.accuracy[rows, column].mean())
            counts[severity] = min(curve.n, counts.get(severity, curve.n))
    severities = sorted(by_severity)
    return Curve(
        x=tuple(float(severity) for severity in severities),
        by_seed=tuple(by_severity[severity] for severity in severities),
        counts=tuple(counts[severity] for severity in severities),
    )


def relative_error(curves: Mapping[int, CorruptionCurve], baseline: Mapping[int, CorruptionCurve]) -> Estimate | None:
    """mean_c (sum_s E(c, s) / sum_s E_baseline(c, s)), each seed against the baseline's network of the same seed.

    Over the 15 usual kinds; None where some was not measured, no seed has a baseline, or it makes no error.
    """
    ratios = []
    for seed, curve in curves.items():
        if seed not in baseline or not set(USUAL_CORRUPTIONS) <= set(curve.kinds):
            continue
        try:
            ratios.append(curve.mean_corruption_error(baseline[seed]))
        except InputError:  # of other images or severities, or no error to be divided by
            continue
    return over_seeds(ratios) if ratios else None


def corruption_table(results: Measurements) -> Table | None:
    """A row a condition: mean accuracy of each group, and the mean corruption errors; None without a measurement."""
    found = corrupted_conditions(results)
    if not found:
        return None
    groups = [group for group, kinds in GROUPS.items() if any(set(kinds) & _kinds_of(curves) for _, curves in found)]
    errors = {card.name: curve_of(results.metrics, card.name, "mean_corruption_error").only() for card, _ in found}
    baseline = _baseline(found) if any(errors.values()) else None
    header, said = ["Condition", *groups], ""
    if any(errors.values()):
        header.append("Mean corruption error")
        said = " Mean corruption error: the mean of 100 % − accuracy over the 15 usual kinds."
    if baseline is not None:
        label = baseline[0].label
        header.append(f"Error relative to {label}")
        said += (
            f" Relative to {label}: of each kind the errors summed over severities, divided by those of the {label} "
            f"network of the same seed, averaged over kinds; below 100 % fewer errors are made."
        )
    rows = []
    for card, curves in found:
        cells = [_mean(curves, GROUPS[group]) for group in groups]
        cells += [errors[card.name]] if any(errors.values()) else []
        cells += [] if baseline is None else [relative_error(curves, baseline[1])]
        rows.append((card.label, *(with_n(percent(one, ""), one, len(curves)) for one in cells), str(len(curves))))
    return Table(
        caption=f"Accuracy in % under the corruptions of CIFAR-10-C, mean over a group's kinds and "
        f"{_severities(found)}, on {_images(found)} test images.{said} {_spread(found)}",
        header=(*header, "Seeds"),
        rows=tuple(rows),
    )


def kinds_table(results: Measurements, *, extra: bool = False) -> Table | None:
    """Accuracy, mean over severities, a row a kind and a column a condition: the usual kinds, or the `extra` ones."""
    found = corrupted_conditions(results)
    groups = {"not in the mean": EXTRA_CORRUPTIONS} if extra else GROUPS
    measured = {kind for _, curves in found for kind in _kinds_of(curves)}
    kinds = [(group, kind) for group, members in groups.items() for kind in members if kind in measured]
    if not kinds:
        return None
    what = "The four kinds that the mean corruption error leaves out" if extra else "The usual kinds"
    return Table(
        caption=f"{what}: accuracy in %, mean over {_severities(found)}, on {_images(found)} test images. "
        f"{_spread(found)}",
        header=("Corruption", *(card.label for card, _ in found)),
        rows=tuple(
            (_first_upper(kind_said(kind)), *(percent(_mean(curves, [kind]), "") for _, curves in found))
            for _, kind in kinds
        ),
        row_notes=tuple(group.lower() for group, _ in kinds),
    )


def _first_upper(said: str) -> str:
    return said[0].upper() + said[1:]


def corruption_csv(results: Measurements) -> list[list[str]]:
    """Return corruptions.csv: header, then a row a condition, kind and severity."""
    groups = {kind: group.lower() for group, kinds in GROUPS.items() for kind in kinds}
    rows = [["condition", "label", "group", "kind", "severity"]]
    rows[0] += ["accuracy_mean", "accuracy_sem", "n_seeds", "n_test_images"]
    for card in results.conditions:
        for kind in _KINDS:
            curve = curve_of(results.metrics, card.name, f"corruption.{kind}")
            for x, estimate, count in zip(curve.x, curve.estimates, curve.counts, strict=True):
                named = [card.name, card.label, groups.get(kind, "extra"), kind, f"{x:g}"]
                rows.append([*named, *csv_cells(estimate), str(count)])
    return rows


def corruption_error_csv(results: Measurements) -> list[list[str]]:
    """Return corruption_errors.csv: header, then a row a condition of which all usual kinds were measured."""
    rows = [["condition", "label"]]
    rows[0] += [
        f"{what}_{part}"
        for what in ("mean_corruption_error", "error_relative_to_none")
        for part in ("mean", "sem", "n_seeds")
    ]
    found = corrupted_conditions(results)
    baseline = _baseline(found)
    for card, curves in found:
        error = curve_of(results.metrics, card.name, "mean_corruption_error").only()
        relative = None if baseline is None else relative_error(curves, baseline[1])
        if error is not None or relative is not None:
            rows.append([card.name, card.label, *csv_cells(error), *csv_cells(relative)])
    return rows


def _baseline(found: Sequence[_Measured]) -> _Measured | None:
    """The condition `none`, where all usual kinds were measured of it."""
    for card, curves in found:
        if card.name == "none" and set(USUAL_CORRUPTIONS) <= _kinds_of(curves):
            return card, curves
    return None


def _kinds_of(curves: Mapping[int, CorruptionCurve]) -> set[CorruptionKind]:
    return {kind for curve in curves.values() for kind in curve.kinds}


def _mean(curves: Mapping[int, CorruptionCurve], kinds: Sequence[CorruptionKind]) -> Estimate | None:
    """Mean accuracy over severities and those of the kinds that were measured, then over seeds."""
    means = []
    for curve in curves.values():
        of_kinds = curve.of_kinds()
        measured = [of_kinds[kind] for kind in kinds if kind in of_kinds]
        if measured:
            means.append(float(np.mean(measured)))
    return over_seeds(means) if means else None


def _severities(found: Sequence[_Measured]) -> str:
    measured = sorted({severity for _, curves in found for curve in curves.values() for severity in curve.severities})
    if len(measured) == 1:
        return f"severity {measured[0]}"
    if measured == list(range(measured[0], measured[-1] + 1)):
        return f"severities {measured[0]} to {measured[-1]}"
    return f"severities {', '.join(map(str, measured))}"


def _images(found: Sequence[_Measured]) -> str:
    return range_phrase([curve.n for _, curves in found for curve in curves.values()])


def _spread(found: Sequence[_Measured]) -> str:
    seeds = [len(curves) for _, curves in found]
    return f"{'Mean ± SEM over seeds (ddof 1), ' if max(seeds) > 1 else ''}{seeds_phrase(seeds)}."
