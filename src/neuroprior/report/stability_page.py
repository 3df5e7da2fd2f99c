"""Figure 1 and 2 of the paper for anyone's scans: matrices, fluctuations, single trials, extreme pairs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from neuroprior.files import appearing_whole
from neuroprior.recordings import ScanStability
from neuroprior.report.image_drawings import image_pairs
from neuroprior.report.plate import Panel, Plate
from neuroprior.report.similarity_drawings import similarity_matrix
from neuroprior.report.stability_drawings import against_average, fluctuations, growth
from neuroprior.report.svg import house_style, inline_svg, svg_text
from neuroprior.report.tables import minus
from neuroprior.report.targets import extreme_pairs, leaf_order, pairs_of
from neuroprior.report.templates import render
from neuroprior.types import Float32

_SCANS = 8  # matrices that are drawn
_PAIRS = 4

Growth = Mapping[str, Sequence[tuple[int, float]]]


def stability_json(found: ScanStability, grown: Growth | None = None) -> dict[str, Any]:
    """Return the numbers behind the figures; standard deviations are over pairs (of all scans)."""
    said: dict[str, Any] = {
        "scans": list(found.names),
        "images": len(found.stimuli),
        "r": {name: [round(r, 4) for r in rs] for name, rs in found.correlations().items()},
        "sd": {label: round(float(values.std()), 5) for label, _, values in _fluctuations(found)},
        "noise_ceiling": [
            {
                "scan": name,
                "mean": round(ceiling.mean, 4),
                "low": round(ceiling.low, 4),
                "high": round(ceiling.high, 4),
                "best_model": round(ceiling.best_model, 4),
            }
            for name, ceiling in zip(found.names, found.ceilings, strict=True)
        ],
    }
    if grown:
        said["r_with_truth_by_repeats"] = {name: {str(t): round(r, 4) for t, r in rs} for name, rs in grown.items()}
    return said


def write_stability(found: ScanStability, folder: Path, grown: Growth | None = None) -> list[Path]:
    """Write `index.html`, which stands alone, and each figure as SVG; return the paths."""
    with house_style():
        plates = _plates(found, grown)
    drawn = [(plate, [Markup(inline_svg(one.figure, one.name, one.alt)) for one in plate.panels]) for plate in plates]
    page = render("stability.html.jinja", names=found.names, said=stability_json(found, grown), plates=drawn)
    folder.mkdir(parents=True, exist_ok=True)
    contents = {"index.html": page}
    contents |= {f"{one.name}.svg": svg_text(one.figure) for plate in plates for one in plate.panels}
    for name, text in contents.items():
        with appearing_whole(folder / name) as temporary:
            temporary.write_text(text, "utf-8")
    return [folder / name for name in contents]


def _plates(found: ScanStability, grown: Growth | None) -> list[Plate]:
    mean: Float32[np.ndarray, "image image"] = found.oracle.mean(axis=0)
    order = np.array(leaf_order(mean))
    plates = [_matrices(found, order), _spread(found), _scatter(found)]
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


def _matrices(found: ScanStability, order: np.ndarray) -> Plate:
    shown = list(zip(found.names, found.oracle, strict=True))[:_SCANS] + list(found.models.items())
    panels = []
    for k, (name, matrix) in enumerate(shown):
        limit = max(float(np.quantile(np.abs(pairs_of(matrix)), 0.99)), 1e-3)
        part = np.ascontiguousarray(matrix[np.ix_(order, order)])
        panels.append(Panel(f"matrix-{k}", similarity_matrix(name, part, limit), f"Similarity matrix of {name}."))
    left = len(found.names) - min(len(found.names), _SCANS)
    caption = (
        f"Figure 1 A{', B' if found.models else ''}. Eq. 3 of each scan{', and matrices given' * bool(found.models)}, "
        f"of {len(found.stimuli)} oracle images, in one order (average-linkage clustering of the mean over scans). "
        f"Colours saturate at each matrix' 99th percentile.{f' {left} more scans are not drawn.' if left else ''}"
    )
    return Plate("Similarity of the oracle images", tuple(panels), caption)


def _fluctuations(found: ScanStability) -> list[tuple[str, str, np.ndarray]]:
    """Label, look and values of what Figure 1 C shows."""
    sets = [
        ("over repeats (Eq. 5)", "neural_data", found.over_repeats),
        ("over trials, i ≠ j", "vgg", found.over_trials),
    ]
    if found.over_scans is not None and found.single_over_scans is not None:
        sets = [
            ("over scans (Eq. 4)", "neural_model", found.over_scans.ravel()),
            sets[0],
            ("single trials over scans", "blur", found.single_over_scans.ravel()),
            sets[1],
        ]
    return sets


def _spread(found: ScanStability) -> Plate:
    sets = _fluctuations(found)
    said = "; ".join(f"{label}: {values.std():.3f}" for label, _, values in sets)
    caption = (
        f"Figure 1 C. Standard deviations: {said}. Eq. 4 is of averages over trials and of different images, Eq. 5 of "
        "single pairs of trials of one image; the other two compare like with like: single trials, different images."
    )
    return Plate("How far similarities move", (Panel("fluctuations", fluctuations(sets), caption),), caption)


def _scatter(found: ScanStability) -> Plate:
    oracle = np.concatenate([pairs_of(one) for one in found.oracle])
    rs = {name: float(np.mean(values)) for name, values in found.correlations().items()}
    looks = iter(("blur", "vgg", "pixel", "lowpass"))
    sets = [("single trials", "neural_data", oracle, np.concatenate([pairs_of(one) for one in found.single]))]
    for name, model in list(found.models.items())[:4]:
        sets.append((name, next(looks), oracle, np.tile(pairs_of(model), len(found.oracle))))
    if found.truths is not None:
        sets.append(("truth", "neural_model", oracle, np.concatenate([pairs_of(one) for one in found.truths])))
    said = "; ".join(f"{name}: r = {minus(f'{r:z.2f}')}" for name, r in rs.items())
    caption = (
        f"Figure 1 D. Against Eq. 3, off-diagonal pairs of all scans; r is the mean over scans. {said}. A single trial "
        "inside the average shares its noise; apart from it, it does not. (The paper: 0.39 for single trials, 0.73 for "
        "models.) Dashed: identity."
    )
    return Plate(
        "From single trials to averages", (Panel("scatter", against_average("S, Eq. 3", sets), caption),), caption
    )


def _alike(found: ScanStability, mean: Float32[np.ndarray, "image image"]) -> Plate:
    panels = []
    for name, most in (("Most", True), ("Least", False)):
        pairs = extreme_pairs(mean, _PAIRS, most=most)
        shown = [(np.stack([found.stimuli.pixels[i], found.stimuli.pixels[j]]), value) for i, j, value in pairs]
        alt = f"{name} similar image pairs, S = {', '.join(minus(f'{value:z.2f}') for _, value in shown)}."
        panels.append(Panel(f"pairs-{name.lower()}", image_pairs(f"{name} similar", shown), alt))
    caption = "Figure 2. Pairs of oracle images with the largest and smallest mean S over scans; no image twice."
    return Plate("Most and least similar images", tuple(panels), caption)
