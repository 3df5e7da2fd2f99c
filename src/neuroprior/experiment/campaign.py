"""A campaign: recipes measured cell by cell, where computing time comes in pieces; each piece leaves a packet to merge.

```
packet.json            campaign, its settings' digests, the cells done and their seconds, provenance
metrics.parquet        rows of `METRICS_SCHEMA`, with the cells' group before them
perturbations.parquet  the smallest perturbation of every attacked image
```

Results are the same three files, `packet.json` being `packets.json`, a list. Trained networks stay behind.
"""

import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml
from pydantic import Field, ValidationError, model_validator

from neuroprior.experiment.engine import Watch
from neuroprior.experiment.plan import step_label
from neuroprior.experiment.recipe import Recipe, parse_recipe
from neuroprior.experiment.results import METRICS_SCHEMA, ConditionCard, Measurements
from neuroprior.experiment.run import card_of, run_recipe
from neuroprior.experiment.runs import RunPlan, store_of
from neuroprior.experiment.sections import Section
from neuroprior.experiment.steps.attacking import attacked_name
from neuroprior.files import appearing_whole, read_json, write_json
from neuroprior.robustness import Ledger
from neuroprior.types import InputError

_GROUP = pa.field("group", pa.string(), nullable=False)
ROWS_SCHEMA = pa.schema([_GROUP, *METRICS_SCHEMA])
PERTURBATIONS_SCHEMA = pa.schema(
    [
        _GROUP,
        pa.field("condition", pa.string(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("norm", pa.string(), nullable=False),
        pa.field("sample", pa.string(), nullable=False),
        pa.field("distance", pa.float64(), nullable=False),  # 0: already wrong, inf: not found, NaN: quarantined
    ]
)
_TABLES = {"metrics": ROWS_SCHEMA, "perturbations": PERTURBATIONS_SCHEMA}
UNFOOLED = "unfooled"
"""Metric, before `_l2` or `_linf`: the share of images whose smallest perturbation is longer than x."""

_SIZES = 16  # of perturbations, at which it is told
_SLACK = 1.15  # the next batch may take so much longer than the last


class GroupSection(Section):
    """Cells that are measured alike: conditions x seeds. `set`: what of the recipe is otherwise for them."""

    name: str = Field(pattern=r"^[\w.-]+$")
    conditions: tuple[str, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field(min_length=1)
    recipe: str | None = None
    set: dict[str, Any] = Field(default_factory=dict)


class CampaignSection(Section):
    """A campaign's file. `recipe`: of all groups that name none, beside this file; `tiny`: as a recipe's."""

    name: str = Field(pattern=r"^[\w.-]+$")
    recipe: str
    groups: tuple[GroupSection, ...] = Field(min_length=1)
    tiny: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names_differ(self) -> "CampaignSection":
        twice = [name for name, n in Counter(group.name for group in self.groups).items() if n > 1]
        if twice:
            raise ValueError(f"groups: two are called {twice[0]!r}; give each a name of its own")
        return self


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One network to be trained and measured."""

    group: str
    condition: str
    seed: int


@dataclass(frozen=True, slots=True)
class Campaign:
    """Groups in the order in which they are done, each a recipe of its conditions and seeds."""

    name: str
    groups: Mapping[str, Recipe]

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All of them, in order: seed by seed within a group, so that conditions can be compared early."""
        return tuple(
            Cell(group, condition, seed)
            for group, recipe in self.groups.items()
            for seed in recipe.seeds
            for condition in recipe.conditions
        )

    def settings(self, group: str) -> str:
        """SHA-256 of all that a group's results depend on, but for condition, seed and machine."""
        said = self.groups[group].model_dump(
            mode="json",
            exclude={"conditions", "seeds", "compute", "report", "description", "name"},
            exclude_defaults=True,  # an option that is new since, and not used, changes nothing
        )
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """What groups that are measured alike came to: their recipe, but for conditions and seeds, and the numbers."""

    groups: tuple[str, ...]
    recipe: Recipe
    measurements: Measurements


@dataclass(frozen=True, slots=True)
class Packet:
    """What one piece of time left: its folder, the cells done in it, and those that failed, with the reason."""

    folder: Path
    done: tuple[Cell, ...]
    failed: Mapping[Cell, str]


def load_campaign(path: Path, overrides: Sequence[str] = ()) -> Campaign:
    """Read a campaign and its recipes, with `key=value` overrides for all of them (`scale=tiny`).

    Raises `InputError`, one line, for what is not a valid campaign, or a recipe of it that is not.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); campaigns lie in recipes/") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not YAML ({' '.join(str(error).split())[:160]})") from None
    try:
        said = CampaignSection.model_validate(content)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        said_of = fault["msg"].removeprefix("Value error, ")
        raise InputError(f"{path}: {where}: {said_of}" if where else f"{path}: {said_of}") from None
    tiny = _as_overrides(said.tiny) if "scale=tiny" in overrides else []
    groups = {}
    for group in said.groups:
        file = path.parent / (group.recipe or said.recipe)
        own = {**group.set, "conditions": group.conditions, "seeds": group.seeds}
        if not file.is_file():
            raise InputError(f"{path}: its group {group.name!r} names the recipe {file}, and there is none")
        origin = f"{path}: group {group.name!r}, {file.name}"
        groups[group.name] = parse_recipe(
            file.read_text(encoding="utf-8"), origin, [*_as_overrides(own), *tiny, *overrides]
        )
    return Campaign(said.name, groups)


def done_cells(results: Path) -> tuple[Cell, ...]:
    """Return the cells whose rows are in a folder of results; none where there is no such folder yet."""
    return tuple(_cell(cell) for packet in merged_packets(results) for cell in packet["cells"])


def open_cells(campaign: Campaign, results: Path) -> tuple[Cell, ...]:
    """Return what is still to be done, in the campaign's order."""
    done = set(done_cells(results))
    return tuple(cell for cell in campaign.cells if cell not in done)


def run_packet(
    campaign: Campaign,
    results: Path,
    out: Path,
    work: Path,
    *,
    minutes: float,
    at_once: int,
    command: Sequence[str],
    watch: Watch,
) -> Packet:
    """Do the next open cells, `at_once` side by side, as long as another batch fits in `minutes`; write a packet.

    The packet in `out` is whole after every batch. `work` keeps the runs and their steps: what is finished there is not
    done again. A step that fails is said in the packet and does not stop the others. Raises `InputError` where `out`
    holds something else, or a file that a recipe names is missing.
    """
    _refuse_unmerged(out, results)
    began = time.monotonic()
    done: dict[Cell, float] = {}
    failed: dict[Cell, str] = {}
    parts: list[tuple[pa.Table, pa.Table]] = []
    origin: dict[str, Any] = {}
    left, last = open_cells(campaign, results), 0.0
    while left and (not last or time.monotonic() - began + _SLACK * last <= 60 * minutes):
        batch = _next_batch(left, at_once)
        left = left[len(batch) :]
        start = time.monotonic()
        run = work / f"{batch[0].group}-seed{batch[0].seed}-{_short([cell.condition for cell in batch])}"
        recipe = _recipe_of(campaign.groups[batch[0].group], batch, at_once)
        try:
            failures = run_recipe(recipe, run, command=command, watch=watch, store=work / "steps")
        except InputError as error:  # a file that only this group needs
            failed |= dict.fromkeys(batch, str(error))
            continue
        last = time.monotonic() - start
        origin = read_json(run / "provenance.json")
        reasons = {failure.step.label: failure.reason for failure in failures}
        for cell in batch:
            if why := _unfinished(run, recipe, cell, reasons):
                failed[cell] = why
            else:
                done[cell] = round(last / len(batch), 1)
                parts.append((_rows(run, cell), _smallest(run, cell)))
        _write(out, campaign, done, parts, {"at_once": at_once, "provenance": origin})
    return Packet(out, tuple(done), failed)


def _refuse_unmerged(out: Path, results: Path) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    said = read_json(out / "packet.json") if out.is_dir() else {}
    if not said:
        raise InputError(f"{out}: holds other files; choose an empty or new folder for --out")
    if set(map(_cell, said["cells"])) - set(done_cells(results)):
        raise InputError(f"{out}: holds a packet that is not merged yet; merge it, or name another --out")


def merge_packet(campaign: Campaign, packet: Path, results: Path) -> tuple[Cell, ...]:
    """Add a packet's rows to the results, and return its cells.

    Raises `InputError`, and changes nothing, for cells that are there already, that are none of the campaign's, or
    that were measured with other settings than it has now; and for a folder that is no packet.
    """
    said = read_json(packet / "packet.json")
    if not said:
        raise InputError(f"{packet}: no packet in it (packet.json is missing); `neuroprior campaign run` makes one")
    cells = tuple(map(_cell, said["cells"]))
    if not cells:
        raise InputError(f"{packet}: none of its cells was finished; nothing to merge")
    done = set(done_cells(results))
    if there := sorted(set(cells) & done):
        raise InputError(f"{packet}: {_said(there[0])} is in {results} already; each is merged once")
    if strange := sorted(set(cells) - set(campaign.cells)):
        raise InputError(f"{packet}: {_said(strange[0])} is none of campaign {campaign.name}; name its own")
    for group, digest in said["settings"].items():
        if digest != campaign.settings(group):
            raise InputError(f"{packet}: group {group} was measured with other settings than {campaign.name} has now")
    parts = {}
    for name, schema in _TABLES.items():
        try:
            new = pq.read_table(packet / f"{name}.parquet", schema=schema)
        except (OSError, pa.ArrowInvalid) as error:
            raise InputError(f"{packet / f'{name}.parquet'}: missing or damaged ({str(error)[:80]})") from None
        old = results / f"{name}.parquet"
        parts[name] = (
            pa.concat_tables([_rows_of(done, pq.read_table(old, schema=schema)), new]) if old.exists() else new
        )
    results.mkdir(parents=True, exist_ok=True)
    for name, table in parts.items():
        _save(table, results / f"{name}.parquet")
    # last: what it does not name, is not there
    write_json(results / "packets.json", {"campaign": campaign.name, "packets": [*merged_packets(results), said]})
    return cells


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


def merged_packets(results: Path) -> list[dict[str, Any]]:
    """Return what each merged packet says of itself: cells with their seconds, provenance."""
    packets: list[dict[str, Any]] = (read_json(results / "packets.json") or {"packets": []})["packets"]
    return packets


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


def _as_overrides(said: Mapping[str, Any]) -> list[str]:
    return [f"{key}={json.dumps(value)}" for key, value in said.items()]


def _next_batch(left: Sequence[Cell], at_once: int) -> list[Cell]:
    """The first cells that one run can do: of one group and seed."""
    first = left[0]
    return list(takewhile(lambda cell: (cell.group, cell.seed) == (first.group, first.seed), left[:at_once]))


def _recipe_of(group: Recipe, batch: Sequence[Cell], at_once: int) -> Recipe:
    """The group's recipe with these cells alone."""
    compute = group.compute.model_copy(update={"workers": at_once})
    said = {"conditions": tuple(cell.condition for cell in batch), "seeds": (batch[0].seed,), "compute": compute}
    return group.model_copy(update=said)


def _unfinished(run: Path, recipe: Recipe, cell: Cell, reasons: Mapping[str, str]) -> str | None:
    """Why a cell is not whole, or None."""
    store, planned = store_of(run), {step.label: step for step in RunPlan.read(run).steps}
    for kind in ("train", "measure", *(("attack",) if recipe.perturbations.by_norm else ())):
        label = step_label(kind, cell.condition, cell.seed)
        if not (store.root / planned[label].name).is_dir():
            first = next(iter(reasons.items()), (label, "not finished"))
            why = reasons.get(label)
            return f"{label}: {why}" if why else f"{first[0]}: {first[1]}"
    return None


def _rows(run: Path, cell: Cell) -> pa.Table:
    table = pq.read_table(run / "metrics.parquet", schema=METRICS_SCHEMA)
    chosen = [row for row in table.to_pylist() if (row["condition"], row["seed"]) == (cell.condition, cell.seed)]
    return pa.Table.from_pylist([{"group": cell.group, **row} for row in chosen], schema=ROWS_SCHEMA)


def _smallest(run: Path, cell: Cell) -> pa.Table:
    """The smallest perturbation of every image in every norm."""
    found: list[dict[str, Any]] = []
    if (run / "attacks.parquet").exists():
        whole = Ledger.load(run / "attacks.parquet")
        name = attacked_name(cell.condition, cell.seed)
        mine = whole.of(model=name) if name in whole.models else None
        for norm in mine.norms if mine is not None else ():
            part = mine.of(norm=norm)  # type: ignore[union-attr]
            found += [
                {**asdict(cell), "norm": norm, "sample": sample, "distance": distance}
                for sample, distance in zip(part.samples, part.distances().tolist(), strict=True)
            ]
    return pa.Table.from_pylist(found, schema=PERTURBATIONS_SCHEMA)


def _write(
    out: Path,
    campaign: Campaign,
    done: Mapping[Cell, float],
    parts: Sequence[tuple[pa.Table, pa.Table]],
    more: Mapping[str, Any],
) -> None:
    """Write the packet anew; `packet.json`, which says what is in it, comes last."""
    out.mkdir(parents=True, exist_ok=True)
    for k, (name, schema) in enumerate(_TABLES.items()):
        _save(pa.concat_tables([schema.empty_table(), *(part[k] for part in parts)]), out / f"{name}.parquet")
    settings = {group: campaign.settings(group) for group in dict.fromkeys(cell.group for cell in done)}
    cells = [{**asdict(cell), "seconds": seconds} for cell, seconds in done.items()]
    write_json(out / "packet.json", {"campaign": campaign.name, "settings": settings, "cells": cells, **more})


def _rows_of(cells: set[Cell], table: pa.Table) -> pa.Table:
    """Rows of these cells: others are of a merge that was stopped halfway, and come again."""
    return table.filter(pa.array([_cell(row) in cells for row in table.to_pylist()], pa.bool_()))


def _save(table: pa.Table, path: Path) -> None:
    with appearing_whole(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def _cell(said: Mapping[str, Any]) -> Cell:
    return Cell(said["group"], said["condition"], said["seed"])


def _said(cell: Cell) -> str:
    return f"{cell.condition} of group {cell.group}, seed {cell.seed},"


def _short(names: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]
