"""The ledger of published numbers: each beside this run's own, with a verdict by one rule."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow.compute as pc

from neuroprior.experiment.plan import STABILITY
from neuroprior.experiment.results import ConditionCard, Measurements, RunResults
from neuroprior.experiment.steps.attacking import attacked_name
from neuroprior.report.paired import paired_difference
from neuroprior.report.perturbations import NORMS, three_digits
from neuroprior.report.printed import ELSEWHERE, GAMMA, NBSP, PAIRS, RERUN, SCANS, TOP, Pair, ScanPair
from neuroprior.report.sweep import recipe_of
from neuroprior.report.tables import (
    NOT_MEASURED,
    Table,
    csv_cells,
    curve_of,
    minus,
    noise_curve,
    over_seeds,
    percent,
    taps_of,
)
from neuroprior.robustness.ledger import Ledger, median
from neuroprior.types import InputError

Verdict = Literal["reproduced", "differs", "direction reproduced", "direction differs", "undecided", "not measured"]

RULE = (
    "One rule for all: a published pair of numbers claims that their ratio lies on one side of 1. Direction "
    "reproduced: the 95 % interval of this run's ratio lies on that side; direction differs: on the other side. "
    "Undecided: it holds 1, fewer than two seeds are common to both, a number is 0 or not finite, or what was "
    "published contradicts itself. At the paper's size alone the published ratio, with its rounding, is compared "
    "too: reproduced where it meets the interval as well, else the row differs. The ratio is the geometric mean "
    "over seeds (of recordings: scans, their images held fixed) that both have, its interval the paired t interval "
    "of its logarithm; it is not corrected for the number of rows. γ: reproduced if in every seed the largest γ is "
    "at a layer with a published share above 0, differs if in none. Attacks: reproduced if Brendel & Bethge's "
    "median is the smaller one on every network. Conditions are this run's own: its targets, attacks and data may "
    "be others than the paper's."
)
_SIZE = "ResNet18 of width 64, 40 epochs, CIFAR-10's 50,000 images"


@dataclass(frozen=True, slots=True)
class Ratio:
    """exp(mean_s(log a_s - log b_s)) over `n` common seeds, with the paired 95 % t interval; one seed has none."""

    value: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the ledger. `here`: this run's numbers in words, or why there are none; `cells`: them for the CSV."""

    claim: str
    source: str
    published: str
    here: str
    ratio: Ratio | None = None
    verdict: Verdict = "not measured"
    cells: tuple[str, ...] = ()
    of: Literal["seeds", "scans"] = "seeds"
    """What the ratio is over."""


def ratio_of(a: Mapping[int, float], b: Mapping[int, float]) -> Ratio | None:
    """Return a / b over common seeds; None where there is none, or a value is not positive and finite.

    `a` and `b` map seed to value.
    """
    seeds = sorted(set(a) & set(b))
    if any(not (value[seed] > 0 and math.isfinite(value[seed])) for value in (a, b) for seed in seeds):
        return None
    gap = paired_difference({s: math.log(a[s]) for s in seeds}, {s: math.log(b[s]) for s in seeds})
    if gap is None:
        return None
    low, high = (None if end is None else math.exp(end) for end in (gap.low, gap.high))
    return Ratio(math.exp(gap.mean), low, high, gap.n)


def judge(ratio: Ratio, above: bool, sizes: tuple[float, float] | None) -> Verdict:
    """Judge a ratio by `RULE`: `above` if a > b was published; `sizes` where the size is compared too, else None."""
    if ratio.low is None or ratio.high is None or ratio.low <= 1 <= ratio.high:
        return "undecided"
    if sizes is None:
        return "direction reproduced" if (ratio.low > 1) == above else "direction differs"
    if (ratio.low > 1) != above or ratio.high < sizes[0] or sizes[1] < ratio.low:
        return "differs"
    return "reproduced"


def ledger(results: RunResults) -> list[Entry]:
    """Return every published number beside this run's own, in the order of the paper's figures, the rerun after it."""
    full = not lacking(results)
    pairs = [_entry(results, pair, full) for pair in PAIRS]
    return [
        *(_of_scans(results, pair) for pair in SCANS),
        *(Entry(claim, source, said, why) for claim, source, said, why in ELSEWHERE),
        *(entry for entry in pairs if entry.source != RERUN),
        _attacks(results),
        *(_gamma(results, alpha) for alpha in GAMMA),
        *(entry for entry in pairs if entry.source == RERUN),
    ]


def lacking(results: RunResults) -> list[str]:
    """Say what keeps a run from the paper's size, a clause each; empty where it has it."""
    recipe = recipe_of(results)
    network, training, task = (recipe.get(part) or {} for part in ("network", "training", "task"))
    said = []
    if recipe.get("scale") == "tiny":
        said.append("scale tiny")
    hundred = results.n_classes not in (10, None) or "100" in f"{task.get('test')} {task.get('folder')}"
    if task.get("source") not in ("parquet", "cifar_binary") or hundred:
        said.append("not CIFAR-10")
    wanted = {"architecture": "resnet18", "width": 64, "epochs": 40}
    found = {key: {**network, **training}.get(key, "not stated") for key in wanted}
    said += [f"{key} {value}" for key, value in found.items() if value != wanted[key]]
    trained_on = results.metrics.filter(pc.field("metric") == "task_loss")["n"].to_pylist()
    kept = 1 - float(training.get("validation_fraction", 0.01))
    images = 0 if not trained_on else round(min(trained_on) / kept)
    if images != 50_000:
        said.append(f"{images:,} training images" if images else "no network trained yet")
    return said


def _of_scans(results: RunResults, pair: ScanPair) -> Entry:
    """A published pair that is of recordings: its ratio, interval and n are over scans."""
    curves = [curve_of(results.metrics, condition, metric) for metric, condition in (pair.a, pair.b)]
    a, b = ({int(x): one.mean for x, one in zip(c.x, c.estimates, strict=True)} for c in curves)
    scans = sorted(set(a) & set(b))
    if not scans:
        return Entry(pair.claim, pair.source, pair.said, _why_no_scans(results, pair))
    sides = [over_seeds([side[k] for k in scans]) for side in (a, b)]
    ratio = ratio_of(a, b)
    why = "" if ratio else "; a number that is not above 0 has no ratio"
    here = f"{pair.here.format(*(one.mean for one in sides))} ({len(scans)} scan{'s' * (len(scans) > 1)}){why}"
    verdict: Verdict = "undecided" if ratio is None else judge(ratio, above=True, sizes=None)
    metric = pair.a[0] if pair.a[0] == pair.b[0] else f"{pair.a[0]} / {pair.b[0]}"
    cells = (metric, pair.a[1], pair.b[1], *csv_cells(sides[0]), *csv_cells(sides[1]))
    return Entry(pair.claim, pair.source, pair.said, here, ratio, verdict, cells, of="scans")


def _why_no_scans(results: RunResults, pair: ScanPair) -> str:
    kind = (recipe_of(results).get("target") or {}).get("kind")
    if kind in (None, "twin", "matrix"):
        return "needs a target made of recorded scans"
    if STABILITY in results.missing:
        return "the step that looks at the recordings is not finished"
    measured = set(results.metrics["metric"].to_pylist())
    if "oracle_correlation" not in measured:
        return "the run does not say how stable its recordings are"
    if pair.a[0] == "oracle_correlation":
        return "needs twins of the recordings"
    return "needs three scans, and oracle images with three trials"


def _entry(results: RunResults, pair: Pair, full: bool) -> Entry:
    cards = {card.name: card for card in results.conditions}
    named = (pair.metric, pair.a, pair.b)
    absent = [name for name in (pair.a, pair.b) if name not in cards]
    if absent:
        why = f"no condition {' or '.join(absent)} in this run"
        return Entry(pair.claim, pair.source, pair.said, why, cells=named)
    sigma = _highest(results, pair.a, pair.b) if pair.metric == "noise" else None
    a, b = (_by_seed(results, pair.metric, name, sigma) for name in (pair.a, pair.b))
    if not a or not b:
        what = _ASKED.get(pair.metric) or f"{NORMS[pair.metric.split('_')[-1]].split(' ')[0]} attacks"
        why = f"{what} not run" if not a and not b else f"{what} not run on {cards[pair.b if a else pair.a].label}"
        return Entry(pair.claim, pair.source, pair.said, why, cells=named)
    ours, theirs = over_seeds([*a.values()]), over_seeds([*b.values()])
    write = three_digits if pair.metric.startswith(("median_", "mean_")) else percent
    at = "" if sigma is None else f", at σ = {sigma:g}".replace(" = ", f"{NBSP}={NBSP}")
    said = [f"{cards[name].label} {write(one).replace(' ', NBSP)}" for name, one in ((pair.a, ours), (pair.b, theirs))]
    here = f"{', '.join(said)}{at}"
    cells = (*named, *csv_cells(ours), *csv_cells(theirs))
    ratio = ratio_of(a, b)
    if ratio is None:
        why = "no seed is common" if not set(a) & set(b) else "a number that is 0 or not finite has no ratio"
        return Entry(pair.claim, pair.source, pair.said, f"{here}; {why}", None, "undecided", cells)
    comparable = full and (sigma is None or math.isclose(sigma, TOP))
    sizes = pair.sizes if comparable else None
    verdict: Verdict = "undecided" if pair.contradictory else judge(ratio, pair.above, sizes)
    return Entry(pair.claim, pair.source, pair.said, here, ratio, verdict, cells)


_ASKED = {"noise": "noise", "clean": "clean images", "corruption.gaussian_noise": "this corruption"}


def _highest(results: Measurements, a: str, b: str) -> float | None:
    """The paper's highest level where both have it, else the highest that both have."""
    shared = sorted(set(noise_curve(results, a).x) & set(noise_curve(results, b).x))
    return next((x for x in shared if math.isclose(x, TOP)), shared[-1] if shared and shared[-1] > 0 else None)


def _by_seed(results: Measurements, metric: str, condition: str, sigma: float | None) -> Mapping[int, float]:
    """Seed to value; of the corruption the mean over severities, of the seeds that have them all."""
    if metric in ("noise", "clean"):
        at = 0.0 if metric == "clean" else sigma
        return {} if at is None else noise_curve(results, condition).seeds_at(at)
    curve = curve_of(results.metrics, condition, metric)
    seeds = [seed for seed in curve.seeds if all(seed in values for values in curve.by_seed)]
    return {seed: math.fsum(values[seed] for values in curve.by_seed) / len(curve.x) for seed in seeds}


def _gamma(results: RunResults, alpha: float) -> Entry:
    shares = GAMMA[alpha]
    claim, source = f"γ of layers 1, 5 and 9 at α = {alpha:g}", "paper, Table 1"
    said = " / ".join(f"{share:g}" for share in shares)
    card = next((card for card in results.conditions if _is_neural_at(card, alpha)), None)
    if card is None:
        return Entry(claim, source, said, f"no neural_model at α = {alpha:g} in this run")
    taps = taps_of(results.metrics, card.name, "gamma")
    if len(taps) != 5:
        why = f"no γ of {card.label}" if not taps else f"{card.label} has {len(taps)} taps, not layers 1, 5, 9, 13, 17"
        return Entry(claim, source, said, why)
    last = [curve_of(results.metrics, card.name, "gamma", tap).by_seed[-1] for tap in taps]
    seeds = sorted(set.intersection(*(set(values) for values in last)))
    if not seeds:
        return Entry(claim, source, said, "no seed has γ at every layer")
    largest = [max(range(5), key=lambda k, seed=seed: last[k][seed]) for seed in seeds]  # type: ignore[misc]
    agree = sum(k < 3 and shares[k] > 0 for k in largest)
    means = " / ".join(f"{over_seeds([values[seed] for seed in seeds]).mean:.2f}" for values in last[:3])
    here = f"{means}, mean over seeds; largest at a published layer in {agree} of {len(seeds)} seeds"
    verdict: Verdict = "undecided"
    if len(seeds) > 1 and agree in (0, len(seeds)):
        verdict = "reproduced" if agree else "differs"
    return Entry(claim, source, said, here, None, verdict, ("gamma", card.name))


def _is_neural_at(card: ConditionCard, alpha: float) -> bool:
    own = {key for key, _ in card.options} - {"alpha"}
    return card.base == "neural_model" and card.alpha == alpha and not own and not card.adversarial


def _attacks(results: RunResults) -> Entry:
    claim, source, said = "L2: Brendel & Bethge against C&W", "paper", "the smaller perturbation on every model"
    seeds = results.seeds
    names = [attacked_name(card.name, seed) for card in results.conditions for seed in seeds]
    medians = _two_medians(results.attacks, names)
    if not medians:
        return Entry(claim, source, said, "no network was attacked by both, each by itself")
    won = sum(ours < theirs for ours, theirs in medians)
    here = f"the smaller median on {won} of {len(medians)} networks"
    return Entry(claim, source, said, here, None, "reproduced" if won == len(medians) else "differs")


def _two_medians(attacks: Ledger | None, names: Sequence[str]) -> list[tuple[float, float]]:
    """(Brendel & Bethge's, C&W's) median of each network all of whose right images both attacked, each by itself."""
    if attacks is None or "l2" not in attacks.norms:
        return []
    there = set(attacks.of(norm="l2").models)
    found = []
    for name in (name for name in names if name in there):
        part = attacks.of(model=name, norm="l2")
        columns = (part.table[column].to_pylist() for column in ("sample", "attack", "status"))
        rows = list(zip(*columns, strict=True))
        right = {sample for sample, attack, status in rows if attack == "clean" and status == "right"}
        asked = [{sample for sample, a, _ in rows if a == attack} for attack in ("brendel_bethge", "cw")]
        if not right or any(not right <= samples for samples in asked):
            continue
        try:
            both = [median(part.of(attacks=[attack]).distances()) for attack in ("brendel_bethge", "cw")]
        except InputError:  # one began from what the others had found
            continue
        found.append((both[0], both[1]))
    return found


def ledger_table(results: RunResults) -> Table:
    """Return the ledger as a table; its caption says the rule, the run's size, and how many rows came out how."""
    entries = ledger(results)
    tally = Counter(entry.verdict for entry in entries)
    order: tuple[Verdict, ...] = ("reproduced", "differs", "undecided", "not measured")
    counted = ", ".join(f"{tally[word]} {word}" for word in order)
    short = lacking(results)
    size = (
        f"This run is not of the paper's size ({_SIZE}): {', '.join(short)}. So no size is compared, only directions."
        if short
        else f"This run is of the paper's size ({_SIZE}), so sizes are compared too."
    )
    n = [entry.ratio.n for entry in entries if entry.ratio is not None and entry.of == "seeds"]
    spread = "Mean ± SEM over seeds (ddof 1). " if max(n, default=0) > 1 else "One seed: no spread. " if n else ""
    return Table(
        caption=f"Of {len(entries)} rows: {counted}. {size} {RULE} {spread}"
        f"Smallest: length of the smallest perturbation that fools a network. "
        f"Published numbers stand as they were printed, without a spread.",
        header=("Claim", "Published", "This run", "Ratio [95 %]", "n", "Verdict"),
        rows=tuple(
            (
                entry.claim,
                entry.published,
                entry.here,
                _ratio_said(entry.ratio),
                NOT_MEASURED if entry.ratio is None else f"{entry.ratio.n} {entry.of}",
                entry.verdict,
            )
            for entry in entries
        ),
        row_notes=tuple(entry.source for entry in entries),
    )


def _ratio_said(ratio: Ratio | None) -> str:
    if ratio is None:
        return NOT_MEASURED
    if ratio.low is None or ratio.high is None:
        return f"{ratio.value:.3f}"
    return minus(f"{ratio.value:.3f} [{ratio.low:.3f},{NBSP}{ratio.high:.3f}]")


def ledger_csv(results: RunResults) -> list[list[str]]:
    """Return ledger.csv: header, then a row a published number; empty fields were not measured or have no interval."""
    names = [f"{side}_{part}" for side in ("a", "b") for part in ("mean", "sem", "n_seeds")]
    measured = ["metric", "condition_a", "condition_b", *names]
    rows = [["claim", "source", "published", *measured, "ratio", "ci95_low", "ci95_high", "n_common", "verdict"]]
    rows[0].append("this_run")
    for entry in ledger(results):
        ratio = entry.ratio
        numbers = [] if ratio is None else [ratio.value, ratio.low, ratio.high, ratio.n]
        cells = ["" if number is None else repr(number) for number in numbers] or [""] * 4
        filled = [*entry.cells, *[""] * (len(measured) - len(entry.cells))]
        rows.append([entry.claim, entry.source, entry.published, *filled, *cells, entry.verdict, entry.here])
    return rows
