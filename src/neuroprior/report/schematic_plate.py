"""The run's own numbers in the drawing of the method: the run to a `Plate`."""

from typing import Any

import numpy as np

from neuroprior.experiment.results import RunResults
from neuroprior.report.plate import Panel, Plate
from neuroprior.report.schematic_drawing import Parts, schematic
from neuroprior.report.sweep import recipe_of
from neuroprior.report.targets import leaf_order, main_target
from neuroprior.types import SimilarityTarget

_MATRIX_IMAGES = 40
_MADE_OF = {
    "twin": "a digital twin\nof mouse V1",
    "simulated_mouse": "a simulated\nmouse",
    "scans": "mouse V1,\nrecorded",
    "fitted_twins": "recordings and\ntheir twins",
    "simulated_twins": "simulated mice\nand their twins",
    "matrix": "a matrix of\nthe user's own",
}


def schematic_plate(results: RunResults) -> Plate:
    """The method with this run's images, matrix and sizes (the paper's Figure 3)."""
    heading = "The method"
    recipe = recipe_of(results)
    name = main_target(results)
    if name is None:
        return Plate(heading, absent="No condition of this run has a similarity target.")
    target = results.targets[name]
    card = next(card for card in results.conditions if card.name == name)
    network, regularizer = recipe.get("network", {}), recipe.get("regularizer", {})
    taps: Any = regularizer.get("taps", 0)
    n_taps = taps if isinstance(taps, int) else len(taps)
    alpha = "α" if card.alpha is None else f"{card.alpha:g}"
    made_of = _MADE_OF.get(str(recipe.get("target", {}).get("kind")), "a brain")
    pixels = dict(zip(results.stimuli.ids.tolist(), results.stimuli.pixels, strict=True))
    words = f"{network['architecture']} of width {network['width']}" if network else "the network"
    matrix = _few(target)
    parts = Parts(
        stimuli=f"{len(target):,} stimuli,\nno labels",
        brain=made_of,
        task="labelled images\nof the task",
        network=words,
        taps=f"γ-weighted mean\nof {f'{n_taps} layers' if n_taps else 'its layers'}",
        loss=f"task loss\n+ {alpha} × similarity loss",
        stimulus=pixels.get(str(target.image_ids[0])),
        example=results.examples.images[0] if len(results.examples.images) else None,
        matrix=matrix,
    )
    said = made_of.replace("\n", " ").capitalize()
    caption = (
        f"The paper's Figure 3, with this run's sizes. {said} and the network see the same stimuli; "
        f"how alike each finds every pair of them is a similarity matrix (Eq. 2, 7), and the second loss asks that "
        f"the network's be as the brain's (Eq. 9, 10), beside the task's own loss on labelled images. α is that of "
        f"{card.label}; controls differ in the target alone, None has no second loss, Blur blurs the network's input. "
        f"S_neural: n = {len(matrix)} images of the {len(target):,} in the target of {card.label}, "
        f"alike ones beside each other."
    )
    return Plate(heading, (Panel("schematic", schematic(parts), caption),), caption)


def _few(target: SimilarityTarget) -> np.ndarray:
    """The target of a few images, alike ones beside each other."""
    rows = np.unique(np.linspace(0, len(target) - 1, min(_MATRIX_IMAGES, len(target))).round().astype(np.int64))
    part = np.ascontiguousarray(target.matrix[np.ix_(rows, rows)])
    order = leaf_order(part)
    return np.ascontiguousarray(part[np.ix_(order, order)])
