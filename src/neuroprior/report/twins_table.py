"""How near each variant of a recipe's simulated twins comes to the truth, as a table."""

import pyarrow.compute as pc

from neuroprior.experiment.conditions import condition_named
from neuroprior.experiment.results import Measurements
from neuroprior.report.tables import Table, curve_of, plain, seeds_phrase

_COLUMNS = {
    "similarity_to_truth": "Training images: r with the true S",
    "similarity_to_truth_oracle": "Oracle images: r with the true S",
    "twin_correlation": "r to average",
    "twin_single_trial_correlation": "Single-trial r",
}
_DATA = "neural_data"


def twins_table(results: Measurements) -> Table | None:
    """Return one row a variant, and one of the recorded trials; None where no twins were fitted to simulated scans."""
    named = results.metrics.filter(pc.field("metric").isin(list(_COLUMNS)))["condition"].to_pylist()
    conditions = sorted(dict.fromkeys(named), key=lambda name: name == _DATA)  # what twins are compared with is last
    if not conditions:
        return None
    known = {card.name: card.label for card in results.conditions}
    lines, counts = [], []
    for name in conditions:
        curves = [curve_of(results.metrics, name, metric) for metric in _COLUMNS]
        counts += [estimate.n for curve in curves for estimate in curve.estimates]
        lines.append((known.get(name, _label(name)), *(plain(curve.only()) for curve in curves)))
    spread = "Mean ± SEM over seeds (ddof 1), " if max(counts) > 1 else ""
    return Table(
        caption=f"Twins fitted to simulated scans, {spread}{seeds_phrase(counts)}. r with the true S: Pearson's over "
        f"pairs i < j of the similarity that the twins predict (Eq. 6), or that was recorded (training images: single "
        f"trials; oracle images: all repeats, Eq. 3), and of noise-free rates with true weights. r to average, "
        f"single-trial r: of predictions and oracle images' mean responses, or single responses, mean over neurons.",
        header=("Similarity of", *_COLUMNS.values()),
        rows=tuple(lines),
    )


def _label(name: str) -> str:
    """Label a variant that no network is taught."""
    return "Recorded responses" if name == _DATA else condition_named(name).label
