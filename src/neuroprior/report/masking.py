"""Whether gradients are masked: what was measured of each network, and the verdict in words."""

import math
from collections.abc import Mapping
from typing import Any

from neuroprior.experiment.results import Measurements, RunResults
from neuroprior.report.perturbations import NORMS
from neuroprior.report.tables import Table

_MASKING_COLUMNS = (
    "model",
    "seed",
    "norm",
    "radius",
    "n",
    "right",
    "white_box_median",
    "decision_median",
    "decision_nearer",
    "white_box_accuracy",
    "square_only",
    "zero_gradients",
    "large_radius_accuracy",
    "steps",
    "restarts",
    "transfer",
    "repeatable",
    "masked",
    "verdict",
)


def masking_tables(results: RunResults) -> list[tuple[str, Table]]:
    """Return a table a seed: a row a network, its verdict under its name; none where nothing was compared."""
    several = len(results.masking) > 1
    return [
        (f"Masked gradients{f', seed {seed}' if several else ''}", _table(results, found))
        for seed, found in results.masking.items()
    ]


def _table(results: Measurements, found: tuple[Mapping[str, Any], ...]) -> Table:
    labels = {card.name: card.label for card in results.conditions}
    first = found[0]
    steps, restarts = ([count for count, _ in first[name]] for name in ("steps", "restarts"))
    rows, notes = [], []
    for one in found:
        transfer = [fooled for _, _, fooled in one["transfer"]]
        rows.append(
            (
                labels.get(one["model"], one["model"]),
                str(one["right"]),
                _length(one["white_box_median"]),
                _length(one["decision_median"]),
                _percent(one["decision_nearer"]),
                _falling(one["steps"]),
                _falling(one["restarts"]),
                _percent(one["square_only"]),
                _percent(max(transfer)) if transfer else "–",
                _percent(one["zero_gradients"]),
                _percent(one["large_radius_accuracy"]),
            )
        )
        notes.append(one["verdict"])
    norm = NORMS[first["norm"]]
    return Table(
        caption=(
            f"On {first['n']} test images, in {norm}. Medians of the smallest perturbation of rightly classified "
            "images by attacks with gradients and by one that sees decisions alone, and the share of images where the "
            f"latter is nearer by more than 1 %; accuracy in % left at {first['radius']:.3g} after {_listed(steps)} "
            f"steps and after {_listed(restarts)} starts; images in % that withstand all gradients there and fall to "
            "Square alone, or to another network's adversarials alone; images whose gradient is zero; accuracy at a "
            "radius of half the pixel range, which must be 0. What was found was checked again, at another batch size "
            "and with its length in float64. A sound network has no gain anywhere from seeing less."
        ),
        header=(
            "Network",
            "Right",
            "By gradients",
            "By decisions",
            "Nearer",
            "Steps",
            "Starts",
            "Square alone",
            "Transfer alone",
            "No gradient",
            "At 0.5",
        ),
        rows=tuple(rows),
        row_notes=tuple(notes),
    )


def masking_csv(results: RunResults) -> list[list[str]]:
    """Return the CSV: header, then a row a network and seed."""
    rows = [list(_MASKING_COLUMNS)]
    for seed, found in results.masking.items():
        rows += [[str({**one, "seed": seed}[name]) for name in _MASKING_COLUMNS] for one in found]
    return rows


def _length(value: float) -> str:
    return "none found" if math.isinf(value) else "–" if math.isnan(value) else f"{value:.3g}"


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.1f}"


def _falling(told: list[list[float | int]]) -> str:
    return " → ".join(_percent(accuracy) for _, accuracy in told)


def _listed(counts: list[int]) -> str:
    return ", ".join(map(str, counts[:-1])) + f" and {counts[-1]}"
