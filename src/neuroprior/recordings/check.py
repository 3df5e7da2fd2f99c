"""Is a recording sound? What is in it, how reliable its neurons are, and whether responses belong to their images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import get_args

import numpy as np

from neuroprior.recordings.alignment import (
    CLEAR,
    LAGS,
    Shift,
    alignment_at_lags,
    alike_at_other_lags,
    chance_alignment,
    slipped_parts,
)
from neuroprior.recordings.given import refuse_other
from neuroprior.reliability import measure_reliability, oracle_correlation
from neuroprior.types import Float32, Float64, Int64, Scan, Tier

__all__ = ["Channel", "ScanCheck", "TierCount", "check_scan"]

_NEURONS = 2000  # at most, drawn at random, behind the lag test and the dimensionalities
_TRIALS = 2000  # at most, drawn at random, behind the response dimensionality
_BLOCK = 512  # columns or rows of the responses looked at together
_NAMED = 5  # neurons, of those that a fault is about


@dataclass(frozen=True, slots=True)
class TierCount:
    """Images and trials of one tier, and the fewest and most trials of an image."""

    images: int
    trials: int
    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Channel:
    """One channel of behaviour or of the pupil's centre over the trials on which it was tracked.

    `low`, `high`: 5th and 95th percentile. `tracked`: part of the trials. NaN where it never was.
    """

    name: str
    mean: float
    spread: float
    low: float
    high: float
    tracked: float


@dataclass(frozen=True, slots=True, eq=False)
class ScanCheck:
    """What `check_scan` found. `faults`: one line each, what is wrong and how to mend it; empty for a sound scan.

    `snr`, `oracle`: Eq. 1 and the oracle correlation, one a neuron; None without repeats. `signal_dimensions`:
    participation ratio of the covariance of responses (z-scored by neuron) over oracle images, without noise, between 1
    and their number less 1, NaN where halves of the trials agree too little; `response_dimensions`: that of up to 2,000
    single trials, which grows with their number and with noise. Both are of at most 2,000 neurons. `alignment`: how
    much more alike two trials of one image are than trials of two, with responses moved by each of `LAGS` trials;
    `chance`: mean and standard deviation of the same with images permuted. NaN where repeats do not suffice.
    """

    name: str
    n_trials: int
    n_neurons: int
    n_images: int
    image_size: tuple[int, int]
    tiers: dict[str, TierCount]
    snr: Float64[np.ndarray, " neuron"] | None
    oracle: Float64[np.ndarray, " neuron"] | None
    signal_dimensions: float
    response_dimensions: float
    alignment: Float64[np.ndarray, " lag"]
    chance: tuple[float, float]
    behaviour: tuple[Channel, ...] = ()
    silent: Int64[np.ndarray, " silent"] = field(default_factory=lambda: np.empty(0, np.int64))
    constant: Int64[np.ndarray, " constant"] = field(default_factory=lambda: np.empty(0, np.int64))
    duplicated: tuple[tuple[int, int], ...] = ()
    shifts: tuple[Shift, ...] = ()
    notes: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults


def check_scan(scan: Scan, seed: int = 0) -> ScanCheck:
    """Look at a scan for what spoils a similarity: neurons that say nothing or say it twice, too few repeats, shifts.

    The lag test: over the trials of repeated oracle images, `D(l)` is the mean cosine of two trials of one image less
    that of trials of two images, responses z-scored by neuron and taken `l` trials later. Responses that belong to
    their images have their largest D at 0, far above that of permuted images; `seed` draws the permutations. A frame
    lost on the way, or a file put in wrongly, shifts only a part: each response and its neighbours are also held
    against the mean of the image's other trials, and the session is cut into the most likely runs of trials with a lag
    each, or with none that fits. Images shown once, and sessions in which images always come in one order, cannot be
    tested; a note says so for the latter.
    """
    refuse_other("check_scan", scan, Scan)
    rng = np.random.default_rng(seed)
    tiers = {tier: _count(scan, tier) for tier in get_args(Tier) if (scan.tier == tier).any()}
    silent, constant = _unvarying(scan.responses)
    duplicated = _duplicated(scan.responses, np.concatenate([silent, constant]))
    oracle_trials = _repeated_oracle_trials(scan)
    columns = np.sort(rng.permutation(scan.responses.shape[1])[:_NEURONS])
    columns = columns[~np.isin(columns, np.concatenate([silent, constant]))]
    enough = len(np.unique(scan.trial_image[oracle_trials])) >= 2
    snr = oracle = None
    if enough:
        images = scan.trial_image[oracle_trials]
        trials = scan.responses[oracle_trials]
        snr = measure_reliability(trials, images).weights.snr
        oracle = oracle_correlation(trials, images)
    chance = (np.nan, np.nan)
    alignment = np.full(len(LAGS), np.nan)
    shifts: list[Shift] = []
    signal = response = np.nan
    if len(columns):
        unit = _z_scored(scan.responses, columns)
        response = _participation(unit[np.sort(rng.permutation(len(unit))[:_TRIALS])])
        if enough:
            signal = _signal_participation(unit[oracle_trials], scan.trial_image[oracle_trials])
        unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-30)
        if enough:
            alignment = alignment_at_lags(unit, scan.trial_image, oracle_trials)
            chance = chance_alignment(unit[oracle_trials], scan.trial_image[oracle_trials], rng)
            shifts = slipped_parts(unit, scan.trial_image, oracle_trials, alignment, chance)
    behaviour = tuple(_behaviour(scan))
    faults = [
        *_neuron_faults(scan.responses.shape[1], silent, constant, duplicated),
        *_repeat_faults(enough, len(columns), len(scan.trial_image), alignment, chance, shifts),
        *_behaviour_faults(behaviour),
    ]
    notes = list(scan.notes)
    if not shifts and alike_at_other_lags(alignment, chance):
        notes.append(
            "repeats are alike at other lags too, as where images always come in one order: whether responses slipped "
            "against their images cannot be told"
        )
    negative = sum(int((block < 0).sum()) for block in _blocks(scan.responses))
    if negative:
        share = 100 * negative / scan.responses.size
        notes.append(
            f"{share:.2g} % of the responses are below 0, as dF/F and z-scores are: similarities do not mind, a "
            "Poisson loss would"
        )
    if enough:
        repeats = len(oracle_trials) / len(np.unique(scan.trial_image[oracle_trials]))
        notes.append(
            f"with {repeats:.3g} repeats, a neuron without any signal has an SNR of {(repeats - 1) ** -0.5:.2f}"
        )
    if oracle_trials.size and tiers["oracle"].least < 2:
        once = int((np.bincount(scan.trial_image[scan.tier == "oracle"]) == 1).sum())
        notes.append(f"{once} oracle images were shown once, and say nothing about noise")
    return ScanCheck(
        name=scan.name,
        n_trials=len(scan.trial_image),
        n_neurons=scan.responses.shape[1],
        n_images=len(scan.stimuli),
        image_size=(int(scan.stimuli.pixels.shape[1]), int(scan.stimuli.pixels.shape[2])),
        tiers=tiers,
        snr=snr,
        oracle=oracle,
        signal_dimensions=float(signal),
        response_dimensions=float(response),
        alignment=alignment,
        chance=(float(chance[0]), float(chance[1])),
        behaviour=behaviour,
        silent=silent,
        constant=constant,
        duplicated=tuple(duplicated),
        shifts=tuple(shifts),
        notes=tuple(notes),
        faults=tuple(faults),
    )


def _count(scan: Scan, tier: str) -> TierCount:
    repeats = np.bincount(scan.trial_image[scan.tier == tier])
    shown = repeats[repeats > 0]
    return TierCount(len(shown), int(shown.sum()), int(shown.min()), int(shown.max()))


def _repeated_oracle_trials(scan: Scan) -> Int64[np.ndarray, " repeated"]:
    oracle = np.flatnonzero(scan.tier == "oracle")
    repeats = np.bincount(scan.trial_image[oracle], minlength=len(scan.stimuli))
    repeated: np.ndarray = oracle[repeats[scan.trial_image[oracle]] >= 2]
    return repeated.astype(np.int64)


def _blocks(responses: Float32[np.ndarray, "trial neuron"]) -> Iterator[Float32[np.ndarray, "some neuron"]]:
    for start in range(0, len(responses), _BLOCK):
        yield responses[start : start + _BLOCK]


def _unvarying(
    responses: Float32[np.ndarray, "trial neuron"],
) -> tuple[Int64[np.ndarray, " silent"], Int64[np.ndarray, " constant"]]:
    """Neurons that are 0 on every trial, and those that are always the same but not 0."""
    first = responses[0]
    varies = np.zeros(responses.shape[1], dtype=bool)
    for block in _blocks(responses):
        varies |= (block != first).any(axis=0)
    return np.flatnonzero(~varies & (first == 0)), np.flatnonzero(~varies & (first != 0))


def _duplicated(responses: Float32[np.ndarray, "trial neuron"], known: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of neurons that are the same on every trial: each with the first like it."""
    # sums of the bits modulo 2^64 are exact: equal columns have equal ones, unequal columns next to never
    mixed = np.zeros(responses.shape[1], dtype=np.uint64)
    weights = np.random.default_rng(0).integers(0, 2**64, len(responses), dtype=np.uint64)
    for start, block in zip(range(0, len(responses), _BLOCK), _blocks(responses), strict=True):
        bits = (block + np.float32(0)).view(np.uint32).astype(np.uint64)  # + 0: the two zeros have different bits
        mixed += (weights[start : start + _BLOCK, None] * bits).sum(axis=0, dtype=np.uint64)
    seen: dict[int, int] = {}
    pairs = []
    for neuron in np.setdiff1d(np.arange(len(mixed)), known).tolist():
        first = seen.setdefault(int(mixed[neuron]), neuron)
        if first != neuron and np.array_equal(responses[:, first], responses[:, neuron]):
            pairs.append((first, neuron))
    return pairs


def _z_scored(
    responses: Float32[np.ndarray, "trial neuron"], columns: np.ndarray
) -> Float32[np.ndarray, "trial picked"]:
    """Each neuron without its mean and in units of its standard deviation, so that loud ones do not speak for all."""
    picked = np.concatenate([block[:, columns] for block in _blocks(responses)])
    picked -= picked.mean(axis=0, dtype=np.float64).astype(np.float32)
    picked /= np.maximum(picked.std(axis=0, dtype=np.float64), 1e-30).astype(np.float32)
    return picked


def _participation(vectors: Float32[np.ndarray, "trial picked"]) -> float:
    """`(sum l)^2 / sum l^2` over the eigenvalues `l` of the covariance: 1 for a line, the dimension for a ball."""
    centred = vectors - vectors.mean(axis=0)
    gram = centred @ centred.T if len(centred) < centred.shape[1] else centred.T @ centred
    trace = float(np.trace(gram))
    return trace**2 / float(np.square(gram, dtype=np.float64).sum()) if trace > 0 else np.nan


def _signal_participation(vectors: Float32[np.ndarray, "trial picked"], image: Int64[np.ndarray, " trial"]) -> float:
    """Participation ratio of the signal alone: noise of two halves of the trials is independent, and averages out."""
    order = np.argsort(image, kind="stable")
    _, starts, counts = np.unique(image[order], return_index=True, return_counts=True)
    place = np.arange(len(order)) - np.repeat(starts, counts)
    halves = []
    for parity in (0, 1):
        mine = (place % 2 == parity).astype(np.float64)[:, None]
        sums = np.add.reduceat(vectors[order] * mine, starts, axis=0, dtype=np.float64)
        mean = sums / np.add.reduceat(mine, starts, axis=0)
        halves.append(mean - mean.mean(axis=0))
    cross = halves[0] @ halves[1].T
    trace, squared = float(np.trace(cross)), float((cross * cross.T).sum())
    ratio = trace**2 / squared if trace > 0 and squared > 0 else np.nan
    # outside what a participation ratio can be, halves do not agree well enough to say
    return ratio if 1 <= ratio <= len(cross) - 1 else np.nan


def _behaviour(scan: Scan) -> Iterator[Channel]:
    columns: list[tuple[str, np.ndarray]] = []
    if scan.behavior is not None:
        columns += list(zip(scan.behavior_names, scan.behavior.T, strict=True))
    if scan.pupil_center is not None:
        columns += list(zip(("pupil x", "pupil y"), scan.pupil_center.T, strict=True))
    for name, values in columns:
        there = values[np.isfinite(values)].astype(np.float64)
        if not len(there):
            yield Channel(name, np.nan, np.nan, np.nan, np.nan, 0.0)
            continue
        low, high = np.quantile(there, (0.05, 0.95))
        yield Channel(name, float(there.mean()), float(there.std()), float(low), float(high), len(there) / len(values))


def _named(neurons: Sequence[object]) -> str:
    return ", ".join(map(str, neurons[:_NAMED])) + (", ..." if len(neurons) > _NAMED else "")


def _neuron_faults(
    n: int, silent: np.ndarray, constant: np.ndarray, duplicated: Sequence[tuple[int, int]]
) -> Iterator[str]:
    for neurons, what in ((silent, "never fire"), (constant, "always give the same response")):
        if len(neurons):
            yield f"{len(neurons)} of {n} neurons {what} ({_named(neurons.tolist())}); drop them"
    if duplicated:
        pairs = _named([f"{neuron} as {first}" for first, neuron in duplicated])
        yield f"{len(duplicated)} of {n} neurons are copies of another ({pairs}); keep one of each"


def _repeat_faults(
    enough: bool,
    n_varying: int,
    n_trials: int,
    alignment: Float64[np.ndarray, " lag"],
    chance: tuple[float, float],
    shifts: Sequence[Shift],
) -> Iterator[str]:
    if not enough:
        yield (
            "fewer than 2 oracle images have 2 or more trials, so neither reliability (Eq. 1) nor alignment can be "
            "measured; show some images repeatedly, and mark them as oracle"
        )
    elif not n_varying:
        yield "no neuron's response ever changes; look at what was exported"
    yield from (_shift_fault(shift, n_trials) for shift in shifts)
    if enough and n_varying and not shifts:
        at_zero = float(alignment[LAGS.index(0)])
        if not at_zero > chance[0] + CLEAR * chance[1]:
            yield (
                f"two trials of one image are no more alike than trials of two (by {at_zero:.3f}; permuted images give "
                f"{chance[0]:.3f} ± {chance[1]:.3f}); responses may belong to other images, or carry no signal"
            )


def _shift_fault(shift: Shift, n_trials: int) -> str:
    whole = shift.first == 0 and shift.last == n_trials - 1
    where = "all trials" if whole else f"trials {shift.first} to {shift.last}"
    if shift.lag is None:
        return (
            f"{where}: responses fit no image's repeats (alike by {shift.as_they_stand:.3f}, elsewhere by "
            f"{shift.there:.3f}): shuffled, or misaligned by more than {LAGS[-1]}; leave these trials out, or "
            "pair them anew"
        )
    n, late = abs(shift.lag), shift.lag > 0
    return (
        f"{where}: responses come {n} trial{'s' if n > 1 else ''} {'after' if late else 'before'} their "
        f"images (repeats alike by {shift.there:.3f} there, {shift.as_they_stand:.3f} as they stand); pair each "
        f"image with the response {n} {'later' if late else 'earlier'}, and look for a lost frame"
    )


def _behaviour_faults(behaviour: Sequence[Channel]) -> Iterator[str]:
    for channel in behaviour:
        if channel.tracked < 0.5:
            yield f"{channel.name} was tracked on {100 * channel.tracked:.0f} % of the trials; leave it out"
        elif channel.spread == 0:
            yield f"{channel.name} is {channel.mean:g} on every trial; leave it out, or mend the tracker's export"
