"""Several runs beside each other: what they measured alike, how far they differ, and how their recipes do."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuroprior.experiment.measured import MeasuredFolder
from neuroprior.experiment.results import ConditionCard, Measurements
from neuroprior.files import write_whole
from neuroprior.report.paired import PairedDifference, paired_difference
from neuroprior.report.tables import NOT_MEASURED, Estimate, Table, csv_text, curve_of, minus, over_seeds
from neuroprior.report.templates import render
from neuroprior.types import InputError

_UNSHOWN = ("name", "description", "report", "compute.workers", "compute.retries", "compute.cluster", "seeds")
"""Of a recipe: what no number depends on, and the seeds, which the tables count."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One number of one condition in all runs: seed to value in each; `differences` to the first run, None for it."""

    condition: ConditionCard
    metric: str
    x: float | None
    heading: str
    by_seed: tuple[Mapping[int, float], ...]
    percent: bool

    @property
    def estimates(self) -> tuple[Estimate | None, ...]:
        """Mean over each run's seeds."""
        return tuple(_over(values) if values else None for values in self.by_seed)

    @property
    def differences(self) -> tuple[PairedDifference | None, ...]:
        """Run minus the first one, over the seeds that both have."""
        finite = [{seed: value for seed, value in one.items() if math.isfinite(value)} for one in self.by_seed]
        return tuple(paired_difference(values, finite[0]) for values in finite[1:])


def _over(values: Mapping[int, float]) -> Estimate:
    """Mean over seeds; infinite, with no spread, where one seed is: nothing fooled an image."""
    if all(map(math.isfinite, values.values())):
        return over_seeds(list(values.values()))
    return Estimate(math.inf, None, len(values))


def compare_runs(runs: Sequence[MeasuredFolder]) -> list[Compared]:
    """Return every number that two runs have, at least. Raises `InputError` for fewer runs, or no such number."""
    if len(runs) < 2:
        raise InputError("compare: name two runs or more")
    found = list(_found(runs))
    if not found:
        raise InputError(
            f"compare: {', '.join(str(run.folder) for run in runs)} have no number in common (other conditions, or "
            "nothing measured yet)"
        )
    return found


def _found(runs: Sequence[MeasuredFolder]) -> Iterator[Compared]:
    cards = {card.name: card for run in reversed(runs) for card in run.measurements.conditions}
    order = dict.fromkeys(card.name for run in runs for card in run.measurements.conditions)
    for name in order:
        for metric, x, heading, percent in _numbers(runs):
            values = tuple(_by_seed(run.measurements, name, metric, x) for run in runs)
            if sum(map(bool, values)) > 1:
                yield Compared(cards[name], metric, x, heading, values, percent)


def _numbers(runs: Sequence[MeasuredFolder]) -> Iterator[tuple[str, float | None, str, bool]]:
    """The numbers worth a row: clean, each noise level that two runs have, held-out similarity, single numbers."""
    levels = [set(run.measurements.noise_levels) for run in runs]
    for level in sorted({level for those in levels for level in those if sum(level in other for other in levels) > 1}):
        yield "noise_accuracy", level, "clean, %" if level == 0 else f"σ = {level:g}, %", True
    yield "similarity_correlation", None, "held-out similarity r", False
    for norm in ("l0", "l1", "l2", "linf"):
        yield f"median_{norm}", None, f"median {norm} perturbation", False
        yield f"mean_{norm}", None, f"mean {norm} perturbation", False
    yield "mean_corruption_error", None, "mean corruption error, %", True


def _by_seed(results: Measurements, condition: str, metric: str, x: float | None) -> Mapping[int, float]:
    curve = curve_of(results.metrics, condition, metric)
    if x is not None:
        return curve.seeds_at(x)
    return curve.by_seed[0] if curve and curve.x[0] != curve.x[0] else {}  # a single number's x is nan


def recipe_differences(runs: Sequence[MeasuredFolder]) -> list[tuple[str, tuple[str, ...]]]:
    """Return each setting that is not the same in all runs, with its value in each."""
    flat = [{**dict(_flat(run.recipe.model_dump(mode="json"))), **_origin(run)} for run in runs]
    keys = dict.fromkeys(key for one in flat for key in one)
    # A section that one run has not at all is one difference, not as many as it has parts.
    shown = [
        key for key in keys if not key.startswith(_UNSHOWN) and not any(up in one for up in _above(key) for one in flat)
    ]
    rows = [(key, tuple(_setting(one, key) for one in flat)) for key in shown]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def _origin(run: MeasuredFolder) -> dict[str, str]:
    """What of the data and the software could make numbers differ under the same settings."""
    told = {part: run.provenance.get(part) or {} for part in ("versions", "data")}
    said = {key: value[:12] if len(value) == 64 else value for key, value in _flat(told) if key not in told}
    return {key: value for key, value in said.items() if not key.endswith(".source")}


def _above(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[:k]) for k in range(1, len(parts))]


def _setting(settings: Mapping[str, str], key: str) -> str:
    if key in settings:
        return settings[key]
    return "has one" if any(other.startswith(f"{key}.") for other in settings) else "not set"


def _flat(value: Any, before: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{before}.{key}" if before else str(key))
    else:
        yield before, ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def compare_table(runs: Sequence[MeasuredFolder], found: Sequence[Compared]) -> Table:
    """Return the table: a row a condition and number, a column a run, and each later run minus the first."""
    names = run_names(runs)
    rows = []
    for one in found:
        cells = [_value(one, estimate) for estimate in one.estimates]
        cells += [_difference(one, gap) for gap in one.differences]
        rows.append((f"{one.condition.label}: {one.heading}", *cells))
    return Table(
        caption=f"Mean ± SEM over each run's own seeds (n in brackets where above 1). A minus B: over the seeds that "
        f"both have finite, with the paired 95 % t interval where there are two or more (n − 1 degrees of freedom; not "
        f"corrected for there being {len(rows) * (len(runs) - 1)} of them). Of the same seed initial weights, image "
        f"order and augmentation agree only where the settings behind them do. A dash: not measured.",
        header=("Condition and number", *names, *(f"{name} minus {names[0]}" for name in names[1:])),
        rows=tuple(rows),
    )


def run_names(runs: Sequence[MeasuredFolder]) -> list[str]:
    """Short names for the runs, no two alike: the last parts of their folders."""
    depth = 1
    parts = [run.folder.resolve().parts for run in runs]
    while len({p[-depth:] for p in parts}) < len(runs) and depth < max(map(len, parts)):
        depth += 1
    return ["/".join(p[-depth:]) for p in parts]


def _value(one: Compared, estimate: Estimate | None) -> str:
    if estimate is None:
        return NOT_MEASURED
    if not math.isfinite(estimate.mean):
        return "not finite"
    scale, digits = (100.0, 1) if one.percent else (1.0, 4)
    spread = "" if estimate.sem is None else f" ± {scale * estimate.sem:.{digits}f} ({estimate.n})"
    return minus(f"{scale * estimate.mean:.{digits}f}{spread}")


def _difference(one: Compared, gap: PairedDifference | None) -> str:
    if gap is None:
        return NOT_MEASURED
    scale, digits = (100.0, 1) if one.percent else (1.0, 4)
    mean = f"{scale * gap.mean:+z.{digits}f}"
    if gap.low is None or gap.high is None:
        return minus(f"{mean} (1)")
    return minus(f"{mean} [{scale * gap.low:+z.{digits}f},\N{NO-BREAK SPACE}{scale * gap.high:+z.{digits}f}] ({gap.n})")


def write_comparison(runs: Sequence[MeasuredFolder], out: Path) -> Path:
    """Write `index.html`, which stands alone, and `compare.csv` into `out`, each whole; return the page."""
    found = compare_runs(runs)
    names = run_names(runs)
    differing = recipe_differences(runs)
    settings = Table(
        caption="Settings that are not the same in all of them; how many steps run at a time, and where, is left out.",
        header=("Setting", *names),
        rows=tuple((key, *values) for key, values in differing),
    )
    page = render(
        "compare.html.jinja",
        names=names,
        runs=[
            {
                "name": name,
                "folder": str(run.folder),
                "commit": run.provenance.get("commit"),
                "command": run.provenance.get("command"),
                "device": run.provenance.get("device"),
                "missing": run.measurements.missing,
            }
            for name, run in zip(names, runs, strict=True)
        ],
        settings=settings if differing else None,
        table=compare_table(runs, found),
    )
    rows = [["condition", "metric", "x", "run", "folder", "mean", "sem", "n_seeds"]]
    for one in found:
        for name, run, estimate in zip(names, runs, one.estimates, strict=True):
            if estimate is not None:
                sem = "" if estimate.sem is None else repr(estimate.sem)
                x = "" if one.x is None else repr(one.x)
                numbers = [repr(estimate.mean), sem, str(estimate.n)]
                rows.append([one.condition.name, one.metric, x, name, str(run.folder), *numbers])
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / "compare.csv", csv_text(rows))
    return write_whole(out / "index.html", page)
