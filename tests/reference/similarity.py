"""Eq. 2 as printed, in float64 and with loops."""

import numpy as np


def centered_cosine(r: np.ndarray) -> np.ndarray:
    r = r.astype(np.float64)
    mean = r.mean(axis=0)
    e = [(row - mean) / np.sqrt(np.sum((row - mean) ** 2)) for row in r]
    return np.array([[float(np.dot(a, b)) for b in e] for a in e])


def smallest_rank(s: np.ndarray, tolerance: float) -> tuple[int, float]:
    """How many leading eigenvectors every entry of S needs, and how far off it then is: by trying."""
    values, vectors = np.linalg.eigh(s)
    for rank in range(1, len(s) + 1):
        kept = sum(values[-k] * np.outer(vectors[:, -k], vectors[:, -k]) for k in range(1, rank + 1))
        error = float(np.abs(s - kept).max())
        if error <= tolerance:
            break
    return rank, error


def cka(x: np.ndarray, y: np.ndarray) -> float:
    """Of two configurations of points, by the correlations of their coordinates."""
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    return float(np.sum((x.T @ y) ** 2) / np.sqrt(np.sum((x.T @ x) ** 2) * np.sum((y.T @ y) ** 2)))


def procrustes(x: np.ndarray, y: np.ndarray) -> float:
    """1 - d^2 / 2, d the distance that the best rotation leaves between two centred configurations of length 1."""
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    dims = max(x.shape[1], y.shape[1])  # of a flat configuration the missing coordinates are 0
    x, y = (np.pad(points, ((0, 0), (0, dims - points.shape[1]))) for points in (x, y))
    u, _, v = np.linalg.svd(y.T @ x)
    return float(1 - np.sum((x - y @ u @ v) ** 2) / 2)
