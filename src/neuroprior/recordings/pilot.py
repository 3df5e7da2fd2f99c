"""From a pilot scan to how many neurons, repeats and scans a similarity needs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neuroprior.recordings.given import given_scans
from neuroprior.similarity import oracle_trials
from neuroprior.types import Float32, Float64, InputError, Int64, Scan

__all__ = ["RecordingPlan", "plan_recording"]

_LEAST_NEURONS = 10  # of which an S is made
_MOST_NEURONS_OF = 8  # times as many in the pilot, at least: or the law of n cannot be seen
_LEAST_IMAGES = 10
_GROUPS = 10  # of images, and of neurons, each left out once
_POPULATIONS = 3  # at most, of one number of neurons, that a split compares
_MOST_TRIALS, _MOST_ROWS = 10, 600  # trials of an image, and of all images, that a split compares
_PERMUTATIONS, _HALVINGS = 200, 20  # behind the errors that halves agree by
_T95 = 2.26  # of Student's t with as many degrees of freedom as a jackknife of ten groups has
_CLEAR = 2.5  # standard errors that halves must agree better by than images permuted
_FAR = 4  # times the pilot's neurons, up to which predictions were checked
_EQUAL_NEURONS = 1.0  # squared spread of log n by which sampling of neurons is pulled to 1/n, the law of equal neurons


@dataclass(frozen=True, slots=True, eq=False)
class RecordingPlan:
    """How far the similarity of `n` neurons, `T` repeats and `H` scans is from that of all such neurons without noise.

    S is a mean over pairs of trials, so the variance of S over pairs `i < j`, as a part of that of the true S, is
    `1 + v(n, T) = sum_k p_k(T) q_k(n)`: `p` is the share of pairs of pairs that have 0, 1 or 2 trials in common,
    `(1-1/T)^2, 2/T (1-1/T), 1/T^2`, and `q_k` the covariance of S from trials of which k are the same. Exact in T.
    `q_k(n) = f_k + s_k n^-g_k`: `f_k` between populations that share no neuron, `f_0 = 1` (beyond it, noise that
    neurons share), the rest within one: neurons drawn anew (k = 0) and noise of their own. Neurons that count alike
    give g = 1; where few loud ones speak for many, as in recordings, less. `law` has rows k and columns f, s, g.
    Scans that draw neurons and noise anew divide v by H. What differs from animal to animal is not in it.

    `measured`: `(n, T, 1 / (1 + v))`, the correlation of two estimates that share neither neurons nor trials, from the
    pilot's covariances; `fitted` by the law. `without_images`, `without_neurons`: the law without each tenth of them.
    """

    law: Float64[np.ndarray, "kind 3"]
    without_images: Float64[np.ndarray, "group kind 3"]
    without_neurons: Float64[np.ndarray, "group kind 3"]
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
        return _error(self.law, neurons, repeats) / scans

    def correlation(self, neurons: int, repeats: int, scans: int = 1) -> float:
        """Return `1 / sqrt(1 + v / H)`: the expected correlation with the true S over pairs."""
        return float(1 / np.sqrt(1 + self.error(neurons, repeats, scans)))

    def interval(self, neurons: int, repeats: int, scans: int = 1) -> tuple[float, float]:
        """Return a 95 % interval of `correlation`, of atanh r by a jackknife over images and one over neurons.

        It says what other images and neurons would have changed, not what other animals would.
        """
        middle = _atanh_r(self.error(neurons, repeats, scans))
        variance = 0.0
        for laws in (self.without_images, self.without_neurons):
            z = np.array([_atanh_r(_error(law, neurons, repeats) / scans) for law in laws])
            variance += float((len(z) - 1) / len(z) * np.square(z - z.mean()).sum())
        reach = _T95 * np.sqrt(variance)
        return float(np.tanh(max(0.0, middle - reach))), float(np.tanh(middle + reach))

    def far(self, neurons: int) -> bool:
        """Whether so many neurons are more than four times the pilot's: beyond what predictions were checked for."""
        return neurons > _FAR * self.n_neurons

    def scans_for(self, aim: float, neurons: int, repeats: int) -> int:
        """Return the least number of scans whose mean is expected to reach the correlation `aim`."""
        check_aim(aim)
        # v / H <= 1 / aim^2 - 1
        return max(1, int(np.ceil(self.error(neurons, repeats) / (1 / aim**2 - 1) - 1e-9)))


def check_aim(aim: float) -> None:
    """Raise `InputError` unless a correlation can be `aim`."""
    if not 0 < aim < 1:
        raise InputError(f"scan plan: aim is {aim}; a correlation to reach lies above 0 and below 1")


def plan_recording(scans: Scan | Sequence[Scan], *, n_splits: int = 14, seed: int = 0) -> RecordingPlan:
    """Measure how S of a pilot's oracle images varies with its neurons and trials, and extrapolate.

    Each split deals the neurons out to populations of 1/16 to 1/2 of them; covariances of their S (Eq. 3 off the
    diagonal) over image pairs, within and between populations, from trials of which 0, 1 or 2 are the same, are taken
    in closed form. The law of `RecordingPlan` is fitted to their means over splits and pilots. Neurons are weighted by
    Eq. 1 of all trials.

    Raises `InputError` for fewer than 80 neurons or 10 images with 4 repeats, and where two halves agree less than 2.5
    standard errors better than with images permuted: from such a pilot nothing can be planned.
    """
    scans = given_scans("scan plan", scans)
    if n_splits < 1:
        raise InputError(f"scan plan: n_splits is {n_splits}; it must be 1 or more")
    pilots = [_Pilot.of(scan) for scan in scans]
    n_neurons = min(pilot.trials.shape[2] for pilot in pilots)
    n_repeats = min(pilot.trials.shape[1] for pilot in pilots)
    rng = np.random.default_rng(seed)
    agreement = np.mean([pilot.agreement(rng) for pilot in pilots], axis=0)
    r, chance = float(agreement[0]), agreement[1:]
    errors = (r - float(chance.mean())) / float(chance.std(ddof=1))
    if not errors > _CLEAR:
        raise _too_little(r, errors)
    ns = np.unique([max(_LEAST_NEURONS, n_neurons // part) for part in (16, 8, 4, 2)])
    kept, covariances = np.zeros((1 + _GROUPS, len(ns))), np.zeros((1 + 2 * _GROUPS, len(ns), 2, 3))
    for _ in range(n_splits):
        for pilot in pilots:
            sizes, found = pilot.covariances(ns, rng)
            kept += sizes / (n_splits * len(pilots))
            covariances += found / (n_splits * len(pilots))
    if (covariances[0, :, 0, 0] > 0).sum() < 2:
        raise _too_little(r, errors)
    sizes = np.concatenate([kept[:1].repeat(1 + _GROUPS, axis=0), kept[1:]])
    law, *others = (_fitted(n, c) for n, c in zip(sizes, covariances, strict=True))
    cells = [
        (a, t) for a in range(len(ns)) for t in np.unique(np.geomspace(1, n_repeats, 4).round().astype(int)).tolist()
    ]
    return RecordingPlan(
        law=law,
        without_images=np.stack(others[:_GROUPS]),
        without_neurons=np.stack(others[_GROUPS:]),
        measured=tuple(
            (int(ns[a]), t, float(covariances[0, a, 0, 0] / (covariances[0, a, 1] @ _shares(t)))) for a, t in cells
        ),
        fitted=tuple(1 / (1 + _error(law, int(ns[a]), t)) for a, t in cells),
        n_images=min(len(pilot.trials) for pilot in pilots),
        n_neurons=n_neurons,
        n_repeats=n_repeats,
    )


def _too_little(r: float, errors: float) -> InputError:
    return InputError(
        f"scan plan: two halves of the pilot agree by r = {r:.3f}, {errors:.1f} standard errors above images permuted: "
        "too little to tell anything; try `neuroprior scan check`, or record more images and repeats"
    )


def _shares(repeats: int) -> Float64[np.ndarray, " kind"]:
    """Of the pairs of pairs of trials, one of each image: those with 0, 1 and 2 trials in common."""
    return np.array([(1 - 1 / repeats) ** 2, 2 / repeats * (1 - 1 / repeats), 1 / repeats**2])


def _error(law: Float64[np.ndarray, "kind 3"], neurons: int, repeats: int) -> float:
    q = law[:, 0] + law[:, 1] * float(neurons) ** -law[:, 2]
    # trials in common never make S vary less: so v falls with T
    return float(_shares(repeats) @ np.maximum.accumulate(q)) - 1


def _atanh_r(error: float) -> float:
    return float(np.arctanh(min(1 / np.sqrt(1 + error), 1 - 1e-12)))


def _fitted(
    n: Float64[np.ndarray, " n"], covariances: Float64[np.ndarray, "n sharing kind"]
) -> Float64[np.ndarray, "kind 3"]:
    """`f`, `s` and `g` by least squares of log covariance on log n, `0 <= g <= 1`; axes between, within populations."""
    true = covariances[:, 0, 0]
    at = np.flatnonzero(true > 0)
    if len(at) < 2:  # a part of the pilot without any signal
        at, true = np.arange(len(n)), np.full(len(n), np.abs(true).mean())
    between = covariances[at, 0] / true[at, None]
    private = np.maximum(covariances[at, 1] / true[at, None] - between, 1e-6)
    x = np.log(n[at])
    spread = float(np.square(x - x.mean()).sum())
    pull = np.array([_EQUAL_NEURONS, 0, 0])
    g = np.clip((pull - (x - x.mean()) @ np.log(private)) / (spread + pull), 0, 1)
    s = np.exp(np.log(private).mean(axis=0) + g * x.mean())
    f = np.maximum(between.mean(axis=0), 1)
    return np.stack([f, s, g], axis=1)


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

    def agreement(self, rng: np.random.Generator) -> Float64[np.ndarray, " drawn"]:
        """Mean r over splits of S of two halves that share neither neurons nor trials; the same with images permuted.

        Each permutation is one for all splits, which are not independent: so means are held against means.
        """
        n_images, n_trials, n_neurons = self.trials.shape
        image, above = np.arange(n_images)[:, None], np.triu_indices(n_images, 1)
        orders = [np.arange(n_images), *(rng.permutation(n_images) for _ in range(_PERMUTATIONS))]
        drawn = np.zeros(len(orders))
        for _ in range(_HALVINGS):
            neurons = np.array_split(rng.permutation(n_neurons), 2)
            trials = np.array_split(rng.permuted(np.tile(np.arange(n_trials), (n_images, 1)), axis=1), 2, axis=1)
            one, two = (_similarity(self.trials[:, :, a][image, t]) for a, t in zip(neurons, trials, strict=True))
            z = (one[above] - one[above].mean()) / (one[above].std() * two[above].std())
            drawn += [float(z @ two[order][:, order][above]) / len(z) / _HALVINGS for order in orders]
        return drawn

    def covariances(
        self, ns: Int64[np.ndarray, " n"], rng: np.random.Generator
    ) -> tuple[Float64[np.ndarray, "size n"], Float64[np.ndarray, "part n sharing kind"]]:
        """Neurons kept, and covariances over image pairs of S between and within populations of each size.

        Covariances of all, without each tenth of the images, then without each tenth of the neurons; numbers of
        neurons without the second. The last axis: S from trials of which 0, 1 or 2 are the same.
        """
        n_images, n_trials, n_neurons = self.trials.shape
        most = int(np.clip(_MOST_ROWS // n_images, 3, min(_MOST_TRIALS, n_trials)))
        picked = rng.permuted(np.tile(np.arange(n_trials), (n_images, 1)), axis=1)[:, :most]
        centred = self.trials - self.trials.mean(axis=(0, 1))
        rows = centred[np.arange(n_images)[:, None], picked].reshape(n_images * most, n_neurons)
        # of any ten neurons in a row, one is of each tenth
        tenths = [rng.permutation(np.arange(g, n_neurons, _GROUPS)) for g in range(_GROUPS)]
        order = np.empty(n_neurons, dtype=np.int64)
        for g, tenth in enumerate(tenths):
            order[g::_GROUPS] = tenth
        pairs = _pairs_without_tenths(n_images)
        sizes, found = np.empty((1 + _GROUPS, len(ns))), np.empty((1 + 2 * _GROUPS, len(ns), 2, 3))
        for a, n in enumerate(ns):
            count = min(n_neurons // n, _POPULATIONS)
            total = np.zeros((1 + _GROUPS, n_images, most, n_images, most), dtype=np.float32)
            within = np.zeros((1 + _GROUPS, 3, n_images, n_images))
            sizes[:, a] = n
            for k in range(count):
                mine = np.arange(k * n, (k + 1) * n)
                raw = rows[:, order[mine]] @ rows[:, order[mine]].T
                for part in range(1 + _GROUPS):
                    gone = mine[mine % _GROUPS == part - 1] if part else mine[:0]
                    left = rows[:, order[gone]]
                    unit = _of_unit_rows(raw - left @ left.T).reshape(n_images, most, n_images, most)
                    sizes[part, a] -= len(gone) / count
                    total[part] += unit
                    within[part] += _products(unit)
            for part in range(1 + _GROUPS):
                between = (_products(total[part]) - within[part]) / (count * (count - 1))
                both = np.stack([between, within[part] / count])
                mean = total[part].mean(axis=(1, 3), dtype=np.float64) / count
                for row, above in enumerate(pairs) if part == 0 else [(_GROUPS + part, pairs[0])]:
                    found[row, a] = both[:, :, above[0], above[1]].mean(axis=2) - mean[above].mean() ** 2
        return sizes, found


def _pairs_without_tenths(n_images: int) -> list[tuple[Int64[np.ndarray, " pair"], Int64[np.ndarray, " pair"]]]:
    """Pairs `i < j` of all images, then without each tenth of them."""
    tenth = np.arange(n_images) % _GROUPS
    parts = [np.arange(n_images), *(np.flatnonzero(tenth != g) for g in range(_GROUPS))]
    return [(part[i], part[j]) for part in parts for i, j in [np.triu_indices(len(part), 1)]]


def _of_unit_rows(gram: Float32[np.ndarray, "row row"]) -> Float32[np.ndarray, "row row"]:
    length = np.sqrt(np.maximum(gram.diagonal(), 0))
    scale = np.divide(1, length, out=np.zeros_like(length), where=length > 1e-6 * length.max())
    gram *= scale[:, None]
    gram *= scale
    return gram


def _products(x: Float32[np.ndarray, "image trial image trial"]) -> Float64[np.ndarray, "kind image image"]:
    """Mean of `x[i, t, j, s] x[i, t', j, s']` over trials, where none, one and both of t = t' and s = s' hold.

    `x[i, t, j, s] = x[j, s, i, t]`.
    """
    n = x.shape[1]
    one = (x @ np.ones(n, dtype=x.dtype)).astype(np.float64)
    every, first = np.square(one.sum(axis=1)), np.square(one).sum(axis=1)
    second = first.T
    both = (np.square(x) @ np.ones(n, dtype=x.dtype)).sum(axis=1, dtype=np.float64)
    return np.stack(
        [
            (every - first - second + both) / (n * n * (n - 1) ** 2),
            (first + second - 2 * both) / (2 * n * n * (n - 1)),
            both / (n * n),
        ]
    )


def _similarity(trials: Float32[np.ndarray, "image trial neuron"]) -> Float64[np.ndarray, "image image"]:
    """Eq. 3 off the diagonal: `m_i . m_j` of the means of unit vectors."""
    centred = trials - trials.mean(axis=(0, 1))
    length = np.linalg.norm(centred, axis=2, keepdims=True)
    mean = (centred / np.where(length > 0, length, 1)).mean(axis=1)
    similarity: np.ndarray = mean @ mean.T
    return similarity.astype(np.float64)
