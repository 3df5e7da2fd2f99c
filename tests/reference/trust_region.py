"""The steps of Brendel & Bethge 2019, one row at a time, by general solvers in float64."""

from itertools import combinations

import numpy as np
from scipy.optimize import brentq, linprog, minimize


def reachable(b: np.ndarray, c: float, low: np.ndarray, high: np.ndarray) -> bool:
    """Whether the plane b . delta = c meets the box."""
    corners = np.stack([b * low, b * high])
    return bool(corners.min(0).sum() <= c <= corners.max(0).sum()) and bool((b != 0).any())


def shifted_projection(d: np.ndarray, b: np.ndarray, c: float, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """argmin |delta - d|_2 s.t. b . delta = c, low <= delta <= high."""
    size = np.linalg.norm(b)
    found = minimize(
        lambda delta: (delta - d) @ (delta - d),
        np.zeros_like(d),
        jac=lambda delta: 2 * (delta - d),
        method="SLSQP",
        bounds=list(zip(low, high, strict=True)),
        constraints={"type": "eq", "fun": lambda delta: (b @ delta - c) / size, "jac": lambda delta: b / size},
        options={"ftol": 1e-13, "maxiter": 300},
    )
    assert found.success, found.message
    return found.x


def chebyshev_distance(d: np.ndarray, b: np.ndarray, c: float, low: np.ndarray, high: np.ndarray) -> float:
    """min |delta - d|_inf s.t. b . delta = c, low <= delta <= high: the least eps, as a linear programme."""
    n = len(d)
    one = np.ones((n, 1))
    within = np.block([[np.eye(n), -one], [-np.eye(n), -one]])  # delta - eps <= d, -delta - eps <= -d
    found = linprog(
        np.append(np.zeros(n), 1.0),
        A_ub=within,
        b_ub=np.concatenate([d, -d]),
        A_eq=np.append(b, 0.0)[None],
        b_eq=[c],
        bounds=[*zip(low, high, strict=True), (0, None)],
    )
    assert found.success, found.message
    return float(found.fun)


def taxicab_distance(d: np.ndarray, b: np.ndarray, c: float, low: np.ndarray, high: np.ndarray) -> float:
    """min |delta - d|_1 s.t. b . delta = c, low <= delta <= high, as a linear programme: delta = d + up - down."""
    n = len(d)
    found = linprog(
        np.ones(2 * n),
        A_eq=np.concatenate([b, -b])[None],
        b_eq=[c - b @ d],
        bounds=[
            *((0, h - x) for h, x in zip(high, d, strict=True)),
            *((0, x - h) for h, x in zip(low, d, strict=True)),
        ],
    )
    assert found.success, found.message
    return float(found.fun)


def fewest(d: np.ndarray, b: np.ndarray, c: float, low: np.ndarray, high: np.ndarray) -> int:
    """The least number of coordinates that have to leave d for b . delta to come to c: every choice is tried."""
    missing = c - b @ d
    gain = np.maximum(b * low, b * high) - b * d if missing > 0 else b * d - np.minimum(b * low, b * high)
    for count in range(len(d) + 1):
        if any(gain[list(some)].sum() >= abs(missing) for some in combinations(range(len(d)), count)):
            return count
    raise AssertionError("the plane is out of reach")


def nearest_within(d: np.ndarray, b: np.ndarray, c: float, low: np.ndarray, high: np.ndarray, r: float) -> np.ndarray:
    """argmin |delta - d|_2 s.t. b . delta = c, low <= delta <= high, |delta|_2 <= r.

    With a multiplier nu of the last condition, |delta - d|^2 + nu |delta|^2 is least where |delta - d / (1 + nu)| is.
    """

    def priced(nu: float) -> np.ndarray:
        return shifted_projection(d / (1 + nu), b, c, low, high)

    if np.linalg.norm(priced(0.0)) <= r:
        return priced(0.0)
    return priced(brentq(lambda nu: np.linalg.norm(priced(nu)) - r, 0.0, 1e3, xtol=1e-6, rtol=1e-6))
