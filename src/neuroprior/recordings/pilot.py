"""From a pilot scan to how many neurons, repeats and scans a similarity needs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neuroprior.similarity import oracle_trials
from neuroprior.types import Float32, Float64, InputError, Int64, Scan

__all__ = ["RecordingPlan", "plan_recording"]

_LEAST_NEURONS = 20


@dataclass(frozen=True, slots=True, eq=False)
class RecordingPlan:
    """How far the similarity of `n` neurons, `T` repeats and `H` scans is from that of all such neurons without noise.

    `v(n, T) = a/n + b/(n T) + c/(n T^2) + d/T + e/T^2` is the variance of the error over pairs `i < j`, as a part of
    the variance of the true S; `coefficients` are a to e. Neurons drawn anew give 1/n; noise of a neuron's own falls
    with n as well, once or twice with T (a product of signal and noise, or of two noises); noise that neurons share
    does not fall with n. Scans that draw neurons and noise anew divide it by H. What differs from animal to animal
    cannot be seen in one pilot, and is not in it.
    `measured`: `(n, T, r)`, correlations of two estimates that share neither neurons nor trials; `fitted` to those.
    """

    coefficients: Float64[np.ndarray, " term"]
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

    def scans_for(self, aim: float, neurons: int, repeats: int) -> int:
        """Return the least number of scans whose mean is expected to reach the correlation `aim`."""
        if not 0 < aim < 1:
            raise InputError(f"scan plan: aim is {aim}; a correlation to reach lies above 0 and below 1")
        # v / H <= 1 / aim^2 - 1
        return max(1, int(np.ceil(self.error(neurons, repeats) / (1 / aim**2 - 1) - 1e-9)))


def plan_recording(scans: Sequence[Scan], *, n_splits: int = 20, seed: int = 0) -> RecordingPlan:
    """Measure how S of a pilot's oracle images agrees with itself, from parts of its neurons and trials; extrapolate.

    Each split deals neurons and trials of every image out to two sides that share neither; of each side `n` neurons and
    `T` trials make an S (Eq. 3 off the diagonal), and `1/r - 1` of the two is an estimate of `v(n, T)`. Several pilots
    are averaged. Raises `InputError` for fewer than 40 neurons, or fewer than 3 images with 4 repeats.
    """
    if not scans:
        raise InputError("scan plan: no pilot scan given; pass one or more")
    if n_splits < 1:
        raise InputError(f"scan plan: n_splits is {n_splits}; it must be 1 or more")
    pilots = [_Pilot.of(scan) for scan in scans]
    most_neurons = min(pilot.trials.shape[2] for pilot in pilots) // 2
    most_repeats = min(pilot.trials.shape[1] for pilot in pilots) // 2
    ns = np.unique(np.geomspace(_LEAST_NEURONS, most_neurons, 6).round().astype(int))
    ts = np.unique(np.geomspace(1, most_repeats, 4).round().astype(int))
    rng = np.random.default_rng(seed)
    sums = np.zeros((len(ns), len(ts)))
    for _ in range(n_splits):
        for pilot in pilots:
            sums += np.arctanh(pilot.agreement(ns, ts, rng))
    agreement = np.tanh(sums / (n_splits * len(pilots)))
    measured = [(int(n), int(t), float(agreement[a, b])) for a, n in enumerate(ns) for b, t in enumerate(ts)]
    used = [one for one in measured if one[2] > 0.01]  # below, 1/r is noise
    if len(used) < 3:
        raise InputError(
            "scan plan: two halves of the pilot do not agree at all (r below 0.01); it holds too little signal to "
            "plan from: check it with `neuroprior scan check`, or record more repeats"
        )
    from scipy.optimize import nnls  # type: ignore[import-untyped]

    # relative errors count alike: v spans orders of magnitude over the grid
    v = np.array([1 / r - 1 for _, _, r in used])
    terms = np.stack([_terms(n, t) for n, t, _ in used])
    coefficients, _ = nnls(terms / v[:, None], np.ones(len(v)))
    return RecordingPlan(
        coefficients=coefficients,
        measured=tuple(measured),
        fitted=tuple(float(1 / (1 + _terms(n, t) @ coefficients)) for n, t, _ in measured),
        n_images=len(pilots[0].trials),
        n_neurons=pilots[0].trials.shape[2],
        n_repeats=pilots[0].trials.shape[1],
    )


def _terms(n: int, t: int) -> Float64[np.ndarray, " term"]:
    return np.array([1 / n, 1 / (n * t), 1 / (n * t * t), 1 / t, 1 / (t * t)])


@dataclass(frozen=True, slots=True, eq=False)
class _Pilot:
    """Weighted oracle responses, as many trials of every image as the one with the fewest has."""

    trials: Float32[np.ndarray, "image trial neuron"]

    @classmethod
    def of(cls, scan: Scan) -> "_Pilot":
        responses, image_ids, weights = oracle_trials(scan)
        _, image, counts = np.unique(image_ids, return_inverse=True, return_counts=True)
        enough = np.flatnonzero(counts >= 4)
        if len(enough) < 3:
            raise InputError(
                f"scan {scan.name}: {len(enough)} oracle images have 4 or more trials; a plan needs 3, so that two "
                "halves can be compared"
            )
        heard = np.flatnonzero(weights > 0)
        if len(heard) < 2 * _LEAST_NEURONS:
            raise InputError(
                f"scan {scan.name}: {len(heard)} neurons with a weight above 0; a plan needs {2 * _LEAST_NEURONS}"
            )
        repeats = int(counts[enough].min())
        rows: Int64[np.ndarray, "image trial"] = np.stack([np.flatnonzero(image == k)[:repeats] for k in enough])
        return cls(responses[rows][:, :, heard] * weights[heard].astype(np.float32))

    def agreement(
        self, ns: Int64[np.ndarray, " n"], ts: Int64[np.ndarray, " t"], rng: np.random.Generator
    ) -> Float64[np.ndarray, "n t"]:
        """Correlation of two S that share neither neurons nor trials, for each number of neurons and trials."""
        n_images, n_trials, n_neurons = self.trials.shape
        neurons = rng.permutation(n_neurons)
        trials = rng.permuted(np.tile(np.arange(n_trials), (n_images, 1)), axis=1)
        image = np.arange(n_images)[:, None]
        above = np.triu_indices(n_images, 1)
        found = np.empty((len(ns), len(ts)))
        for a, n in enumerate(ns):
            sides = [self.trials[:, :, neurons[:n]], self.trials[:, :, neurons[n_neurons // 2 :][:n]]]
            for b, t in enumerate(ts):
                one = _off_diagonal(sides[0][image, trials[:, :t]], above)
                two = _off_diagonal(sides[1][image, trials[:, n_trials // 2 :][:, :t]], above)
                found[a, b] = np.clip(np.corrcoef(one, two)[0, 1], -0.999999, 0.999999)
        return found


def _off_diagonal(
    trials: Float32[np.ndarray, "image trial neuron"], above: tuple[np.ndarray, np.ndarray]
) -> Float64[np.ndarray, " pair"]:
    """Eq. 3 for `i < j`: `m_i . m_j` of the means of unit vectors."""
    centred = trials - trials.mean(axis=(0, 1))
    length = np.linalg.norm(centred, axis=2, keepdims=True)
    mean = (centred / np.where(length > 0, length, 1)).mean(axis=1)
    similarity: np.ndarray = (mean @ mean.T)[above]
    return similarity.astype(np.float64)
