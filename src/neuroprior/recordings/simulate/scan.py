"""A simulated recording: trials of cells, or of anything that turns images into rates, through behaviour and noise."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np

from neuroprior.recordings.simulate.animal import draw_animal, on_the_cortex, stream
from neuroprior.recordings.simulate.behaviour import (
    BEHAVIOR_NAMES,
    Behaviour,
    Modulation,
    behave,
    draw_modulation,
    gaze_nodes,
    shifted,
)
from neuroprior.recordings.simulate.cells import draw_cells, gabor_population
from neuroprior.recordings.simulate.checks import check
from neuroprior.recordings.simulate.noise import Noise, count_unit, draw_trials, private_noise
from neuroprior.types import (
    Float32,
    Float64,
    InputError,
    Int64,
    NeuronWeights,
    Population,
    Scan,
    Shaped,
    Stimuli,
    Tier,
)

__all__ = ["Rates", "SimulatedScan", "Viewing", "sessions", "simulate_from_rates", "simulate_scan"]

_ROWS = 256  # trials made together
_LEAST_SIZE = 4  # pixels

# the purposes of random numbers, first in each stream's key: none depends on how much another draws
_ANIMAL, _CELLS, _MODULATION, _TRIALS, _NOISE, _VALIDATION = range(6)


@runtime_checkable
class Rates(Protocol):
    """Whatever turns images into mean rates at neutral behaviour: a population of cells, a twin."""

    def __call__(self, pixels: Float32[np.ndarray, "image height width"]) -> Float32[np.ndarray, "image neuron"]:
        """Return the rates, 0 or more, to these pixels (0..255)."""
        ...


@dataclass(frozen=True, slots=True)
class Viewing:
    """Which animal looks, in which of its scans, and how often it sees what.

    `seed` names a world of animals; `animal` and `session` number them and their scans. `n_repeats`: trials of each
    oracle image. `n_validation`: so many of the other images, the same in all scans of a seed, are of tier
    "validation", shown once. Raises `InputError` for a number out of range.
    """

    n_repeats: int = 10
    n_validation: int = 0
    seed: int = 0
    animal: int = 0
    session: int = 0

    def __post_init__(self) -> None:
        check(
            "scan",
            ("n_repeats", self.n_repeats, self.n_repeats >= 2, "2 or more, or Eq. 1 has no noise to measure"),
            ("n_validation", self.n_validation, self.n_validation >= 0, "0 or more"),
            ("seed", self.seed, self.seed >= 0, "0 or more"),
            ("animal", self.animal, 0 <= self.animal < 2**32, "0 or more, and below 2^32"),
            ("session", self.session, 0 <= self.session < 2**32, "0 or more, and below 2^32"),
        )

    def stream(self, purpose: int, *key: int) -> np.random.Generator:
        """Return the random numbers of this scan for one purpose."""
        return stream(self.seed, purpose, self.animal, self.session, *key)


_FIRST, _USUAL_NOISE, _USUAL_BEHAVIOUR = Viewing(), Noise(), Behaviour()


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedScan:
    """A scan, and what no recording can tell: the responses without noise and the true reliability."""

    scan: Scan
    truth: Population
    """Mean rates for all stimuli at neutral gaze, mean running speed and mean pupil size, and `w = sigma / eta` as
    weights. Its source reads "recorded" for a mouse of Gabor cells, which stands in for a recorded one."""
    true_weights: NeuronWeights
    """What Eq. 1 (correction "none") tends to as repeats grow, over the oracle images. `sigma_a^2`: variance (ddof 0)
    of the expected response. `eta_a^2`: mean of the variance of all repeats, by private and shared noise, gain and gaze
    together."""
    gaze: Float32[np.ndarray, "trial 2"]
    """True gaze shift of every trial, right and down, in pixels of the images."""
    count_unit: Float32[np.ndarray, " neuron"] | None
    """What responses are whole multiples of (negative binomial noise); None where they are continuous."""

    def truth_for(self, tier: Tier) -> Population:
        """The truth for only the images shown in `tier`, in the stimuli's order: Eq. 2 centres on the images given."""
        shown = np.unique(self.scan.trial_image[self.scan.tier == tier])
        if not len(shown):
            raise InputError(f"scan {self.scan.name}: no trial of tier {tier!r}; ask for one that it has")
        return self.truth.select(self.truth.image_ids[shown])


def sessions(n_scans: int, n_animals: int = 1) -> list[tuple[int, int]]:
    """Deal `n_scans` scans out to `n_animals` in turn: their `(animal, session)`, for a loop over `simulate_scan`.

    Raises `InputError` for fewer than 1 animal, or fewer scans than animals.
    """
    check(
        "scan",
        ("n_animals", n_animals, n_animals >= 1, "1 or more"),
        ("n_scans", n_scans, n_scans >= n_animals, f"{n_animals} or more, one for each animal"),
    )
    return [(scan % n_animals, scan // n_animals) for scan in range(n_scans)]


def simulate_scan(
    stimuli: Stimuli,
    oracle_ids: Sequence[str] | np.ndarray,
    *,
    n_neurons: int = 500,
    n_repeats: int = 10,
    n_validation: int = 0,
    seed: int = 0,
    animal: int = 0,
    session: int = 0,
    complex_fraction: float = 0.5,
    snr_median: float = 0.5,
    snr_spread: float = 0.6,
    noise: Noise = _USUAL_NOISE,
    behaviour: Behaviour = _USUAL_BEHAVIOUR,
    name: str = "simulated",
    progress: Callable[[int, int], None] | None = None,
) -> SimulatedScan:
    """`r_ait ~ D(mean g_ta mu_a(image i, shifted by gaze t), variance c_a mean)`, `mu_a` the rate of a Gabor cell.

    Cells (`GaborPopulation`) are simple or, for `complex_fraction` of them, complex, with divisive normalisation and a
    surround; orientations and phases are uniform, positions too over the part of the screen that the animal's neurons
    see (about half), wavelengths long as a mouse's, mean rates log-normal (median 1). `neuron_xyz` follows the
    receptive fields (retinotopy). Everything else as in `simulate_from_rates`. Behaviour and shared noise are on:
    `behaviour=STILL, noise=Noise(shared=0.0)` leaves the private noise alone.
    """
    check(
        "scan",
        ("n_neurons", n_neurons, n_neurons >= 1, "1 or more"),
        ("complex_fraction", complex_fraction, 0 <= complex_fraction <= 1, "between 0 and 1"),
    )
    viewing = Viewing(n_repeats, n_validation, seed, animal, session)
    _check_snr(snr_median, snr_spread)
    _is_oracle(stimuli, oracle_ids)
    _, height, width = stimuli.pixels.shape
    if min(height, width) < _LEAST_SIZE:
        raise InputError(
            f"simulated scan: images of {height}x{width} pixels; cells need {_LEAST_SIZE} or more each way"
        )
    field = draw_animal(stream(seed, _ANIMAL, animal)).field
    cells = draw_cells(field, (height, width), n_neurons, complex_fraction, viewing.stream(_CELLS))
    population, rates = gabor_population(cells, stimuli)
    return simulate_from_rates(
        population,
        Population(stimuli.ids, rates, np.ones(n_neurons, dtype=np.float32), "recorded"),
        stimuli,
        oracle_ids,
        viewing=viewing,
        centre=cells.centre,
        snr_median=snr_median,
        snr_spread=snr_spread,
        noise=noise,
        behaviour=behaviour,
        name=name,
        progress=progress,
    )


def simulate_from_rates(
    rates: Rates,
    truth: Population,
    stimuli: Stimuli,
    oracle_ids: Sequence[str] | np.ndarray,
    *,
    viewing: Viewing = _FIRST,
    centre: Float64[np.ndarray, "neuron 2"] | None = None,
    snr_median: float = 0.5,
    snr_spread: float = 0.6,
    noise: Noise = _USUAL_NOISE,
    behaviour: Behaviour = _USUAL_BEHAVIOUR,
    name: str = "simulated",
    progress: Callable[[int, int], None] | None = None,
) -> SimulatedScan:
    """`r_ait ~ D(mean m = g_ta rates(image i shifted by gaze t)_a, variance c_a m)`: a scan of anything that has rates.

    D is gamma, or negative binomial (`Noise`). `g_ta` is the gain of running, pupil and shared noise (`Modulation`,
    `Behaviour`), 1 on average over shared noise at the animal's mean speed and mean pupil size. `c_a` is such that
    `sigma_a / eta_a`, all sources of noise together, is a weight drawn log-normal: median `snr_median`, `snr_spread`
    the standard deviation of the logarithm; but private noise never falls below a standard deviation of 10 % of the
    mean rate, and a neuron that behaviour alone makes noisier than drawn has the weight that then comes out.
    `sigma_a^2` and `eta_a^2` are over exactly the oracle images; a cell that those do not drive apart has weight 0.
    Their part from gain and shared noise is a closed form, that from gaze an average over 16 shifts (`gaze_nodes`).

    `truth`: what `rates` says of the unshifted stimuli, in their order (its weights play no part). `centre`: of the
    receptive fields, x and y in pixels, from which `neuron_xyz` (micrometres) is made; None leaves it out.
    Each image of `oracle_ids` is shown `n_repeats` times (tier "oracle"), every other one once ("train" or
    "validation"), shuffled. Behaviour is recorded also where it acts on nothing: `behavior` in the columns
    `BEHAVIOR_NAMES` (tracker pixels, their change since the last trial, cm/s), and `pupil_center`.

    Scans of one `animal` share its retinotopic map, its running and pupil statistics and its tracker; neurons, trials
    and noise are each `session`'s own. The same seed gives the same bytes, on one machine with one number of threads.
    `progress` is told trials done and trials in all.
    Raises `InputError` for oracle ids that are unknown, repeated or fewer than 2, and for numbers out of range.
    """
    _check_snr(snr_median, snr_spread)
    is_oracle = _is_oracle(stimuli, oracle_ids)
    tier = _tiers(is_oracle, viewing)
    if not np.array_equal(truth.image_ids, stimuli.ids):
        raise InputError("simulated scan: the truth is of other images than the stimuli; predict it for those")
    n_neurons = truth.mean.shape[1]
    animal = draw_animal(stream(viewing.seed, _ANIMAL, viewing.animal))
    own = viewing.stream(_MODULATION)
    drawn = snr_median * np.exp(snr_spread * own.standard_normal(n_neurons))
    xyz = None if centre is None else on_the_cortex(animal, centre, own).astype(np.float32)
    modulation = draw_modulation(animal, behaviour, noise.shared, noise.shared_rank, n_neurons, own)
    oracle_pixels = stimuli.pixels[is_oracle].astype(np.float32)
    true_weights, fano = _reliability(rates, oracle_pixels, truth.mean[is_oracle], modulation, behaviour, drawn)

    trials = viewing.stream(_TRIALS)
    trial_image = trials.permutation(np.repeat(np.arange(len(stimuli)), np.where(is_oracle, viewing.n_repeats, 1)))
    behaved = behave(animal, behaviour, len(trial_image), trials)
    shared = trials.standard_normal((len(trial_image), noise.shared_rank))
    looking = None if behaviour.gaze_spread == 0 else rates
    responses = np.empty((len(trial_image), n_neurons), dtype=np.float32)
    states, sources = modulation.gains(behaved, shared)
    fano32 = fano.astype(np.float32)
    for block, start in enumerate(range(0, len(trial_image), _ROWS)):
        rows = slice(start, start + _ROWS)
        mean = _seen(looking, truth, stimuli, trial_image[rows], behaved.gaze[rows])
        mean *= np.exp(states[rows] @ sources)
        # each block its own random numbers: a draw that rounding sends another way is forgotten with the block
        responses[rows] = draw_trials(noise.kind, mean, fano32, viewing.stream(_NOISE, block))
        if progress is not None:
            progress(min(start + _ROWS, len(trial_image)), len(trial_image))
    scan = Scan(
        name,
        stimuli,
        trial_image.astype(np.int64),
        responses,
        tier[trial_image],
        behavior=behaved.columns,
        behavior_names=BEHAVIOR_NAMES,
        pupil_center=behaved.pupil_center.astype(np.float32),
        neuron_xyz=xyz,
    )
    return SimulatedScan(
        scan,
        replace(truth, weights=true_weights.snr.astype(np.float32)),
        true_weights,
        behaved.gaze.astype(np.float32),
        count_unit(fano32) if noise.kind == "negative_binomial" else None,
    )


def _seen(
    rates: Rates | None,
    truth: Population,
    stimuli: Stimuli,
    images: Int64[np.ndarray, " trial"],
    gaze: Float64[np.ndarray, "trial 2"],
) -> Float32[np.ndarray, "trial neuron"]:
    """Rates to the images as gaze shifts them; those of the truth where nothing does (no `rates`)."""
    if rates is None:
        unshifted: Float32[np.ndarray, "trial neuron"] = truth.mean[images]
        return unshifted
    return rates(shifted(stimuli.pixels[images].astype(np.float32), gaze))


def _reliability(
    rates: Rates,
    pixels: Float32[np.ndarray, "oracle height width"],
    unshifted: Float32[np.ndarray, "oracle neuron"],
    modulation: Modulation,
    behaviour: Behaviour,
    drawn: Float64[np.ndarray, " neuron"],
) -> tuple[NeuronWeights, Float64[np.ndarray, " neuron"]]:
    """True `sigma_a^2` and `eta_a^2`, and the Fano factors `c_a` that bring their ratio to the weights drawn.

    With gain g and rate mu independent from trial to trial: `E_t m = E g E mu_i`, and the variance that behaviour and
    shared noise give is `E g^2 E mu_i^2 - (E_t m)^2`.
    """
    gain, gain_square = modulation.moment(1), modulation.moment(2)
    first, second = np.zeros(unshifted.shape), np.zeros(unshifted.shape)
    gazes = gaze_nodes(behaviour.gaze_spread)
    for gaze in gazes:
        for start in range(0, len(pixels), _ROWS):
            rows = slice(start, start + _ROWS)
            part = pixels[rows]
            seen = unshifted[rows] if not gaze.any() else rates(shifted(part, np.tile(gaze, (len(part), 1))))
            first[rows] += seen / len(gazes)
            second[rows] += np.square(seen, dtype=np.float64) / len(gazes)
    expected = gain * first
    outer = np.maximum((gain_square * second - np.square(expected)).mean(axis=0), 0.0)
    return private_noise(expected.var(axis=0), outer, expected.mean(axis=0), drawn)


def _check_snr(snr_median: float, snr_spread: float) -> None:
    check(
        "scan",
        ("snr_median", snr_median, 0 < snr_median < np.inf, "above 0"),
        ("snr_spread", snr_spread, 0 <= snr_spread < np.inf, "0 or more"),
    )


def _is_oracle(stimuli: Stimuli, oracle_ids: Sequence[str] | np.ndarray) -> Shaped[np.ndarray, " image"]:
    """Which of the stimuli are shown repeatedly."""
    oracle = np.asarray(oracle_ids, dtype=np.str_)
    if len(oracle) < 2 or len(np.unique(oracle)) != len(oracle):
        raise InputError(
            f"simulated scan: {len(np.unique(oracle))} distinct oracle ids of {len(oracle)}; give 2 or more"
        )
    unknown = oracle[~np.isin(oracle, stimuli.ids)]
    if len(unknown):
        raise InputError(
            f"simulated scan: oracle id {str(unknown[0])!r} is not among the {len(stimuli)} stimuli; pass ids of those"
        )
    chosen: np.ndarray = np.isin(stimuli.ids, oracle)
    return chosen


def _tiers(is_oracle: Shaped[np.ndarray, " image"], viewing: Viewing) -> Shaped[np.ndarray, " image"]:
    """The tier of each image."""
    others = np.flatnonzero(~is_oracle)
    if viewing.n_validation > len(others):
        raise InputError(
            f"simulated scan: n_validation is {viewing.n_validation}; it must be {len(others)} or less, the images "
            "that are not the oracle's"
        )
    tier = np.where(is_oracle, "oracle", "train").astype("<U10")
    tier[stream(viewing.seed, _VALIDATION).permutation(others)[: viewing.n_validation]] = "validation"
    return tier
