"""What the merged packets of a campaign come to: the numbers of groups that were measured alike, together."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from neuroprior.experiment.campaign import Campaign
from neuroprior.experiment.packets import PERTURBATIONS_SCHEMA, ROWS_SCHEMA, done_cells
from neuroprior.experiment.recipe import Recipe
from neuroprior.experiment.results import METRICS_SCHEMA, ConditionCard, Measurements
from neuroprior.experiment.run import card_of
from neuroprior.types import InputError

UNFOOLED = "unfooled"
"""Metric, before `_l2` or `_linf`: the share of images whose smallest perturbation is longer than x."""

_SIZES = 16  # of perturbations, at which it is told


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """What groups that are measured alike came to: their recipe, but for conditions and seeds, and the numbers."""

    groups: tuple[str, ...]
    recipe: Recipe
    measurements: Measurements


def measured_so_far(campaign: Campaign, results: Path) -> list[Measured]:
    """Return what was merged, groups that were measured alike together, in the campaign's order.

    The metrics have rows `unfooled_l2` (and `linf`) beside those merged: the share of images whose smallest
    perturbation is longer than x. Raises `InputError` where nothing was merged yet.
    """
    done = set(done_cells(results))
    if not done:
        raise InputError(f"{results}: nothing is merged yet; `neuroprior campaign run`, then `merge`")
    rows = pq.read_table(results / "metrics.parquet", schema=ROWS_SCHEMA)
    distances = pq.read_table(results / "perturbations.parquet", schema=PERTURBATIONS_SCHEMA)
    alike: dict[str, list[str]] = {}
    for group in campaign.groups:
        if any(cell.group == group for cell in done):
            alike.setdefault(campaign.settings(group), []).append(group)
    found = []
    for groups in alike.values():
        cards: dict[str, ConditionCard] = {}
        for group in groups:
            recipe = campaign.groups[group]
            cards |= {name: card_of(recipe, name) for name in recipe.conditions if name not in cards}
        own, attacked = (table.filter(pc.is_in(table["group"], pa.array(groups))) for table in (rows, distances))
        metrics = pa.concat_tables([own.drop_columns(["group"]), _unfooled(attacked)])
        first = campaign.groups[groups[0]]
        left = [cell for cell in campaign.cells if cell.group in groups and cell not in done]
        found.append(
            Measured(
                groups=tuple(groups),
                recipe=first,
                measurements=Measurements(
                    name=f"{campaign.name}: {', '.join(groups)}",
                    conditions=tuple(cards.values()),
                    metrics=metrics,
                    noise_levels=first.noise.sigmas,
                    shown_levels=first.report.levels,
                    missing=tuple(f"{cell.condition}, seed {cell.seed}" for cell in left),
                ),
            )
        )
    return found


def _unfooled(distances: pa.Table) -> pa.Table:
    """Rows of the share of images that no perturbation up to x fools, for each network and norm."""
    by_network: dict[tuple[str, int, str], list[float]] = {}
    for row in distances.to_pylist():
        if not math.isnan(row["distance"]):
            by_network.setdefault((row["condition"], row["seed"], row["norm"]), []).append(row["distance"])
    rows = []
    for norm in dict.fromkeys(norm for _, _, norm in by_network):
        own = {key: np.array(values) for key, values in by_network.items() if key[2] == norm}
        medians = [float(np.median(values)) for values in own.values()]
        finite = [median for median in medians if math.isfinite(median)]
        sizes = np.unique(np.linspace(0, 2.5 * max(finite, default=0.0), _SIZES))
        for (condition, seed, _), values in own.items():
            rows += [
                {
                    "condition": condition,
                    "seed": seed,
                    "metric": f"{UNFOOLED}_{norm}",
                    "tap": None,
                    "x": float(size),
                    "value": float((values > size).mean()),
                    "n": len(values),
                }
                for size in sizes
            ]
    return pa.Table.from_pylist(rows, schema=METRICS_SCHEMA)
