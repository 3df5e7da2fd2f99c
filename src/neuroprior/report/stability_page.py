"""Figure 1 and 2 of the paper for anyone's scans: matrices, fluctuations, single trials, extreme pairs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from neuroprior.recordings import ScanStability
from neuroprior.report.image_drawings import image_pairs
from neuroprior.report.plate import Panel, Plate, write_plates
from neuroprior.report.similarity_drawings import similarity_matrix
from neuroprior.report.stability_drawings import against_average, fluctuations, growth
from neuroprior.report.svg import house_style, inline_svg
from neuroprior.report.tables import minus
from neuroprior.report.targets import extreme_pairs, leaf_order, pairs_of
from neuroprior.report.templates import render
from neuroprior.types import Float32

_SCANS = 8  # matrices that are drawn
_PAIRS = 4
_MODELS = 4  # that are drawn against Eq. 3
_MODEL_LOOKS = ("blur", "vgg", "pixel", "lowpass")

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
            if ceiling is not None
        ],
        "not_computed": list(found.not_computed),
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
    return write_plates(folder, page, plates)


def _plates(found: ScanStability, grown: Growth | None) -> list[Plate]:
    mean: Float32[np.ndarray, "image image"] = found.oracle.mean(axis=0)
    order = np.array(leaf_order(mean))
    plates = [_matrices(found, order), _spread(found), _scatter(found)]
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


def _matrices(found: ScanStability, order: np.ndarray) -> Plate:
    shown = list(zip(found.names, found.oracle, strict=True))[:_SCANS] + list(found.models.items())
    # one scale, so that colours can be compared between animals
    limit = max(float(np.quantile(np.abs(np.concatenate([pairs_of(matrix) for _, matrix in shown])), 0.99)), 1e-3)
    panels = []
    for k, (name, matrix) in enumerate(shown):
        part = np.ascontiguousarray(matrix[np.ix_(order, order)])
        panels.append(Panel(f"matrix-{k}", similarity_matrix(name, part, limit), f"Similarity matrix of {name}."))
    left = len(found.names) - min(len(found.names), _SCANS)
    caption = (
        f"Figure 1 A{', B' if found.models else ''}. Eq. 3 of each scan{', and matrices given' * bool(found.models)}, "
        f"of {len(found.stimuli)} oracle images, in one order (average-linkage clustering of the mean over scans). "
        "Colours are one scale for all, which saturates at their 99th percentile."
        f"{f' {left} more scans are not drawn.' if left else ''}"
    )
    return Plate("Similarity of the oracle images", tuple(panels), caption)


def _fluctuations(found: ScanStability) -> list[tuple[str, str, np.ndarray]]:
    """Label, look and values of what Figure 1 C shows."""
    sets = [
        ("over scans (Eq. 4)", "neural_model", found.over_scans),
        ("over repeats (Eq. 5)", "neural_data", found.over_repeats),
        ("single trials over scans", "blur", found.single_over_scans),
        ("over trials, i ≠ j", "vgg", found.over_trials),
    ]
    return [(label, look, values.ravel()) for label, look, values in sets if values is not None]


def _spread(found: ScanStability) -> Plate:
    sets = _fluctuations(found)
    said = "; ".join(f"{label}: {values.std():.3f}" for label, _, values in sets)
    caption = (
        f"Figure 1 C. Standard deviations: {said}. Eq. 4 is of averages over trials and of different images, Eq. 5 of "
        "single pairs of trials of one image; the others compare like with like: single trials, different images."
    )
    return Plate("How far similarities move", (Panel("fluctuations", fluctuations(sets), caption),), caption)


def _scatter(found: ScanStability) -> Plate:
    """Figure 1 D, a panel a kind, on the same axes; the caption says the r of what is drawn."""
    oracle = np.concatenate([pairs_of(one) for one in found.oracle])
    rs = {name: minus(f"{np.mean(values):z.2f}") for name, values in found.correlations().items()}
    sets, said = [], []
    if found.single is not None:
        inside, apart = (rs[f"single trial, {where} the average"] for where in ("inside", "apart from"))
        sets.append(("single trials", "neural_data", np.concatenate([pairs_of(one) for one in found.single])))
        said.append(f"single trials: r = {inside} inside the average, whose noise they share, {apart} apart from it")
    for (name, model), look in zip(list(found.models.items())[:_MODELS], _MODEL_LOOKS, strict=False):
        sets.append((name, look, np.tile(pairs_of(model), len(found.oracle))))
        said.append(f"{name}: r = {rs[name]}")
    if found.truths is not None:
        sets.append(("truth of these neurons", "neural_model", np.concatenate([pairs_of(one) for one in found.truths])))
        said.append(f"truth of these very neurons: r = {rs['truth']}")
    heading = "From single trials to averages"
    if not sets:
        return Plate(heading, absent="needs single trials beside averages, models or truths.")
    left = len(found.models) - min(len(found.models), _MODELS)
    caption = (
        f"Figure 1 D. Against Eq. 3, off-diagonal pairs of all scans; r is the mean over scans. {'; '.join(said)}. "
        f"(The paper: 0.39 for single trials, 0.73 for models.) Dashed: identity."
        f"{f' {left} more models are not drawn.' if left else ''}"
    )
    limits = _ends(oracle), _ends(np.concatenate([values for _, _, values in sets]))
    panels = [
        Panel(f"scatter-{k}", against_average(label, look, oracle, values, limits), f"{label} against Eq. 3. {caption}")
        for k, (label, look, values) in enumerate(sets)
    ]
    return Plate(heading, tuple(panels), caption)


def _ends(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    room = 0.03 * max(high - low, 1e-3)
    return low - room, high + room


def _alike(found: ScanStability, mean: Float32[np.ndarray, "image image"]) -> Plate:
    panels = []
    for name, most in (("Most", True), ("Least", False)):
        pairs = extreme_pairs(mean, _PAIRS, most=most)
        shown = [(np.stack([found.stimuli.pixels[i], found.stimuli.pixels[j]]), value) for i, j, value in pairs]
        alt = f"{name} similar image pairs, S = {', '.join(minus(f'{value:z.2f}') for _, value in shown)}."
        panels.append(Panel(f"pairs-{name.lower()}", image_pairs(f"{name} similar", shown), alt))
    caption = "Figure 2. Pairs of oracle images with the largest and smallest mean S over scans; no image twice."
    return Plate("Most and least similar images", tuple(panels), caption)
