"""Run to numbers: means and standard errors over seeds, and the rows of every table. Nothing here draws."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from neuroprior.experiment.results import ConditionCard, Measurements
from neuroprior.types import InputError

NOT_MEASURED = "–"
WEIGHTED = "γ-weighted"


@dataclass(frozen=True, slots=True)
class Estimate:
    """Mean over `n` seeds and its standard error, s / sqrt(n) with ddof 1; one seed has no standard error."""

    mean: float
    sem: float | None
    n: int


def over_seeds(values: Sequence[float]) -> Estimate:
    """Return mean and SEM (ddof 1) of one value a seed; `sem` is None for one seed, never 0. Raises on no value."""
    n = len(values)
    if not n:
        raise InputError("over_seeds: no value given; leave the cell empty instead")
    mean = math.fsum(values) / n
    if n == 1:
        return Estimate(float(values[0]), None, 1)
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    return Estimate(mean, math.sqrt(variance / n), n)


@dataclass(frozen=True, slots=True)
class Curve:
    """One metric of one condition along `x` (sigma or epoch; nan for a single number), ascending.

    `by_seed[k]` maps seed to value at `x[k]`, `estimates[k]` is the mean over those, and `counts[k]` is the smallest
    number of images or pairs behind one of them.
    """

    x: tuple[float, ...]
    by_seed: tuple[Mapping[int, float], ...]
    counts: tuple[int, ...]

    @property
    def estimates(self) -> tuple[Estimate, ...]:
        """Mean and SEM over seeds at every `x`."""
        return tuple(over_seeds(list(values.values())) for values in self.by_seed)

    @property
    def seeds(self) -> tuple[int, ...]:
        """All seeds that have a value anywhere."""
        return tuple(sorted({seed for values in self.by_seed for seed in values}))

    def __bool__(self) -> bool:
        return bool(self.x)

    def at(self, x: float) -> Estimate | None:
        """Return the estimate measured at exactly this x (to 1e-9), or None."""
        values = self.seeds_at(x)
        return over_seeds(list(values.values())) if values else None

    def seeds_at(self, x: float) -> Mapping[int, float]:
        """Return seed to value at exactly this x (to 1e-9); empty where it was not measured."""
        for here, values in zip(self.x, self.by_seed, strict=True):
            if math.isclose(here, x, abs_tol=1e-9):
                return values
        return {}

    def only(self) -> Estimate | None:
        """Return the single number of a metric that has no x, or None where it was not measured."""
        return self.estimates[0] if self.x else None


def curve_of(metrics: pa.Table, condition: str, metric: str, tap: str | None = None) -> Curve:
    """Collect one metric of one condition (and tap) from the long table; an empty curve where nothing was measured.

    Raises `InputError` where a seed has two values at one x: a mean over them would count that seed twice.
    """
    chosen = (pc.field("condition") == condition) & (pc.field("metric") == metric)
    chosen &= pc.field("tap").is_null() if tap is None else pc.field("tap") == tap
    values: dict[float | None, dict[int, float]] = {}
    counts: dict[float | None, int] = {}
    for row in metrics.filter(chosen).to_pylist():
        seeds = values.setdefault(row["x"], {})
        if row["seed"] in seeds:
            raise InputError(f"metrics: {condition}, seed {row['seed']}, {metric} at x={row['x']} stands twice")
        seeds[row["seed"]] = row["value"]
        counts[row["x"]] = min(row["n"], counts.get(row["x"], row["n"]))
    order = sorted(values, key=lambda x: -math.inf if x is None else x)
    return Curve(
        x=tuple(math.nan if x is None else x for x in order),
        by_seed=tuple(dict(sorted(values[x].items())) for x in order),
        counts=tuple(counts[x] for x in order),
    )


def taps_of(metrics: pa.Table, condition: str, metric: str) -> tuple[str, ...]:
    """List the taps of a metric in the order in which the run wrote them."""
    rows = metrics.filter((pc.field("condition") == condition) & (pc.field("metric") == metric))
    return tuple(tap for tap in dict.fromkeys(rows["tap"].to_pylist()) if tap is not None)


def minus(text: str) -> str:
    """Set a true minus sign for the hyphens of formatted numbers."""
    return text.replace("-", "\N{MINUS SIGN}")


def seeds_phrase(counts: Sequence[int]) -> str:
    """Say n for a caption: `n = 5 seeds`, `n = 1 seed, no spread`, `n = 1 to 3 seeds`."""
    low, high = min(counts), max(counts)
    if high == 1:
        return "n = 1 seed, no spread"
    return f"n = {high} seeds" if low == high else f"n = {low} to {high} seeds"


def range_phrase(counts: Sequence[int]) -> str:
    """Say how many: `500`, `500 to 10,000`."""
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def percent(estimate: Estimate | None, unit: str = " %") -> str:
    """Write a fraction as `58.9 ± 0.7 %`; one seed as `58.9 %`. A column whose head says % passes no `unit`."""
    if estimate is None:
        return NOT_MEASURED
    if not math.isfinite(estimate.mean):
        return "not finite"
    spread = "" if estimate.sem is None else f" ± {100 * estimate.sem:.1f}"
    return minus(f"{100 * estimate.mean:.1f}{spread}{unit}")


def plain(estimate: Estimate | None) -> str:
    """Write a correlation as `0.412 ± 0.010`; one seed as `0.412`."""
    if estimate is None:
        return NOT_MEASURED
    if not math.isfinite(estimate.mean):
        return "not finite"
    spread = "" if estimate.sem is None else f" ± {estimate.sem:.3f}"
    return minus(f"{estimate.mean:z.3f}{spread}")


def weights_of(results: Measurements, condition: str) -> str:
    """Say which weights the neurons of a condition's target had, as the target itself says it."""
    target = results.targets.get(condition)
    if target is None:
        return NOT_MEASURED
    for key in ("weights", "weighting"):
        if key in target.details:
            return str(target.details[key])
    return "features unweighted" if target.source == "network" else "not stated by the target"


def neural_sentence(results: Measurements) -> str:
    """Say what S_neural is in held-out correlations: the unpermuted neural target, whatever a network was trained with.

    A network without a regulariser has no gamma; its taps are then weighted equally.
    """
    for card in results.conditions:
        if card.name == "neural_model" and card.name in results.targets:
            what = f"S_neural ({card.target}, weights {weights_of(results, card.name)})"
            break
    else:
        what = "S_neural, the run's neural target,"
    return (
        f"{what} is the same for every condition, also where the training target was another one or none. S_cnn is "
        f"measured in evaluation mode and centred on the held-out images; training centres on a running mean."
    )


def shown_levels(results: Measurements) -> tuple[float, ...]:
    """Return the measured noise levels above 0 closest to those that the recipe shows, and the largest; ascending."""
    measured = sorted({x for card in results.conditions for x in noise_curve(results, card.name).x if x > 0})
    nearest = {
        min(measured, key=lambda x: (round(abs(x - wanted), 9), x)) for wanted in results.shown_levels if measured
    }
    return tuple(sorted(nearest | set(measured[-1:])))


def noise_curve(results: Measurements, condition: str) -> Curve:
    """Return accuracy against noise sigma."""
    return curve_of(results.metrics, condition, "noise_accuracy")


@dataclass(frozen=True, slots=True)
class SummaryRow:
    """One condition in the headline table. `at_noise` holds one entry a level of `shown_levels`."""

    condition: ConditionCard
    weights: str
    clean: Estimate | None
    at_noise: tuple[Estimate | None, ...]
    similarity: Estimate | None
    n_seeds: int
    n_images: int


def summary_rows(results: Measurements) -> list[SummaryRow]:
    """Return the headline table, one row a condition in the run's order, measured or not."""
    levels = shown_levels(results)
    rows = []
    for card in results.conditions:
        curve = noise_curve(results, card.name)
        similarity = curve_of(results.metrics, card.name, "similarity_correlation")
        rows.append(
            SummaryRow(
                condition=card,
                weights=weights_of(results, card.name),
                clean=curve.at(0.0),
                at_noise=tuple(curve.at(level) for level in levels),
                similarity=similarity.only(),
                n_seeds=len(set(curve.seeds) | set(similarity.seeds)),
                n_images=min(curve.counts, default=0),
            )
        )
    return rows


def summary_csv(results: Measurements) -> list[list[str]]:
    """Return summary.csv: header and rows, every number in full; an empty field was not measured."""
    levels = shown_levels(results)
    measures = ["clean_accuracy", *(f"accuracy_sigma_{level:g}" for level in levels), "heldout_similarity_correlation"]
    header = ["condition", "label", "target", "weights", "seeds", "test_images"]
    header += [f"{measure}_{part}" for measure in measures for part in ("mean", "sem", "n_seeds")]
    rows = [header]
    for row in summary_rows(results):
        card = row.condition
        weights = "" if row.weights == NOT_MEASURED else row.weights
        cells = [card.name, card.label, card.target, weights, str(row.n_seeds), str(row.n_images)]
        for estimate in (row.clean, *row.at_noise, row.similarity):
            cells += csv_cells(estimate)
        rows.append(cells)
    return rows


def noise_csv(results: Measurements) -> list[list[str]]:
    """Return noise.csv: header, then one row a condition and sigma."""
    rows = [
        ["condition", "label", "target", "weights", "sigma", "accuracy_mean", "accuracy_sem", "n_seeds", "n_images"]
    ]
    for card in results.conditions:
        curve = noise_curve(results, card.name)
        weights = weights_of(results, card.name)
        named = [card.name, card.label, card.target, "" if weights == NOT_MEASURED else weights]
        for x, estimate, count in zip(curve.x, curve.estimates, curve.counts, strict=True):
            rows.append([*named, repr(x), *csv_cells(estimate), str(count)])
    return rows


def csv_cells(estimate: Estimate | None) -> list[str]:
    """Mean, SEM and number of seeds of a CSV's row, in full; empty where it was not measured."""
    if estimate is None:
        return ["", "", "0"]
    return [repr(estimate.mean), "" if estimate.sem is None else repr(estimate.sem), str(estimate.n)]


def csv_text(rows: Sequence[Sequence[str]]) -> str:
    """Write rows as the text of a CSV file."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


@dataclass(frozen=True, slots=True)
class Table:
    """A table as text: `header`, `rows` (first cell names the row), and a `caption`.

    Target and weights stand in the caption, or in `row_notes`: one line under the name of every row.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    row_notes: tuple[str, ...] = ()


def _cell(text: str, estimate: Estimate | None, row_seeds: int) -> str:
    return text if estimate is None or estimate.n == row_seeds else f"{text} (n = {estimate.n})"


def _target_said(row: SummaryRow) -> str:
    said = row.condition.target.strip() or "no target"
    target = "no target" if said.lower() in ("none", "no target") else f"target: {said}"
    return target if row.weights == NOT_MEASURED else f"{target}; weights: {row.weights}"


def _targets_said(rows: Sequence[SummaryRow]) -> tuple[str, ...]:
    """Say every row's target and weights; long words stand once, where they first come."""
    first: dict[str, str] = {}
    for row in rows:
        first.setdefault(_target_said(row), row.condition.name)
    labels = {row.condition.name: row.condition.label for row in rows}
    return tuple(
        said if len(said) < 40 or first[said] == row.condition.name else f"target and weights: as {labels[first[said]]}"
        for row in rows
        for said in [_target_said(row)]
    )


def headline_table(results: Measurements) -> Table:
    """Return what the page opens with."""
    levels, rows = shown_levels(results), summary_rows(results)
    lines = []
    for row in rows:
        cells = [(percent(row.clean, ""), row.clean)]
        cells += [(percent(estimate, ""), estimate) for estimate in row.at_noise]
        cells += [(plain(row.similarity), row.similarity)]
        lines.append(
            (
                row.condition.label,
                *(_cell(text, estimate, row.n_seeds) for text, estimate in cells),
                str(row.n_seeds) if row.n_seeds else "not finished",
                f"{row.n_images:,}" if row.n_images else NOT_MEASURED,
            )
        )
    spread = "Mean ± SEM over seeds (ddof 1)." if any(row.n_seeds > 1 for row in rows) else "One seed: no spread."
    return Table(
        caption=f"Accuracy in % on test images, clean and with Gaussian noise of standard deviation σ (pixels in "
        f"[0, 1]). Held-out similarity r: the correlation of the network's similarity with the brain's, on stimuli "
        f"that were never trained on. {neural_sentence(results)} {spread} A dash means: not "
        f"measured; for r, also a network to which all images are alike.",
        header=(
            "Condition",
            "Clean",
            *(f"σ\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{level:g}" for level in levels),
            "Held-out similarity r",
            "Seeds",
            "Test images",
        ),
        rows=tuple(lines),
        row_notes=_targets_said(rows),
    )


def noise_table(results: Measurements) -> Table | None:
    """Return every measured accuracy, sigma down and conditions across; None where nothing was measured."""
    curves = [(card, curve) for card in results.conditions if (curve := noise_curve(results, card.name))]
    if not curves:
        return None
    levels = sorted({x for _, curve in curves for x in curve.x})
    n = [estimate.n for _, curve in curves for estimate in curve.estimates]
    spread = "Accuracy in %, mean ± SEM over seeds (ddof 1), " if max(n) > 1 else "Accuracy in %, "
    return Table(
        caption=f"{spread}{seeds_phrase(n)}.",
        header=("σ", *(card.label for card, _ in curves)),
        rows=tuple((f"{x:g}", *(percent(curve.at(x), "") for _, curve in curves)) for x in levels),
    )


def tap_table(results: Measurements) -> Table | None:
    """Return held-out similarity correlations, one row a condition and one column a tap; None where none is there."""
    metric = "similarity_correlation"
    taps = dict.fromkeys(tap for card in results.conditions for tap in taps_of(results.metrics, card.name, metric))
    if not taps:
        return None
    rows, n = [], []
    for card in results.conditions:
        curves = [curve_of(results.metrics, card.name, metric, tap) for tap in (*taps, None)]
        rows.append((card.label, *(plain(curve.only()) for curve in curves)))
        n += [estimate.n for curve in curves for estimate in curve.estimates]
    spread = "Mean ± SEM over seeds (ddof 1), " if max(n) > 1 else ""
    return Table(
        caption=f"Correlation of S_cnn and S_neural on held-out stimuli, pairs i < j. {spread}{seeds_phrase(n)}. "
        f"S_neural is the first table's, the same for every condition. A dash means what it means there.",
        header=("Condition", *taps, WEIGHTED),
        rows=tuple(rows),
    )
