"""Condition minus control, seed by seed: networks of one seed share initial weights, image order and augmentation."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from neuroprior.experiment.results import ConditionCard, Measurements
from neuroprior.report.tables import NOT_MEASURED, Curve, Table, curve_of, minus, noise_curve, over_seeds, shown_levels

CONTROLS = ("shuffle", "lowpass", "blur", "none")
_MEAN = "noise_accuracy_mean"  # over the noise levels of the headline table


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Mean of a - b over the `n` seeds that both have, and its 95 % interval; one seed has no interval."""

    mean: float
    low: float | None
    high: float | None
    n: int


def paired_difference(a: Mapping[int, float], b: Mapping[int, float]) -> PairedDifference | None:
    """Return mean(d) with mean(d) ± t_{0.975, n-1} s(d) / sqrt(n), d_s = a_s - b_s over common seeds s; None for n = 0.

    `a` and `b` map seed to value.
    """
    seeds = sorted(set(a) & set(b))
    if not seeds:
        return None
    d = over_seeds([a[seed] - b[seed] for seed in seeds])
    if d.sem is None:
        return PairedDifference(d.mean, None, None, 1)
    half = t_quantile(d.n - 1) * d.sem
    return PairedDifference(d.mean, d.mean - half, d.mean + half, d.n)


def t_quantile(freedom: float | int) -> float:
    """Return t_{0.975, freedom} of Student's t."""
    from scipy.special import stdtrit  # type: ignore[import-untyped]  # scipy.stats takes seconds to load

    return float(stdtrit(freedom, 0.975))


@dataclass(frozen=True, slots=True)
class _Measure:
    name: str
    heading: str
    scale: float
    digits: int
    sigma: float | None


def _measures(results: Measurements) -> list[_Measure]:
    levels = [
        _Measure("noise_accuracy", f"σ\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{sigma:g}, points", 100.0, 1, sigma)
        for sigma in shown_levels(results)
    ]
    clean = _Measure("clean_accuracy", "Clean, points", 100.0, 1, 0.0)
    mean = [_Measure(_MEAN, "Mean of these σ, points", 100.0, 1, None)] if len(levels) > 1 else []
    similarity = _Measure("similarity_correlation", "Held-out similarity\N{NO-BREAK SPACE}r", 1.0, 3, None)
    return [clean, *levels, *mean, similarity]


def _by_seed(results: Measurements, condition: str, measure: _Measure) -> Mapping[int, float]:
    if measure.name == _MEAN:
        by_level = [noise_curve(results, condition).seeds_at(sigma) for sigma in shown_levels(results)]
        seeds = set.intersection(*(set(values) for values in by_level))
        return {seed: sum(values[seed] for values in by_level) / len(by_level) for seed in sorted(seeds)}
    if measure.sigma is None:
        curve: Curve = curve_of(results.metrics, condition, measure.name)
        return curve.by_seed[0] if curve else {}
    return noise_curve(results, condition).seeds_at(measure.sigma)


@dataclass(frozen=True, slots=True)
class _Comparison:
    card: ConditionCard
    control: ConditionCard
    cells: tuple[tuple[_Measure, PairedDifference | None], ...]


def _comparisons(results: Measurements) -> Iterator[_Comparison]:
    """Every other condition against each control of the run, and variants against the condition that they vary.

    A cell with fewer than two common seeds is None.
    """
    cards = {card.name: card for card in results.conditions}
    measures = _measures(results)
    values = {(name, m.name, m.sigma): _by_seed(results, name, m) for name in cards for m in measures}
    varied = dict.fromkeys(card.base for card in results.conditions if card.base != card.name)
    for control in (cards[name] for name in dict.fromkeys((*CONTROLS, *varied)) if name in cards):
        for card in results.conditions:
            if card.name == control.name or (control.name not in CONTROLS and card.base != control.name):
                continue
            gaps = [
                paired_difference(values[card.name, m.name, m.sigma], values[control.name, m.name, m.sigma])
                for m in measures
            ]
            cells = [(m, gap if gap is not None and gap.n > 1 else None) for m, gap in zip(measures, gaps, strict=True)]
            yield _Comparison(card, control, tuple(cells))


def paired_tables(results: Measurements) -> list[tuple[str, Table]]:
    """Return (label of the control, table), a control each; none where no two seeds are common to any pair."""
    by_control: dict[str, list[_Comparison]] = {}
    for comparison in _comparisons(results):
        if any(gap is not None for _, gap in comparison.cells):
            by_control.setdefault(comparison.control.label, []).append(comparison)
    count = sum(gap is not None for rows in by_control.values() for row in rows for _, gap in row.cells)
    tables = []
    for label, rows in by_control.items():
        n = {gap.n for row in rows for _, gap in row.cells if gap is not None}
        over = f"n = {min(n)} seeds" if len(n) == 1 else f"n = {min(n)} to {max(n)} seeds"
        caption = (
            f"Row minus {label}: mean over seeds that both have ({over}), in brackets the paired 95 % t interval "
            f"(n − 1 degrees of freedom). Not corrected for there being {count} of them on this page: "
            f"where nothing differs, one in twenty still leaves 0 out. A dash: fewer than two common seeds."
        )
        header = ("Condition", *(m.heading for m, _ in rows[0].cells), "Seeds")
        body = tuple((row.card.label, *(_cell(m, gap) for m, gap in row.cells), _seeds(row)) for row in rows)
        tables.append((label, Table(caption, header, body)))
    return tables


def _cell(measure: _Measure, gap: PairedDifference | None) -> str:
    if gap is None or gap.low is None or gap.high is None:
        return NOT_MEASURED
    if not math.isfinite(gap.mean):
        return "not finite"
    mean, low, high = (f"{measure.scale * value:+z.{measure.digits}f}" for value in (gap.mean, gap.low, gap.high))
    return minus(f"{mean} [{low},\N{NO-BREAK SPACE}{high}]")


def _seeds(row: _Comparison) -> str:
    return " or ".join(str(n) for n in sorted({gap.n for _, gap in row.cells if gap is not None}))


def paired_csv(results: Measurements) -> list[list[str]]:
    """Return paired.csv: header, then a row a condition, control and metric; no number for fewer than two seeds."""
    rows = [["condition", "control", "metric", "sigma", "difference_mean", "ci95_low", "ci95_high", "n_seeds"]]
    for comparison in _comparisons(results):
        for measure, gap in comparison.cells:
            sigma = "" if measure.sigma is None else repr(measure.sigma)
            numbers = ["", "", "", ""] if gap is None else [repr(gap.mean), repr(gap.low), repr(gap.high), str(gap.n)]
            rows.append([comparison.card.name, comparison.control.name, measure.name, sigma, *numbers])
    return rows
