"""Eq. 8-10 as printed, pair by pair, in float64."""

import math

import numpy as np


def layer_similarity(f: np.ndarray, mean: np.ndarray) -> np.ndarray:
    centred = [(row.astype(np.float64) - mean).ravel() for row in f]
    return np.array([[a @ b / (math.sqrt(a @ a) * math.sqrt(b @ b)) for b in centred] for a in centred])


def loss(network: np.ndarray, target: np.ndarray, pairs: list[tuple[int, int]], lineage: bool = False) -> float:
    def remap(s: float) -> float:
        s = max(-1 + 1e-5, min(1 - 1e-5, s))
        return math.log(1 + s) - math.log(1 - s) if lineage else math.atanh(s)

    return sum((remap(network[i, j]) - remap(target[i, j])) ** 2 for i, j in pairs) / len(pairs)
