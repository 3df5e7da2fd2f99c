"""How near models and controls come to the recordings, scan by scan, and the brain's model against each of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neuroprior.experiment.conditions import CONDITIONS
from neuroprior.recordings import ScanStability
from neuroprior.recordings.stability import OTHER_SCANS, SINGLE_APART, SINGLE_INSIDE, TRUTH
from neuroprior.report.effects import effect_size
from neuroprior.report.paired import PairedDifference, paired_difference
from neuroprior.report.tables import NOT_MEASURED, Table, minus
from neuroprior.similarity import bootstrap_over_scans
from neuroprior.similarity.over_scans import REPLICATES
from neuroprior.types import Float64

_LEAST_IMAGES = 5  # that a replicate of drawn images says something with
_DEFINED = 0.95  # of the replicates, for an interval
_LABELS = {
    SINGLE_INSIDE: "Single trials, inside the average",
    SINGLE_APART: "Single trials, apart from it",
    TRUTH: "Truth of these neurons",
    OTHER_SCANS: "Mean of the other scans",
}


@dataclass(frozen=True, slots=True)
class Nearness:
    """r of every scan's Eq. 3 with one thing beside it, and r of `first` minus that, over scans.

    `paired`: the mean difference and its t interval; `bootstrap`: the 95 % interval of `bootstrap_over_scans`; `size`:
    Hedges' g_z. All None for `first` itself, and where a scan has no r; no intervals of the mean of the other scans,
    in which every scan is many times, nor a bootstrap of fewer than 5 images.
    """

    name: str
    label: str
    r: tuple[float, ...]
    first: str
    paired: PairedDifference | None
    bootstrap: tuple[float, float] | None
    size: float | None


def nearness(found: ScanStability) -> list[Nearness]:
    """Return all that was compared with the recordings; what they are compared with comes first.

    That is `neural_model`, else the first model given, else the mean of the other scans, else single trials.
    """
    compared = found.compared()
    names = [name for name in ("neural_model", *found.models, OTHER_SCANS, SINGLE_APART) if name in compared]
    if not names:
        return []
    first = names[0]
    order = [first, *(name for name in compared if name != first)]
    r = {name: tuple(rs) for name, rs in found.correlations().items()}
    if len(found.stimuli) < _LEAST_IMAGES:
        return [_against(first, name, r, None) for name in order]
    drawn = bootstrap_over_scans([compared[name] for name in order])  # type: ignore[misc]
    return [_against(first, name, r, drawn[:, 0] - drawn[:, k]) for k, name in enumerate(order)]


def _against(
    first: str, name: str, r: dict[str, tuple[float, ...]], gaps: Float64[np.ndarray, " replicate"] | None
) -> Nearness:
    label = label_of(name)
    if name == first or not np.isfinite([r[first], r[name]]).all():
        return Nearness(name, label, r[name], first, None, None, None)
    ours, theirs = (dict(enumerate(r[which])) for which in (first, name))
    paired = paired_difference(ours, theirs)
    if OTHER_SCANS in (first, name) and paired is not None:  # each scan is in all the others' mean: not independent
        return Nearness(name, label, r[name], first, PairedDifference(paired.mean, None, None, paired.n), None, None)
    interval = None
    if gaps is not None and np.isfinite(gaps).mean() > _DEFINED:
        low, high = np.nanpercentile(gaps, [2.5, 97.5])
        interval = float(low), float(high)
    return Nearness(name, label, r[name], first, paired, interval, effect_size(np.array(r[first]) - np.array(r[name])))


def label_of(name: str) -> str:
    """Return what a reader calls it: a condition's label, or the name that a model was given."""
    return _LABELS.get(name) or (CONDITIONS[name].label if name in CONDITIONS else name)


def over_scans_table(found: ScanStability) -> Table | None:
    """Return a row for all that was compared; None where nothing was."""
    rows = nearness(found)
    if not rows:
        return None
    n_scans, n_images = len(found.names), len(found.stimuli)
    several = n_scans > 1
    first = label_of(rows[0].first)
    few = " Of so few scans it has too small a share of scans: read the wider of the two." * (n_scans < 10)
    others = " The mean of the others holds every scan many times, so it has no interval." * (n_scans > 1)
    interval = (
        f"Bootstrap: percentiles of {REPLICATES:,} replicates that draw scans with replacement, and images, the same "
        f"for all scans of a replicate, as all saw the same.{few} t: paired over scans, n − 1 degrees of freedom, for "
        f"these very images. "
        f"g_z: mean over standard deviation of the paired differences, with Hedges' correction.{others}"
        if several
        else f"Bootstrap: percentiles of {REPLICATES:,} replicates that draw images with replacement: of one scan, so "
        f"nothing is said of other animals, and there is no t interval."
    )
    return Table(
        caption=f"Pearson's r with each scan's Eq. 3 over pairs i < j of {n_images} oracle images, mean over "
        f"n = {n_scans} scan{'s' if several else ''}; difference: r of {first} minus that of the row. {interval} "
        f"Single trials inside the average share its noise, so their r is too high. A dash: undefined. Not corrected "
        f"for the number of comparisons.",
        header=(
            "Beside Eq. 3",
            "r",
            "Scans from, to",
            "Difference",
            "Bootstrap 95\N{NO-BREAK SPACE}%",
            "t 95\N{NO-BREAK SPACE}%",
            "g_z",
        ),
        rows=tuple(
            (
                row.label,
                _r(float(np.mean(row.r))),
                f"{_r(float(np.min(row.r)))} to {_r(float(np.max(row.r)))}" if several else NOT_MEASURED,
                NOT_MEASURED if row.paired is None else _gap(row.paired.mean),
                _ends(row.bootstrap),
                _ends(_both(row.paired)),
                NOT_MEASURED if row.size is None else minus(f"{row.size:+z.2f}"),
            )
            for row in rows
        ),
    )


def over_scans_csv(found: ScanStability) -> list[list[str]]:
    """Return scans.csv: header, then a row for all that was compared; fields are empty where undefined."""
    names = ["r_mean", "r_min", "r_max", "difference_mean", "bootstrap95_low", "bootstrap95_high", "t95_low"]
    lines = [["compared", "label", "against", *names, "t95_high", "hedges_g_z", "n_scans", "n_images"]]
    for row in nearness(found):
        t = (None, None) if row.paired is None else (row.paired.low, row.paired.high)
        numbers: Sequence[float | None] = (
            float(np.mean(row.r)),
            float(np.min(row.r)),
            float(np.max(row.r)),
            None if row.paired is None else row.paired.mean,
            *(row.bootstrap or (None, None)),
            *t,
            row.size,
        )
        cells = ["" if number is None or not math.isfinite(number) else repr(number) for number in numbers]
        lines.append([row.name, row.label, row.first, *cells, str(len(row.r)), str(len(found.stimuli))])
    return lines


def ceiling_table(found: ScanStability) -> Table | None:
    """Return the noise ceiling of each scan that has one; None where none has."""
    known = [(name, one) for name, one in zip(found.names, found.ceilings, strict=True) if one is not None]
    if not known:
        return None
    return Table(
        caption="Reliability: correlation with Eq. 3 of as many new trials, from split halves (Spearman and Brown); "
        "interval of a bootstrap over images and neurons. Best model: what the similarity without noise would reach.",
        header=("Scan", "Reliability of S", "95\N{NO-BREAK SPACE}% interval", "Best model"),
        rows=tuple(
            (name, f"{one.mean:.2f}", f"{one.low:.2f} to {one.high:.2f}", f"{one.best_model:.2f}")
            for name, one in known
        ),
    )


def _both(gap: PairedDifference | None) -> tuple[float, float] | None:
    return None if gap is None or gap.low is None or gap.high is None else (gap.low, gap.high)


def _ends(ends: tuple[float, float] | None) -> str:
    if ends is None or not all(map(math.isfinite, ends)):
        return NOT_MEASURED
    return f"[{_gap(ends[0])},\N{NO-BREAK SPACE}{_gap(ends[1])}]"


def _r(value: float) -> str:
    return minus(f"{value:z.2f}") if math.isfinite(value) else NOT_MEASURED


def _gap(value: float) -> str:
    return minus(f"{value:+z.3f}")
