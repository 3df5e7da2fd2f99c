"""Where neurons look, before any training: which parts of the image their responses go with."""

import numpy as np
from scipy import ndimage  # type: ignore[import-untyped]

from neuroprior.types import Float32, Float64, UInt8

__all__ = ["first_positions"]

_BLUR, _POOL = 1.0, 2.0  # pixels: of the filters, and of the area over which contrast is summed
_CLEAR = 4.0  # standard errors of a correlation by which a place must stand out
_RIDGE = 1e-3
_BLOCK = 512  # neurons looked at together


def first_positions(
    pixels: UInt8[np.ndarray, "trial height width"],
    responses: Float32[np.ndarray, "trial neuron"],
    cortex: Float32[np.ndarray, "neuron 2"] | None,
) -> Float32[np.ndarray, "neuron 2"]:
    """Place of the largest correlation of a response with local brightness or contrast, x and y in pixels.

    Contrast: `G * |grad (G * I)|^2`, so complex cells have a place too. Score of a place: the sum of the squared
    correlations with both, smoothed. Neurons whose best place does not stand out get what an affine map from cortical
    coordinates, fitted to the others, says (without `cortex`, or where a neuron's is not finite: the others' mean).
    Positions learned by gradient descent from the middle of the image often stay in a local optimum; these do not
    begin there.
    """
    height, width = pixels.shape[1:]
    scores = _scores(pixels, responses)
    best = scores.argmax(axis=1)
    places = np.stack([best % width, best // width], axis=1).astype(np.float64)
    clear = scores[np.arange(len(best)), best] > _CLEAR**2 / len(pixels)
    if clear.sum() < 6:
        clear[:] = True
    strength = scores[np.arange(len(best)), best]
    guess = _smooth_map(places, strength * clear, cortex)
    placed = np.where(clear[:, None], places, guess)
    return np.clip(placed, 0, (width - 1, height - 1)).astype(np.float32)


def _scores(pixels: np.ndarray, responses: np.ndarray) -> Float64[np.ndarray, "neuron pixel"]:
    n, height, width = pixels.shape
    seen = [_standardised(view.reshape(n, -1)) for view in _views(pixels)]
    scores = np.empty((responses.shape[1], height * width))
    for start in range(0, responses.shape[1], _BLOCK):
        z = _standardised(responses[:, start : start + _BLOCK])
        squared = sum(np.square(z.T @ view / n) for view in seen)
        smooth = ndimage.gaussian_filter(squared.reshape(-1, height, width), (0, _POOL / 2, _POOL / 2), mode="nearest")
        scores[start : start + _BLOCK] = smooth.reshape(len(smooth), -1)
    return scores


def _views(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    smooth = ndimage.gaussian_filter(pixels.astype(np.float32), (0, _BLUR, _BLUR), mode="nearest")
    down, across = np.gradient(smooth, axis=(1, 2))
    contrast = ndimage.gaussian_filter(down**2 + across**2, (0, _POOL, _POOL), mode="nearest")
    return ndimage.gaussian_filter(smooth, (0, _POOL, _POOL), mode="nearest"), np.sqrt(contrast)


def _standardised(values: np.ndarray) -> Float32[np.ndarray, "trial column"]:
    centred = values - values.mean(axis=0, dtype=np.float64).astype(np.float32)
    spread = centred.std(axis=0, dtype=np.float64).astype(np.float32)
    out: np.ndarray = centred / np.maximum(spread, np.float32(1e-12))
    return out


def _smooth_map(places: np.ndarray, weight: np.ndarray, cortex: np.ndarray | None) -> np.ndarray:
    """The affine map from cortex to places that fits best, weighted; the weighted mean where cortex is not known."""
    smooth = np.tile(weight @ places / max(weight.sum(), 1e-30), (len(places), 1))
    known = np.zeros(len(places), dtype=bool) if cortex is None else np.isfinite(cortex).all(axis=1)
    if cortex is None or not weight[known].any():
        return smooth
    cortex, weight, places = cortex[known], weight[known], places[known]
    z = (cortex - cortex.mean(axis=0)) / np.maximum(cortex.std(axis=0), 1e-12)
    design = np.column_stack([np.ones(len(z)), z])
    weighted = design * weight[:, None]
    gram = weighted.T @ design
    smooth[known] = design @ np.linalg.solve(gram + _RIDGE * np.trace(gram) * np.eye(3), weighted.T @ places)
    return smooth
