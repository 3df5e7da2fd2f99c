"""Eq. 2 as printed, in float64 and with loops."""

import numpy as np


def centered_cosine(r: np.ndarray) -> np.ndarray:
    r = r.astype(np.float64)
    mean = r.mean(axis=0)
    e = [(row - mean) / np.sqrt(np.sum((row - mean) ** 2)) for row in r]
    return np.array([[float(np.dot(a, b)) for b in e] for a in e])
