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


def unit_trials(responses: np.ndarray, image_ids: list, weights: np.ndarray, least: int = 2) -> dict:
    """e_it of Eq. 3: for each image shown at least so often, sorted, the unit vectors of its trials."""
    shown = sorted(i for i in set(image_ids) if image_ids.count(i) >= least)
    r = {
        i: [weights * row.astype(np.float64) for row, k in zip(responses, image_ids, strict=True) if k == i]
        for i in shown
    }
    mean = np.mean([trial for trials in r.values() for trial in trials], axis=0)
    return {i: [(trial - mean) / np.sqrt(np.sum((trial - mean) ** 2)) for trial in r[i]] for i in shown}


def oracle(responses: np.ndarray, image_ids: list, weights: np.ndarray) -> tuple[list, np.ndarray]:
    """Eq. 3 as printed: the mean over pairs of trials, without those of a trial with itself."""
    e = unit_trials(responses, image_ids, weights)

    def entry(i: object, j: object) -> float:
        pairs = [np.dot(a, b) for k, a in enumerate(e[i]) for m, b in enumerate(e[j]) if i != j or k != m]
        return float(np.mean(pairs))

    return list(e), np.array([[entry(i, j) for j in e] for i in e])


def repeat_fluctuation(responses: np.ndarray, image_ids: list, weights: np.ndarray) -> list[float]:
    """Eq. 5 as printed."""
    e = unit_trials(responses, image_ids, weights)
    ids, s = oracle(responses, image_ids, weights)
    return [float(np.dot(a, b)) - s[k, k] for k, i in enumerate(ids) for m, a in enumerate(e[i]) for b in e[i][m + 1 :]]


def pair_fluctuation(responses: np.ndarray, image_ids: list, weights: np.ndarray) -> list[float]:
    """Eq. 5 of different images."""
    e = unit_trials(responses, image_ids, weights)
    ids, s = oracle(responses, image_ids, weights)
    return [
        float(np.dot(a, b)) - s[k, k + 1 + m]
        for k, i in enumerate(ids)
        for a in e[i]
        for m, j in enumerate(ids[k + 1 :])
        for b in e[j]
    ]
