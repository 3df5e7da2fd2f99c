"""A figure of the page with its words, and what the words of all figures share."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
from matplotlib.figure import Figure

from neuroprior.experiment.results import Measurements, RunResults
from neuroprior.files import write_whole
from neuroprior.report.drawing import Line
from neuroprior.report.palette import looks_of
from neuroprior.report.svg import svg_text
from neuroprior.report.tables import Curve, curve_of, seeds_phrase


@dataclass(frozen=True, slots=True)
class Panel:
    """One drawing: `name` for files and ids, `alt` for who cannot see it."""

    name: str
    figure: Figure
    alt: str


@dataclass(frozen=True, slots=True)
class Plate:
    """One figure of the page, of one or more panels; `absent` says in one line why there is none."""

    heading: str
    panels: tuple[Panel, ...] = ()
    caption: str = ""
    absent: str = ""


@dataclass(frozen=True, slots=True)
class Origin:
    """What figures and tables are made from: `command`, empty if not recorded, and digests by what they are of."""

    command: str
    digests: tuple[tuple[str, str], ...]


def origin_of(results: RunResults) -> Origin:
    """Return the run's command and the digests of its metrics, its attacks where there are any, and its recipe.

    Each digest is the first 12 hexadecimal digits of SHA-256: of the recipe's text, as it stands in `recipe.yaml`, and
    of tables' rows (`rows_digest`).
    """
    digests = [("metrics", rows_digest(results.metrics))]
    if results.attacks is not None:
        digests.append(("attacks", rows_digest(results.attacks.without_adversarials().table)))
    digests.append(("recipe", hashlib.sha256(results.recipe_yaml.encode()).hexdigest()[:12]))
    return Origin(str(results.provenance.get("command") or ""), tuple(digests))


def rows_digest(table: pa.Table) -> str:
    """Return SHA-256 (12 digits) of the rows in order, each as a JSON list of its values and a line feed.

    Of the numbers, not of the file: compression and the version of its writer do not change it.
    """
    whole = hashlib.sha256()
    for batch in table.to_batches(max_chunksize=10_000):
        lines = [f"{json.dumps([*row.values()])}\n" for row in batch.to_pylist()]
        whole.update("".join(lines).encode())
    return whole.hexdigest()[:12]


def write_plates(folder: Path, page: str, plates: Sequence[Plate]) -> list[Path]:
    """Write `index.html` and every panel as SVG, each whole or not at all; return the paths, the page's first."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {"index.html": page}
    contents |= {f"{one.name}.svg": svg_text(one.figure) for plate in plates for one in plate.panels}
    return [write_whole(folder / name, text) for name, text in contents.items()]


def lines_of(results: Measurements, metric: str) -> list[Line]:
    """Return the curve of every condition in which the metric was measured, with its label and look."""
    looks = looks_of(results.conditions)
    found = [(card, curve) for card in results.conditions if (curve := curve_of(results.metrics, card.name, metric))]
    return [Line(card.label, curve, looks[card.name]) for card, curve in found]


def seeds_behind(curves: Sequence[Curve]) -> list[int]:
    """Return the number of seeds at every x of every curve."""
    return [estimate.n for curve in curves for estimate in curve.estimates]


def spread_phrase(n: Sequence[int], drawn_as: Literal["bands", "bars"]) -> str:
    """Say how the spread over seeds is drawn, and n: `Mean, bands ± SEM (ddof 1), n = 5 seeds.`"""
    return f"{f'Mean, {drawn_as} ± SEM (ddof 1), ' if max(n) > 1 else ''}{seeds_phrase(n)}."
