"""What goes with a network or target that is passed on: its page, with its numbers beside those of its controls."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow.compute as pc
import yaml

from neuroprior.experiment.exchange import RIGHTS, TARGET_FILE, TrainedNetwork
from neuroprior.experiment.results import ConditionCard, RunResults
from neuroprior.report.perturbations import NORMS
from neuroprior.report.tables import NOT_MEASURED, Curve, Estimate, Table, curve_of, percent, range_phrase, shown_levels
from neuroprior.types import AnyTarget, FactoredTarget

__all__ = ["excerpt_table", "network_page", "target_page"]

LOADS_NETWORK = """\
import torch
network = torch.export.load("network.pt2").module()
images = torch.rand(8, {channels}, {height}, {width})  # float32 in [0, 1]: (image, channel, height, width)
logits = network(images)  # (image, class)
"""
LOADS_MATRIX = f"""\
import json
from safetensors.numpy import load_file
held = load_file("{TARGET_FILE}")
image_ids, similarity = json.loads(held["image_ids"].tobytes()), held["matrix"]
"""
LOADS_COORDINATES = f"""\
import json
from safetensors.numpy import load_file
held = load_file("{TARGET_FILE}")
image_ids, e = json.loads(held["image_ids"].tobytes()), held["coordinates"]  # of images i and j: e[i] @ e[j]
"""

_LISTED = 20  # classes that the page names


@dataclass(frozen=True, slots=True)
class _Column:
    """One number of each network: `metric` at `x`, None where it has none."""

    head: str
    metric: str
    x: float | None
    written: Callable[[Estimate | None], str]

    def of(self, results: RunResults, condition: str) -> tuple[Estimate | None, int | None]:
        """Return the number, and how many images are behind it."""
        curve = curve_of(results.metrics, condition, self.metric)
        if self.x is None:
            return curve.only(), min(curve.counts, default=None)
        return curve.at(self.x), _count_at(curve, self.x)


def excerpt_table(results: RunResults, condition: str, seed: int) -> Table:
    """Return what one seed's networks withstand, one row a condition, `condition` in bold; n stands in each head."""
    of_seed = _of_seed(results, seed)
    columns = list(_columns(of_seed))
    heads, cells = [], []
    for column in columns:
        found = [column.of(of_seed, card.name) for card in results.conditions]
        counts = [n for _, n in found if n is not None]
        heads.append(f"{column.head} (n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{range_phrase(counts)})")
        cells.append([column.written(estimate) for estimate, _ in found])
    rows = []
    for k, card in enumerate(results.conditions):
        label = f"**{card.label}**" if card.name == condition else card.label
        rows.append((label, card.target, *(column[k] for column in cells)))
    return Table(
        caption=f"Networks of seed {seed}, measured on {results.task}; n is the number of test images. "
        f"{_HOW_MEASURED} Measured in {_precision(results)}.",
        header=("Condition", "Target taught", *heads),
        rows=tuple(rows),
    )


_HOW_MEASURED = (
    "Accuracies in %: clean, with Gaussian noise of standard deviation σ, and under attack at a radius (pixels in "
    "[0, 1]). The median is of the smallest perturbations found, an image that was already wrong counting as 0."
)


def _of_seed(results: RunResults, seed: int) -> RunResults:
    return replace(results, metrics=results.metrics.filter(pc.field("seed") == seed))


def _columns(results: RunResults) -> Iterator[_Column]:
    def measured(metric: str) -> list[float]:
        curves = [curve_of(results.metrics, card.name, metric) for card in results.conditions]
        return sorted({x for curve in curves for x in curve.x})

    yield _Column("Clean", "noise_accuracy", 0.0, _accuracy)
    for level in shown_levels(results):
        yield _Column(f"Noise σ = {level:g}", "noise_accuracy", level, _accuracy)
    for radius in measured("linf_accuracy"):
        yield _Column(f"PGD, L∞ {radius:.3g}", "linf_accuracy", radius, _accuracy)
    for norm in NORMS:
        sign = norm.upper().replace("INF", "∞")
        for radius in measured(f"attacked_accuracy_{norm}"):
            yield _Column(f"Attack ensemble, {sign} {radius:.3g}", f"attacked_accuracy_{norm}", radius, _accuracy)
        if measured(f"median_{norm}"):
            yield _Column(f"Median smallest {sign}", f"median_{norm}", None, _length)


def _count_at(curve: Curve, x: float) -> int | None:
    for here, count in zip(curve.x, curve.counts, strict=True):
        if math.isclose(here, x, abs_tol=1e-9):
            return count
    return None


def _accuracy(estimate: Estimate | None) -> str:
    return percent(estimate, "")


def _length(estimate: Estimate | None) -> str:
    if estimate is None:
        return NOT_MEASURED
    return f"{estimate.mean:.3g}" if math.isfinite(estimate.mean) else "not found"


def _precision(results: RunResults) -> str:
    compute = results.provenance.get("compute", {})
    return f"{compute.get('precision', 'unknown precision')} on {results.provenance.get('device', 'an unknown device')}"


def controls_sentence(results: RunResults, condition: str, seed: int) -> str:
    """Say what the table can and cannot show: that of a brain is what goes beyond its controls."""
    others = [card for card in results.conditions if card.name != condition]
    if not others:
        return (
            "This run trained no other condition. Without controls these numbers do not tell what the target did: a "
            "network trained on the task alone, or taught another target, may have them too."
        )
    plain = ", ".join(card.label for card in others if card.plain)
    without = (
        f" Made without a brain, another trained network or an attack: {plain}."
        if plain
        else " None of them is made without a brain, another trained network or an attack."
    )
    said = (
        "Read it beside its controls: what this network withstands can be put down to how it was taught only as far as "
        f"it goes beyond the other conditions of the table.{without}"
    )
    curve = curve_of(_of_seed(results, seed).metrics, condition, "noise_accuracy")
    n = _count_at(curve, 0.0)
    spread = (
        ""
        if n is None
        else f", and an accuracy over {n:,} images has a standard error of up to {50 / math.sqrt(n):.1f} %"
    )
    seeds = results.seeds
    more = f", of one seed among the run's {len(seeds)}" if len(seeds) > 1 else ", of one seed"
    return f"{said} These are single networks{more}{spread}: small differences mean nothing."


def network_page(one: TrainedNetwork, *, licence: str) -> str:
    """Return the model card of a network, Markdown with the front matter that Hugging Face reads."""
    results, condition, seed = one.results, one.card.condition, one.card.seed
    card = next(card for card in results.conditions if card.name == condition)
    channels, height, width = one.size
    table = excerpt_table(results, condition, seed)
    tiny = (
        ["It was trained at `scale=tiny`, which checks that everything runs: **its numbers are no result.**"]
        if one.recipe.scale == "tiny"
        else []
    )
    front = "its blur and the scaling of pixels are" if one.blur_sigma is not None else "the scaling of pixels is"
    paragraphs = [
        _front_matter(licence, tags=["image-classification", "pytorch", "robustness"], metrics=["accuracy"]),
        f"# {results.name}: {card.label}, seed {seed}",
        f"A {one.recipe.network.architecture} of width {one.recipe.network.width} for {results.task}, trained by "
        f"neuroprior under the condition `{condition}`. {_taught(card)}",
        *([results.description] if results.description else []),
        *tiny,
        "## Use",
        "Plain PyTorch, without neuroprior:",
        _code(LOADS_NETWORK.format(channels=channels, height=height, width=width)),
        f"Give pixels as they are: {front} part of the network. Any number of images, of this size. "
        f"{_classes(one.classes)}",
        "With neuroprior, which compares every file with `SHA256SUMS` first:",
        _code("from neuroprior import load_network_folder\nnetwork, card = load_network_folder(FOLDER)\n"),
        "## Measured",
        _grid(table.header, table.rows),
        table.caption,
        controls_sentence(results, condition, seed),
        "## Files",
        "\n".join(
            (
                "- `network.pt2`: the network as a `torch.export` program",
                "- `weights.safetensors`: its parameters alone, under the names of `neuroprior.classifier.ResNet`",
                "- `card.json`: condition, seed, scores, every number measured, inputs, classes, versions",
                "- `recipe.yaml`, `provenance.json`: how it was made, with which versions and data (digests)",
                "- `SHA256SUMS`: `sha256sum --check SHA256SUMS`",
            )
        ),
        "## Licence",
        RIGHTS,
    ]
    return "\n\n".join(paragraphs) + "\n"


def target_page(target: AnyTarget, name: str, *, licence: str) -> str:
    """Return the page of a target, as `network_page`; `name`: the title."""
    factored = isinstance(target, FactoredTarget)
    kept = (
        f"as {target.rank} coordinates an image, whose products are within {target.tolerance:g} of it (on the diagonal "
        "it is 1)"
        if isinstance(target, FactoredTarget)
        else "as a symmetric matrix with values in [-1, 1] and a diagonal of 1"
    )
    scans = f", the mean over {target.n_scans} scans" if target.n_scans > 1 else ""
    paragraphs = [
        _front_matter(licence, tags=["neuroscience", "representational-similarity"]),
        f"# {name}",
        f"How alike a population finds each pair of {len(target):,} images (source: {target.source}{scans}), {kept}. "
        "Made by neuroprior.",
        "## Use",
        "Plain NumPy and safetensors, without neuroprior:",
        _code(LOADS_COORDINATES if factored else LOADS_MATRIX),
        "With neuroprior:",
        _code(f'from neuroprior import load_target\ntarget = load_target("{TARGET_FILE}")\n'),
        "## How it was made",
        "\n".join(
            f"- {key}: {value}" for key, value in {"stimuli_digest": target.stimuli_digest, **target.details}.items()
        ),
        "A target says what a population finds alike, not that a network gains by it: teach one its permuted images "
        "(`shuffle`) and what pixels alone say (`pixel`, `lowpass`) too, and compare.",
        "## Licence",
        RIGHTS,
    ]
    return "\n\n".join(paragraphs) + "\n"


def _taught(card: ConditionCard) -> str:
    target = "" if card.target == "none" else f" Its target: {card.target}."
    return f"{card.description}{target}"


def _classes(names: Sequence[str]) -> str:
    if len(names) > _LISTED:
        return f"The {len(names)} classes, in the order of the logits, stand in `card.json`."
    return f"The classes, in the order of the logits: {', '.join(names)}."


def _front_matter(licence: str, *, tags: Sequence[str], **more: Sequence[str]) -> str:
    fields: Mapping[str, Any] = {"license": licence, "tags": ["neuroprior", *tags], **more}
    return f"---\n{yaml.safe_dump(dict(fields), sort_keys=False)}---"


def _code(lines: str) -> str:
    return f"```python\n{lines}```"


def _grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    return "\n".join(map(line, (header, ["---"] * len(header), *rows)))
