"""What a network owes to low spatial frequencies (Li et al. 2023): numbers and tables of a run."""

from neuroprior.experiment.results import Measurements
from neuroprior.report.further import long_csv, with_n
from neuroprior.report.perturbations import NORMS, three_digits
from neuroprior.report.tables import Table, curve_of, range_phrase, seeds_phrase

ON_IMAGES = ("low_pass_accuracy", "high_pass_accuracy", "hybrid_low", "hybrid_high", "hybrid_crossover")
SPECTRUM, HALF_POWER = "perturbation_spectrum", "perturbation_half_power"
METRICS = (*ON_IMAGES, *(f"{what}_{norm}" for norm in NORMS for what in (SPECTRUM, HALF_POWER)))


def frequency_table(results: Measurements) -> Table | None:
    """A row a condition: crossover of hybrids and half power frequency in each norm; None where none was measured."""
    columns = {"hybrid_crossover": "Hybrid crossover"}
    columns |= {f"{HALF_POWER}_{norm}": f"Half power, {said.split(' ')[0]}" for norm, said in NORMS.items()}
    curves = {
        (card.name, metric): curve
        for card in results.conditions
        for metric in columns
        if (curve := curve_of(results.metrics, card.name, metric))
    }
    if not curves:
        return None
    shown = [metric for metric in columns if any(metric == measured for _, measured in curves)]
    rows, most = [], []
    for card in results.conditions:
        mine = {metric: curves[card.name, metric] for metric in shown if (card.name, metric) in curves}
        hybrids = curve_of(results.metrics, card.name, "hybrid_low")
        if not mine and not hybrids:
            continue
        seeds = max(len(curve.seeds) for curve in (*mine.values(), hybrids))
        estimates = [mine[metric].only() if metric in mine else None for metric in shown]
        cells = [with_n(three_digits(estimate), estimate, seeds) for estimate in estimates]
        rows.append((card.label, *cells, str(seeds)))
        most.append(seeds)
    said = []
    if "hybrid_crossover" in shown:
        n = [count for (_, metric), curve in curves.items() if metric == "hybrid_crossover" for count in curve.counts]
        said.append(
            f"Hybrid crossover: the cutoff at which the low and the high image's class are named equally often, over "
            f"{range_phrase(n)} hybrids; the lower, the more low frequencies count; a dash: one of them leads at every "
            f"cutoff."
        )
    if any(metric != "hybrid_crossover" for metric in shown):
        n = [count for (_, metric), curve in curves.items() if metric != "hybrid_crossover" for count in curve.counts]
        said.append(
            f"Half power: below it lies half of the power of the smallest perturbations, over {range_phrase(n)} of "
            f"them."
        )
    return Table(
        caption=f"Cycles per image. {' '.join(said)} {'Mean ± SEM over seeds (ddof 1), ' if max(most) > 1 else ''}"
        f"{seeds_phrase(most)}.",
        header=("Condition", *(columns[metric] for metric in shown), "Seeds"),
        rows=tuple(rows),
    )


def frequency_csv(results: Measurements) -> list[list[str]]:
    """Return frequencies.csv: header, then a row a condition, measure and frequency."""
    return long_csv(results, METRICS, "cycles_per_image", "images")
