"""Figure 1 of the paper for recorded scans: matrices, how far they move, single trials and models against averages."""

import math

import numpy as np

from neuroprior.experiment.results import RunResults
from neuroprior.recordings import ScanStability
from neuroprior.recordings.stability import SINGLE_APART, SINGLE_INSIDE, TRUTH
from neuroprior.report.over_scans import label_of
from neuroprior.report.palette import LOOKS
from neuroprior.report.plate import Panel, Plate
from neuroprior.report.similarity_drawings import similarity_matrix
from neuroprior.report.stability_drawings import against_average, fluctuations
from neuroprior.report.tables import minus
from neuroprior.report.targets import leaf_order, pairs_of

_SCANS = 8  # matrices that are drawn
_MODELS = 4  # that are drawn against Eq. 3
_MODEL_LOOKS = ("blur", "vgg", "pixel", "lowpass")  # of models that are no condition
_UNFINISHED = "The step that looks at the recordings is not finished."


def recorded_plate(results: RunResults) -> Plate:
    """The recorded similarities, a matrix a scan (the paper's Figure 1A, B)."""
    found = results.stability
    return matrices_of(found) if isinstance(found, ScanStability) else _absent("Similarity of the oracle images", found)


def fluctuations_plate(results: RunResults) -> Plate:
    """How far recorded similarities move over scans and repeats (the paper's Figure 1C)."""
    found = results.stability
    if isinstance(found, ScanStability):
        return fluctuations_of(found)
    return _absent("How far similarities move", found)


def scatter_plate(results: RunResults) -> Plate:
    """Single trials and models against averages (the paper's Figure 1D)."""
    found = results.stability
    return scatter_of(found) if isinstance(found, ScanStability) else _absent("From single trials to averages", found)


def _absent(heading: str, why: str | None) -> Plate:
    return Plate(heading, absent=_UNFINISHED if why is None else f"{why.rstrip('.')}.")


def matrices_of(found: ScanStability) -> Plate:
    """Figure 1 A and B: Eq. 3 of each scan, and the models given, in one order."""
    order = np.array(leaf_order(found.oracle.mean(axis=0)))
    shown = list(zip(found.names, found.oracle, strict=True))[:_SCANS]
    shown += [(label_of(name), model.mean(axis=0)) for name, model in found.models.items()]
    # one scale, so that colours can be compared between animals
    limit = max(float(np.quantile(np.abs(np.concatenate([pairs_of(matrix) for _, matrix in shown])), 0.99)), 1e-3)
    panels = []
    for k, (name, matrix) in enumerate(shown):
        part = np.ascontiguousarray(matrix[np.ix_(order, order)])
        panels.append(Panel(f"matrix-{k}", similarity_matrix(name, part, limit), f"Similarity matrix of {name}."))
    left = len(found.names) - min(len(found.names), _SCANS)
    models = ", and models (mean over scans)" if found.models else ""
    caption = (
        f"Figure 1 A{', B' if found.models else ''}. Eq. 3 of each scan{models}, of {len(found.stimuli)} oracle "
        f"images, in one order (average-linkage clustering of the mean over scans). Colours are one scale for all, "
        f"which saturates at their 99th percentile.{f' {left} more scans are not drawn.' if left else ''}"
    )
    return Plate("Similarity of the oracle images", tuple(panels), caption)


def fluctuation_sets(found: ScanStability) -> list[tuple[str, str, np.ndarray]]:
    """Label, look and values of what Figure 1 C shows."""
    sets = [
        ("over scans (Eq. 4)", "neural_model", found.over_scans),
        ("over repeats (Eq. 5)", "neural_data", found.over_repeats),
        ("single trials over scans", "blur", found.single_over_scans),
        ("over trials, i ≠ j", "vgg", found.over_trials),
    ]
    return [(label, look, values.ravel()) for label, look, values in sets if values is not None]


def fluctuations_of(found: ScanStability) -> Plate:
    """Figure 1 C."""
    sets = fluctuation_sets(found)
    said = "; ".join(f"{label}: {values.std():.3f}" for label, _, values in sets)
    caption = (
        f"Figure 1 C. Standard deviations: {said}. Eq. 4 is of averages over trials and of different images, Eq. 5 of "
        "single pairs of trials of one image; the others compare like with like: single trials, different images."
    )
    return Plate("How far similarities move", (Panel("fluctuations", fluctuations(sets), caption),), caption)


def scatter_of(found: ScanStability) -> Plate:
    """Figure 1 D, a panel a kind, on the same axes; the caption says the r of what is drawn."""
    oracle = np.concatenate([pairs_of(one) for one in found.oracle])
    means = {name: float(np.mean(values)) for name, values in found.correlations().items()}
    rs = {name: minus(f"{r:z.2f}") if math.isfinite(r) else "not defined" for name, r in means.items()}
    sets, said = [], []
    if found.single is not None:
        inside, apart = rs[SINGLE_INSIDE], rs[SINGLE_APART]
        sets.append(("single trials", "neural_data", np.concatenate([pairs_of(one) for one in found.single])))
        said.append(f"single trials: r = {inside} inside the average, whose noise they share, {apart} apart from it")
    others = iter(_MODEL_LOOKS)
    for name, matrices in list(found.models.items())[:_MODELS]:
        look = name if name in LOOKS else next(others)
        sets.append((label_of(name), look, np.concatenate([pairs_of(one) for one in matrices])))
        said.append(f"{label_of(name)}: r = {rs[name]}")
    if found.truths is not None:
        sets.append(("truth of these neurons", "none", np.concatenate([pairs_of(one) for one in found.truths])))
        said.append(f"truth of these very neurons: r = {rs[TRUTH]}")
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
