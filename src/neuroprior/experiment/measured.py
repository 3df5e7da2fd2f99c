"""What a folder has measured: a run's, finished or not, or one that `neuroprior report --publish` wrote."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from neuroprior.experiment.recipe import Recipe, parse_recipe
from neuroprior.experiment.results import Measurements, NoiseExamples, RunResults
from neuroprior.experiment.run import card_of, published_metrics, read_metrics, task_said
from neuroprior.experiment.runs import RunPlan, store_of
from neuroprior.types import InputError, Stimuli


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredFolder:
    """One run's numbers, the recipe that they are of, and where they come from."""

    folder: Path
    recipe: Recipe
    provenance: Mapping[str, Any]
    measurements: Measurements


def measured_in(folder: Path) -> MeasuredFolder:
    """Read a folder's metrics. Raises `InputError` where there are none, or they are damaged."""
    needed = ("recipe.yaml", "provenance.json")
    for name in needed:
        if not (folder / name).is_file():
            raise InputError(f"{folder}: no run in it ({name} is missing); name a run's folder, or a published one")
    try:
        recipe = parse_recipe((folder / "recipe.yaml").read_text(encoding="utf-8"), str(folder / "recipe.yaml"))
        origin = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
        missing: tuple[str, ...] = ()
        if (folder / "plan.json").is_file():  # a run, which may have gone on since its metrics were gathered
            store = store_of(folder)
            steps = RunPlan.read(folder).steps
            metrics = read_metrics([store.root / step.name for step in steps], folder)
            missing = tuple(step.label for step in steps if not (store.root / step.name).is_dir())
        else:
            metrics = published_metrics(folder)
    except FileNotFoundError:
        raise InputError(f"{folder}: metrics.parquet is missing; name a run's folder, or a published one") from None
    except (pa.ArrowInvalid, pa.ArrowKeyError, json.JSONDecodeError, KeyError) as error:
        raise InputError(f"{folder}: damaged ({str(error).splitlines()[0][:120]}); publish or run it again") from None
    return MeasuredFolder(
        folder,
        recipe,
        origin,
        Measurements(
            name=recipe.report.title or recipe.name,
            conditions=tuple(card_of(recipe, name) for name in recipe.conditions),
            metrics=metrics,
            noise_levels=recipe.noise.sigmas,
            shown_levels=recipe.report.levels,
            missing=missing,
        ),
    )


def published_run(folder: Path, out: Path) -> RunResults:
    """Read a published folder as a run in `out`, for a report: its numbers, without matrices, pictures and attacks.

    Raises `InputError` as `measured_in` does.
    """
    found = measured_in(folder)
    recipe, numbers = found.recipe, found.measurements
    return RunResults(
        folder=out,
        name=numbers.name,
        description=recipe.description,
        task=task_said(recipe),
        recipe_yaml=(folder / "recipe.yaml").read_text(encoding="utf-8"),
        provenance=found.provenance,
        conditions=numbers.conditions,
        metrics=numbers.metrics,
        truth=None,
        stimuli=Stimuli(np.zeros(0, dtype=str), np.zeros((0, 1, 1), np.uint8)),
        examples=NoiseExamples(np.zeros((0, 1, 1), np.float32), ()),
        noise_levels=numbers.noise_levels,
        shown_levels=numbers.shown_levels,
        figures=tuple(figure for figure in recipe.report.figures if figure not in _UNPUBLISHED),
    )


_UNPUBLISHED = (
    *("examples", "schematic", "recorded", "fluctuations", "scatter", "matrix", "histogram", "truth", "pairs"),
    *("units", "supplement", "perturbation"),
)
"""Figures of what is not published: images, matrices, single attacks."""
