"""Do responses belong to their images? Repeats as alike at each lag, and the parts of a session that slipped."""

from dataclasses import dataclass

import numpy as np

from neuroprior.types import Float32, Float64, Int64

__all__ = ["CLEAR", "LAGS", "Shift", "alignment_at_lags", "alike_at_other_lags", "chance_alignment", "slipped_parts"]

LAGS = tuple(range(-5, 6))
"""Trials by which responses are moved against the images, to see whether they fit better there."""

CLEAR = 4.0
"""Standard deviations above what permuted images give, from which repeats are told to be alike."""

_PERMUTATIONS = 100
_FEWEST = 8  # trials behind a part of the session that is told to have slipped
_PASSES = 5  # at most, of which each takes the mean responses from the parts that the last one found
_CLIPPED, _STRONGEST = 3.0, 1.5  # standard deviations: one trial's say, and the fit that is expected of a trial at most
_SWITCH = 8.0  # log-likelihood that a change of lag must win; false alarms: none in 140 sound simulated scans
_SLIPPED = 4.5  # standard errors by which a part must fit another lag better, or fit worse than the rest
_UNFIT = 0.35  # of the rest's fit, which a part that fits no lag stays under
_TOLD = 0.6  # of the largest D, which another lag may have before the order of trials tells nothing
_NO_LAG = len(LAGS)  # the state of trials that fit no image at any lag


@dataclass(frozen=True, slots=True)
class Shift:
    """Trials `first` to `last`, whose responses come `lag` trials after their images; `lag` None: they fit no image.

    `there`, `as_they_stand`: over these trials, the mean cosine of a response with its image's other trials less that
    with other images', responses taken `lag` trials later, and as recorded. `there` is of the rest of the session where
    no lag fits.
    """

    first: int
    last: int
    lag: int | None
    there: float
    as_they_stand: float


def _difference(vectors: Float32[np.ndarray, "trial picked"], image: Int64[np.ndarray, " trial"]) -> float:
    """Mean cosine of two trials of one image less that of trials of two, in closed form."""
    order = np.argsort(image, kind="stable")
    _, starts, counts = np.unique(image[order], return_index=True, return_counts=True)
    if len(counts) < 2 or counts.max() < 2:
        return np.nan
    sums = np.add.reduceat(vectors[order], starts, axis=0, dtype=np.float64)
    squared = float(np.square(sums).sum())
    n = int(counts.sum())
    own = float(np.square(vectors, dtype=np.float64).sum())
    same = (squared - own) / float((counts * (counts - 1)).sum())
    total = sums.sum(axis=0)
    other = (float(total @ total) - squared) / float(n * n - np.square(counts).sum())
    return same - other


def alignment_at_lags(
    unit: Float32[np.ndarray, "trial picked"],
    trial_image: Int64[np.ndarray, " trial"],
    trials: Int64[np.ndarray, " repeated"],
) -> Float64[np.ndarray, " lag"]:
    """Return D of responses moved by each of `LAGS`: `unit` are z-scored responses of length 1."""
    found = []
    for lag in LAGS:
        there = trials[(trials + lag >= 0) & (trials + lag < len(unit))]
        found.append(_difference(unit[there + lag], trial_image[there]))
    return np.array(found)


def chance_alignment(
    unit: Float32[np.ndarray, "trial picked"], image: Int64[np.ndarray, " trial"], rng: np.random.Generator
) -> tuple[float, float]:
    """Return mean and standard deviation of D with images permuted."""
    drawn = [_difference(unit, rng.permutation(image)) for _ in range(_PERMUTATIONS)]
    return float(np.mean(drawn)), float(np.std(drawn, ddof=1))


def _is_clear(alignment: Float64[np.ndarray, " lag"], chance: tuple[float, float]) -> bool:
    return bool(np.isfinite(alignment).all() and alignment.max() > chance[0] + CLEAR * chance[1])


def alike_at_other_lags(alignment: Float64[np.ndarray, " lag"], chance: tuple[float, float]) -> bool:
    """Whether repeats are as clearly alike at a second lag, as where images come in one order."""
    return _is_clear(alignment, chance) and bool(np.partition(alignment, -2)[-2] > _TOLD * alignment.max())


def slipped_parts(
    unit: Float32[np.ndarray, "trial picked"],
    trial_image: Int64[np.ndarray, " trial"],
    trials: Int64[np.ndarray, " repeated"],
    whole: Float64[np.ndarray, " lag"],
    chance: tuple[float, float],
) -> list[Shift]:
    """Return the parts of the session whose responses fit images of other trials better, or none.

    The session is cut into runs of trials with a lag each; the mean responses that trials are held against are then
    taken at those lags, until nothing changes.
    """
    if not _is_clear(whole, chance) or len(trials) < _FEWEST:
        return []
    _, image = np.unique(trial_image[trials], return_inverse=True)
    zero = LAGS.index(0)
    start = zero if whole[zero] > _TOLD * whole.max() else int(whole.argmax())
    state = np.full(len(trials), start)
    for _ in range(_PASSES):
        fit = _fit(unit, trials, image, state)
        before, state = state, _partition(_scores(fit, state), state)
        if (state == before).all():
            break
    alike = fit.alike
    ends = np.flatnonzero(np.diff(state)) + 1
    found = []
    for run in np.split(np.arange(len(trials)), ends):
        at = int(state[run[0]])
        if at == zero:
            continue
        # a cut lies somewhere between two trials that were tested
        first = 0 if run[0] == 0 else int(trials[run[0] - 1] + trials[run[0]] + 1) // 2
        last = len(unit) - 1 if run[-1] == len(trials) - 1 else int(trials[run[-1]] + trials[run[-1] + 1] + 1) // 2 - 1
        rest = state != _NO_LAG
        there = alike[rest, state[rest]] if at == _NO_LAG else alike[run, at]
        as_they_stand = alike[run, zero]
        lag = None if at == _NO_LAG else LAGS[at]
        found.append(Shift(first, last, lag, _mean_known(there), _mean_known(as_they_stand)))
    return found


def _mean_known(values: Float64[np.ndarray, "..."]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else np.nan


@dataclass(frozen=True, slots=True, eq=False)
class _Fit:
    """How each trial's response, and its neighbours', fit the mean response to the trial's image in other trials.

    `alike`: cosine with that mean less the mean cosine with those of other images; `spread`: the standard deviation
    of the latter. NaN where there is no such response, or no other trial.
    """

    alike: Float64[np.ndarray, "repeated lag"]
    spread: Float64[np.ndarray, "repeated lag"]


def _fit(
    unit: Float32[np.ndarray, "trial picked"],
    trials: Int64[np.ndarray, " repeated"],
    image: Int64[np.ndarray, " repeated"],
    state: Int64[np.ndarray, " repeated"],
) -> _Fit:
    """Hold responses against mean responses, which are made of the trials that fit a lag, each at its own."""
    own = np.where(state == _NO_LAG, -1, trials + np.append(LAGS, 0)[state])
    own[(own < 0) | (own >= len(unit))] = -1
    used = np.flatnonzero(own >= 0)
    n_images = int(image.max()) + 1
    counts = np.bincount(image[used], minlength=n_images).astype(np.float64)
    sums = np.zeros((n_images, unit.shape[1]), dtype=np.float32)
    order = used[np.argsort(image[used], kind="stable")]
    present, starts = np.unique(image[order], return_index=True)
    sums[present] = np.add.reduceat(unit[own[order]], starts, axis=0)
    owner = np.full(len(unit), -1)
    owner[own[used]] = image[used]
    alike = np.full((len(trials), len(LAGS)), np.nan)
    spread = np.full((len(trials), len(LAGS)), np.nan)
    dots = unit @ sums.T
    owned = np.flatnonzero(owner >= 0)
    dots[owned, owner[owned]] -= np.einsum("ra,ra->r", unit[owned], unit[owned])
    for k, lag in enumerate(LAGS):
        inside = np.flatnonzero((trials + lag >= 0) & (trials + lag < len(unit)))
        row, mine = trials[inside] + lag, image[inside]
        among = np.broadcast_to(counts, (len(row), n_images)).copy()
        mean = dots[row].astype(np.float64)
        theirs = np.flatnonzero(owner[row] >= 0)
        among[theirs, owner[row[theirs]]] -= 1
        # the trial's own response is no other trial: neighbours are alike by what drifts slowly
        apart = np.flatnonzero((own[inside] >= 0) & (own[inside] != row))
        mean[apart, mine[apart]] -= np.einsum("ra,ra->r", unit[row[apart]], unit[own[inside[apart]]])
        among[apart, mine[apart]] -= 1
        mean = np.where(among > 0, mean / np.maximum(among, 1), np.nan)
        here = mean[np.arange(len(row)), mine]
        mean[np.arange(len(row)), mine] = np.nan
        others = np.isfinite(mean).sum(axis=1)
        total = np.nansum(mean, axis=1) / np.maximum(others, 1)
        squared = np.nansum(np.square(mean - total[:, None]), axis=1)
        alike[inside, k] = np.where(others > 0, here - total, np.nan)
        spread[inside, k] = squared / np.maximum(others, 1)
    # with few images one trial's spread is known poorly: that of all weighs as five images
    typical = _mean_known(spread)
    return _Fit(alike, np.sqrt((n_images * spread + 5 * typical) / (n_images + 5)))


def _scores(fit: _Fit, state: Int64[np.ndarray, " repeated"]) -> Float64[np.ndarray, "repeated lag"]:
    """`alike` in standard deviations of what images that were not shown give, which other lags have; 0 if unknown."""
    z = np.nan_to_num(fit.alike / np.maximum(fit.spread, 1e-30))
    elsewhere = np.arange(len(LAGS)) != state[:, None]
    clipped: np.ndarray = np.clip(z / max(float(z[elsewhere].std()), 1e-30), -_CLIPPED, _CLIPPED)
    return clipped


def _partition(
    z: Float64[np.ndarray, "repeated lag"], state: Int64[np.ndarray, " repeated"]
) -> Int64[np.ndarray, " repeated"]:
    """Most likely lag of each trial, `_NO_LAG` where none fits, changes being rare.

    A trial's score is 0 on average where responses do not belong, m where they do, with variance 1: the log-likelihood
    of a lag over none is `m z - m^2 / 2`. The best path is found by dynamic programming (Viterbi 1967).
    """
    n, rows = len(z), np.arange(len(z))
    known = state != _NO_LAG
    m = min(float(z[rows[known], state[known]].mean()), _STRONGEST)
    if m <= 0:
        return state
    gain = np.concatenate([m * z - m * m / 2, np.zeros((n, 1))], axis=1)
    came = np.empty((n, len(LAGS) + 1), dtype=np.int64)
    best = gain[0]
    for t in range(n):
        top = int(best.argmax())
        stay = best >= best[top] - _SWITCH
        came[t] = np.where(stay, np.arange(len(best)), top)
        best = np.where(stay, best, best[top] - _SWITCH) + (gain[t] if t else 0)
    path = np.empty(n, dtype=np.int64)
    path[-1] = int(best.argmax())
    for t in range(n - 1, 0, -1):
        path[t - 1] = came[t, path[t]]
    return _told(z, path)


def _told(
    z: Float64[np.ndarray, "repeated lag"], path: Int64[np.ndarray, " repeated"]
) -> Int64[np.ndarray, " repeated"]:
    """The path with runs that are not told from lag 0, or that fit no lag too uncertainly, put back to lag 0."""
    zero = LAGS.index(0)
    told = path.copy()
    fitting = path != _NO_LAG
    at = z[np.arange(len(z))[fitting], path[fitting]]
    for run in np.split(np.arange(len(path)), np.flatnonzero(np.diff(path)) + 1):
        lag = int(path[run[0]])
        if lag == zero:
            continue
        if lag == _NO_LAG:
            error = float(at.std()) / np.sqrt(len(run)) if len(at) else np.inf
            enough = len(at) and z[run].mean(axis=0).max() + error < _UNFIT * at.mean()
            enough = enough and at.mean() - z[run, zero].mean() > _SLIPPED * error
        else:
            more = z[run, lag] - z[run, zero]
            enough = more.mean() > _SLIPPED * max(float(more.std()), 1.0) / np.sqrt(len(run))
        if len(run) < _FEWEST or not enough:
            told[run] = zero
    return told
