"""From a pilot scan to how many neurons, repeats and scans a similarity needs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neuroprior.similarity import oracle_trials, pair_correlation
from neuroprior.types import Float32, Float64, InputError, Int64, Scan

__all__ = ["RecordingPlan", "plan_recording"]

_LEAST_NEURONS = 10  # of which an S is made
_MOST_NEURONS_OF = 8  # times as many at the other end of the grid, at least: or terms of n cannot be told from others
_LEAST_IMAGES = 10
_GROUPS = 10  # of images, each left out once
_CLEAR = 3.0  # standard deviations that halves must agree better by than images permuted


@dataclass(frozen=True, slots=True, eq=False)
class RecordingPlan:
    """How far the similarity of `n` neurons, `T` repeats and `H` scans is from that of all such neurons without noise.

    `v(n, T) = a/n + b/(n T) + c/(n T^2) + d/T + e/T^2` is the variance of the error over pairs `i < j`, as a part of
    the variance of the true S; `coefficients` are a to e. Neurons drawn anew give 1/n; noise of a neuron's own falls
    with n as well, once or twice with T (a product of signal and noise, or of two noises); noise that neurons share
    does not fall with n. Scans that draw neurons and noise anew divide it by H. What differs from animal to animal
    cannot be seen in one pilot, and is not in it.
    `measured`: `(n, T, r)`, correlations of two estimates that share neither neurons nor trials; `fitted` to those.
    `left_out`: the coefficients without each tenth of the images, from which `interval` is made.
    """

    coefficients: Float64[np.ndarray, " term"]
    left_out: Float64[np.ndarray, "group term"]
    measured: tuple[tuple[int, int, float], ...]
    fitted: tuple[float, ...]
    n_images: int
    n_neurons: int
    n_repeats: int

    def error(self, neurons: int, repeats: int, scans: int = 1) -> float:
        """Return `v(n, T) / H`, relative to the variance of the true S."""
        for what, value in (("neurons", neurons), ("repeats", repeats), ("scans", scans)):
            if value < 1:
                raise InputError(f"scan plan: {what} is {value}; it must be 1 or more")
        return float(_terms(neurons, repeats) @ self.coefficients) / scans

    def correlation(self, neurons: int, repeats: int, scans: int = 1) -> float:
        """Return `1 / sqrt(1 + v / H)`: the expected correlation with the true S over pairs."""
        return float(1 / np.sqrt(1 + self.error(neurons, repeats, scans)))

    def interval(self, neurons: int, repeats: int, scans: int = 1) -> tuple[float, float]:
        """Return a 95 % interval of `correlation`, of atanh r by a jackknife over images.

        It says what other images would have changed, not what neurons and animals would.
        """
        at = self.correlation(neurons, repeats, scans)
        v = self.left_out @ _terms(neurons, repeats) / scans
        z = np.arctanh(np.minimum(1 / np.sqrt(1 + v), 1 - 1e-12))
        error = float(np.sqrt((len(z) - 1) / len(z) * np.square(z - z.mean()).sum()))
        middle = float(np.arctanh(min(at, 1 - 1e-12)))
        return float(np.tanh(max(0.0, middle - 1.96 * error))), float(np.tanh(middle + 1.96 * error))

    def scans_for(self, aim: float, neurons: int, repeats: int) -> int:
        """Return the least number of scans whose mean is expected to reach the correlation `aim`."""
        check_aim(aim)
        # v / H <= 1 / aim^2 - 1
        return max(1, int(np.ceil(self.error(neurons, repeats) / (1 / aim**2 - 1) - 1e-9)))


def check_aim(aim: float) -> None:
    """Raise `InputError` unless a correlation can be `aim`."""
    if not 0 < aim < 1:
        raise InputError(f"scan plan: aim is {aim}; a correlation to reach lies above 0 and below 1")


def plan_recording(scans: Sequence[Scan], *, n_splits: int = 20, seed: int = 0) -> RecordingPlan:
    """Measure how S of a pilot's oracle images agrees with itself, from parts of its neurons and trials; extrapolate.

    Each split deals neurons and trials of every image out to two sides that share neither; of each side `n` neurons and
    `T` trials make an S (Eq. 3 off the diagonal). Their correlation is `1 / (1 + v(n, T))`, which is fitted to the mean
    over splits (and pilots) by least squares, all coefficients 0 or more. Neurons are weighted by Eq. 1 of all trials.

    Raises `InputError` for fewer than 80 neurons or 10 images with 4 repeats, and where the two sides agree no better
    than with images permuted: from such a pilot nothing can be planned.
    """
    if not scans:
        raise InputError("scan plan: no pilot scan given; pass one or more")
    if n_splits < 1:
        raise InputError(f"scan plan: n_splits is {n_splits}; it must be 1 or more")
    pilots = [_Pilot.of(scan) for scan in scans]
    most_neurons = min(pilot.trials.shape[2] for pilot in pilots) // 2
    most_repeats = min(pilot.trials.shape[1] for pilot in pilots) // 2
    least = max(_LEAST_NEURONS, most_neurons // 16)
    ns = np.unique(np.geomspace(least, most_neurons, 6).round().astype(int))
    ts = np.unique(np.geomspace(1, most_repeats, 4).round().astype(int))
    rng = np.random.default_rng(seed)
    sums = np.zeros((_GROUPS + 1, len(ns), len(ts)))
    chance = []
    for _ in range(n_splits):
        for pilot in pilots:
            agreement, permuted = pilot.agreement(ns, ts, rng)
            sums += agreement
            chance.append(permuted)
    agreement = sums / (n_splits * len(pilots))
    # splits of one pilot are not independent: their spread is that of one
    if agreement[0, -1, -1] < _CLEAR * float(np.std(chance)):
        raise InputError(
            f"scan plan: two halves of the pilot agree no better than chance (r = {agreement[0, -1, -1]:.3f}, images "
            f"permuted ± {np.std(chance):.3f}): nothing can be planned from it; try `neuroprior scan check`, or record "
            "more images and repeats"
        )
    cells = [(int(n), int(t)) for n in ns for t in ts]
    terms = np.stack([_terms(n, t) for n, t in cells])
    coefficients = np.stack([_fitted(terms, part.ravel()) for part in agreement])
    return RecordingPlan(
        coefficients=coefficients[0],
        left_out=coefficients[1:],
        measured=tuple((n, t, float(r)) for (n, t), r in zip(cells, agreement[0].ravel(), strict=True)),
        fitted=tuple((1 / (1 + terms @ coefficients[0])).tolist()),
        n_images=min(len(pilot.trials) for pilot in pilots),
        n_neurons=min(pilot.trials.shape[2] for pilot in pilots),
        n_repeats=min(pilot.trials.shape[1] for pilot in pilots),
    )


def _terms(n: int, t: int) -> Float64[np.ndarray, " term"]:
    return np.array([1 / n, 1 / (n * t), 1 / (n * t * t), 1 / t, 1 / (t * t)])


def _fitted(terms: Float64[np.ndarray, "cell term"], r: Float64[np.ndarray, " cell"]) -> Float64[np.ndarray, " term"]:
    """Coefficients, 0 or more, for which `1 / (1 + terms @ c)` is nearest to the correlations, all of which count."""
    from scipy.optimize import least_squares  # type: ignore[import-untyped]

    # in units that make every term about 1 in the middle of the grid
    unit = terms.mean(axis=0)
    found = least_squares(
        lambda c: 1 / (1 + (terms / unit) @ c) - r, np.ones(terms.shape[1]), bounds=(0, np.inf), x_scale=1.0
    )
    coefficients: Float64[np.ndarray, " term"] = found.x / unit
    return coefficients


@dataclass(frozen=True, slots=True, eq=False)
class _Pilot:
    """Weighted oracle responses, as many trials of every image as the one with the fewest has."""

    trials: Float32[np.ndarray, "image trial neuron"]

    @classmethod
    def of(cls, scan: Scan) -> "_Pilot":
        responses, image_ids, weights = oracle_trials(scan)
        _, image, counts = np.unique(image_ids, return_inverse=True, return_counts=True)
        enough = np.flatnonzero(counts >= 4)
        if len(enough) < _LEAST_IMAGES:
            raise InputError(
                f"scan {scan.name}: {len(enough)} oracle images have 4 or more trials; a plan needs {_LEAST_IMAGES}, "
                "so that halves can be compared"
            )
        heard = np.flatnonzero(weights > 0)
        if len(heard) < _LEAST_NEURONS * _MOST_NEURONS_OF:
            raise InputError(
                f"scan {scan.name}: {len(heard)} neurons with a weight above 0; a plan needs "
                f"{_LEAST_NEURONS * _MOST_NEURONS_OF}, to see how S changes with their number"
            )
        repeats = int(counts[enough].min())
        rows: Int64[np.ndarray, "image trial"] = np.stack([np.flatnonzero(image == k)[:repeats] for k in enough])
        return cls(responses[rows][:, :, heard] * weights[heard].astype(np.float32))

    def agreement(
        self, ns: Int64[np.ndarray, " n"], ts: Int64[np.ndarray, " t"], rng: np.random.Generator
    ) -> tuple[Float64[np.ndarray, "part n t"], float]:
        """Correlation of two S that share neither neurons nor trials, for each number of neurons and trials.

        Of all images, then without each tenth of them; and, of the largest numbers, with one side's images permuted.
        """
        n_images, n_trials, n_neurons = self.trials.shape
        neurons = rng.permutation(n_neurons)
        trials = rng.permuted(np.tile(np.arange(n_trials), (n_images, 1)), axis=1)
        image = np.arange(n_images)[:, None]
        group = np.arange(n_images) % _GROUPS
        parts = [np.arange(n_images), *(np.flatnonzero(group != g) for g in range(_GROUPS))]
        pairs = [(part[i], part[j]) for part in parts for i, j in [np.triu_indices(len(part), 1)]]
        found = np.empty((len(parts), len(ns), len(ts)))
        one = two = np.empty((0, 0))
        for a, n in enumerate(ns):
            sides = [self.trials[:, :, neurons[:n]], self.trials[:, :, neurons[n_neurons // 2 :][:n]]]
            for b, t in enumerate(ts):
                one = _similarity(sides[0][image, trials[:, :t]])
                two = _similarity(sides[1][image, trials[:, n_trials // 2 :][:, :t]])
                for k, above in enumerate(pairs):
                    found[k, a, b] = pair_correlation(one[above], two[above])
        order = rng.permutation(n_images)
        return found, pair_correlation(one[pairs[0]], two[np.ix_(order, order)][pairs[0]])


def _similarity(trials: Float32[np.ndarray, "image trial neuron"]) -> Float64[np.ndarray, "image image"]:
    """Eq. 3 off the diagonal: `m_i . m_j` of the means of unit vectors."""
    centred = trials - trials.mean(axis=(0, 1))
    length = np.linalg.norm(centred, axis=2, keepdims=True)
    mean = (centred / np.where(length > 0, length, 1)).mean(axis=1)
    similarity: np.ndarray = mean @ mean.T
    return similarity.astype(np.float64)
