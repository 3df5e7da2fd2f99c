"""Figure 1 and 2 of the paper for anyone's scans, as a page: matrices, fluctuations, single trials, extreme pairs."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from neuroprior.files import write_whole
from neuroprior.recordings import ScanStability
from neuroprior.report.image_drawings import image_pairs
from neuroprior.report.over_scans import ceiling_table, over_scans_csv, over_scans_table
from neuroprior.report.plate import Panel, Plate, write_plates
from neuroprior.report.stability_drawings import growth
from neuroprior.report.stability_plates import fluctuation_sets, fluctuations_of, matrices_of, scatter_of
from neuroprior.report.svg import house_style, inline_svg
from neuroprior.report.tables import csv_text, minus
from neuroprior.report.targets import extreme_pairs
from neuroprior.report.templates import render
from neuroprior.types import Float32

_PAIRS = 4

Growth = Mapping[str, Sequence[tuple[int, float]]]


def stability_json(found: ScanStability, grown: Growth | None = None) -> dict[str, Any]:
    """Return the numbers behind the figures; standard deviations are over pairs (of all scans)."""
    said: dict[str, Any] = {
        "scans": list(found.names),
        "images": len(found.stimuli),
        "r": {
            name: [round(r, 4) if math.isfinite(r) else None for r in rs] for name, rs in found.correlations().items()
        },
        "sd": {label: round(float(values.std()), 5) for label, _, values in fluctuation_sets(found)},
        "noise_ceiling": [
            {
                "scan": name,
                "mean": round(ceiling.mean, 4),
                "low": round(ceiling.low, 4),
                "high": round(ceiling.high, 4),
                "best_model": round(ceiling.best_model, 4),
            }
            for name, ceiling in zip(found.names, found.ceilings, strict=True)
            if ceiling is not None
        ],
        "not_computed": list(found.not_computed),
    }
    if grown:
        said["r_with_truth_by_repeats"] = {name: {str(t): round(r, 4) for t, r in rs} for name, rs in grown.items()}
    return said


def write_stability(found: ScanStability, folder: Path, grown: Growth | None = None) -> list[Path]:
    """Write `index.html`, which stands alone, each figure as SVG, and `scans.csv`; return the paths."""
    with house_style():
        plates = _plates(found, grown)
    drawn = [(plate, [Markup(inline_svg(one.figure, one.name, one.alt)) for one in plate.panels]) for plate in plates]
    page = render(
        "stability.html.jinja",
        names=found.names,
        images=len(found.stimuli),
        ceilings=ceiling_table(found),
        over_scans=over_scans_table(found),
        plates=drawn,
    )
    written = write_plates(folder, page, plates)
    table = over_scans_csv(found)
    return [*written, write_whole(folder / "scans.csv", csv_text(table))] if len(table) > 1 else written


def _plates(found: ScanStability, grown: Growth | None) -> list[Plate]:
    mean: Float32[np.ndarray, "image image"] = found.oracle.mean(axis=0)
    plates = [matrices_of(found), fluctuations_of(found), scatter_of(found)]
    if found.not_computed:
        plates.insert(0, Plate("What these repeats do not say", absent=f"{'; '.join(found.not_computed)}."))
    if grown:
        ends = [points[-1] for points in grown.values()]
        caption = (
            f"Correlation over pairs of Eq. 3 with the true, noise-free similarity (Eq. 2 of single trials at 1), a "
            f"line a scan; at {ends[0][0]} trials r = {min(r for _, r in ends):.2f} to {max(r for _, r in ends):.2f}."
        )
        plates.append(
            Plate("More repeats, nearer the truth", (Panel("growth", growth(list(grown.items())), caption),), caption)
        )
    plates.append(_alike(found, mean))
    return plates


def _alike(found: ScanStability, mean: Float32[np.ndarray, "image image"]) -> Plate:
    panels = []
    for name, most in (("Most", True), ("Least", False)):
        pairs = extreme_pairs(mean, _PAIRS, most=most)
        shown = [(np.stack([found.stimuli.pixels[i], found.stimuli.pixels[j]]), value) for i, j, value in pairs]
        alt = f"{name} similar image pairs, S = {', '.join(minus(f'{value:z.2f}') for _, value in shown)}."
        panels.append(Panel(f"pairs-{name.lower()}", image_pairs(f"{name} similar", shown), alt))
    caption = "Figure 2. Pairs of oracle images with the largest and smallest mean S over scans; no image twice."
    return Plate("Most and least similar images", tuple(panels), caption)
