"""A simulated mouse: Gabor cells that look at images through gamma noise, with every neuron's reliability known."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neuroprior.types import Float32, Float64, InputError, NeuronWeights, Population, Scan, Stimuli, Tier

__all__ = ["SimulatedScan", "simulate_scan"]

# Mouse V1 prefers about 0.04 cycles a degree; at about 2 degrees a pixel (64 pixels across the screen) that is a
# wavelength of some 13 pixels.
_WAVELENGTH = 13.0  # pixels, median
_WAVELENGTH_SPREAD = 0.4  # of its logarithm
_ENVELOPE = 0.4  # standard deviation of the Gaussian window, in wavelengths: about 1.5 octaves of bandwidth
_RATE_SPREAD = 0.8  # of the logarithm of the mean rate, whose median is 1
_LEAST_DRIVE = 1e-3  # mean |g.x| below which a cell sees nothing; photographs give about 1
_SPONTANEOUS = 0.1  # rate without drive, as a part of the mean driven rate
_MICROMETRES_A_PIXEL = 20.0  # cortical magnification, about 10 micrometres a degree


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedScan:
    """A scan, and what no recording can tell: the responses without noise and the true reliability."""

    scan: Scan
    truth: Population
    """Noise-free mean rates for all stimuli, and `w = sigma / eta` as weights. Its source reads "recorded": a
    simulated mouse stands in for a recorded one."""
    true_weights: NeuronWeights
    """`sigma_a^2`: variance (ddof 0) of the noise-free rate over the oracle images. `eta_a^2`: mean over the oracle
    images of the variance of the noise. Eq. 1 (correction "none") tends to their ratio as repeats grow."""

    def truth_for(self, tier: Tier) -> Population:
        """The truth for only the images shown in `tier`, in the stimuli's order: Eq. 2 centres on the images given."""
        shown = np.unique(self.scan.trial_image[self.scan.tier == tier])
        if not len(shown):
            raise InputError(f"scan {self.scan.name}: no trial of tier {tier!r}; ask for one that it has")
        return self.truth.select(self.truth.image_ids[shown])


def _receptive_fields(
    height: int, width: int, n_neurons: int, rng: np.random.Generator
) -> tuple[Float64[np.ndarray, "2 neuron pixel"], Float64[np.ndarray, "neuron 2"]]:
    """Gabor pairs a quarter of a cycle apart, without mean and of unit length, and their centres (x, y) in pixels."""
    centre = rng.random((n_neurons, 2)) * (width, height)
    angle = rng.random(n_neurons) * np.pi
    phase = rng.random(n_neurons) * 2 * np.pi
    wavelength = _WAVELENGTH * np.exp(_WAVELENGTH_SPREAD * rng.standard_normal(n_neurons))
    x = np.arange(width) + 0.5 - centre[:, :1]
    y = np.arange(height) + 0.5 - centre[:, 1:]
    spread = (_ENVELOPE * wavelength)[:, None]
    window = (np.exp(-0.5 * (y / spread) ** 2)[:, :, None] * np.exp(-0.5 * (x / spread) ** 2)[:, None, :]).reshape(
        n_neurons, -1
    )
    across = (y * np.sin(angle)[:, None])[:, :, None] + (x * np.cos(angle)[:, None])[:, None, :]
    cycle = 2 * np.pi * across.reshape(n_neurons, -1) / wavelength[:, None] + phase[:, None]
    pair = np.stack([np.cos(cycle), np.sin(cycle)]) * window
    # without its mean under the window, so that plain brightness drives no cell, also at the border of the field
    pair -= window * (pair.sum(axis=2) / window.sum(axis=1))[:, :, None]
    pair /= np.linalg.norm(pair, axis=2, keepdims=True)
    return pair, centre


def _rates(
    stimuli: Stimuli, pair: Float64[np.ndarray, "2 neuron pixel"], complex_cell: np.ndarray
) -> Float64[np.ndarray, "image neuron"]:
    """Noise-free rates of mean 1 over all images: `max(0, g.x)` (simple) or `(g.x)^2 + (g'.x)^2` (complex)."""
    pixels = stimuli.pixels.reshape(len(stimuli), -1).astype(np.float64)
    contrast = pixels.std()
    if contrast == 0:
        raise InputError("simulated scan: all pixels of the stimuli are the same; pass images that differ")
    pixels -= pixels.mean()
    pixels /= contrast
    # in float64: rounding that depends on the thread count stays too small to send the noise down another path
    drive = pixels @ pair[0].T
    drive[:, ~complex_cell] = np.maximum(drive[:, ~complex_cell], 0.0)
    drive[:, complex_cell] = drive[:, complex_cell] ** 2 + (pixels @ pair[1][complex_cell].T) ** 2
    mean = drive.mean(axis=0)
    # a cell that next to nothing in these images drives fires spontaneously: no rounding error is blown up to a rate
    driven = mean > np.where(complex_cell, _LEAST_DRIVE**2, _LEAST_DRIVE)
    drive /= np.where(driven, mean, 1.0)
    drive[:, ~driven] = 1.0
    rates: np.ndarray = (drive + _SPONTANEOUS) / (1 + _SPONTANEOUS)
    return rates


def noise_for(oracle_rates: Float64[np.ndarray, "oracle neuron"], snr: Float64[np.ndarray, " neuron"]) -> NeuronWeights:
    """`sigma_a^2` of these rates (ddof 0), and the `eta_a^2` that makes `sigma_a / eta_a` the `snr` asked for."""
    signal_variance = oracle_rates.var(axis=0)
    oracle_mean = oracle_rates.mean(axis=0)
    # where sigma is 0, any noise has the weight 0: that of a Fano factor of 1
    told_apart = signal_variance > 1e-12 * oracle_mean**2
    signal_variance[~told_apart] = 0.0
    return NeuronWeights(signal_variance, np.where(told_apart, signal_variance / snr**2, oracle_mean))


def gamma_trials(
    rates: Float64[np.ndarray, "trial neuron"], fano: Float64[np.ndarray, " neuron"], rng: np.random.Generator
) -> Float32[np.ndarray, "trial neuron"]:
    """One draw of `Gamma(mean mu, variance c_a mu)` for every trial's rate `mu` and neuron's Fano factor `c_a`."""
    responses: Float32[np.ndarray, "trial neuron"] = rng.standard_gamma(rates / fano).astype(np.float32)
    responses *= fano.astype(np.float32)
    responses[responses < 1e-6] = 0.0  # a gamma of small shape reaches 1e-300, which no detector does
    return responses


def simulate_scan(
    stimuli: Stimuli,
    oracle_ids: Sequence[str] | np.ndarray,
    *,
    n_neurons: int = 500,
    n_repeats: int = 10,
    seed: int = 0,
    complex_fraction: float = 0.5,
    snr_median: float = 0.5,
    snr_spread: float = 0.6,
    name: str = "simulated",
) -> SimulatedScan:
    """`r_ait ~ Gamma(mean mu_ia, variance c_a mu_ia)`, with `c_a` such that `sigma_a / eta_a` is the weight drawn.

    `mu_ia` is the rate of a Gabor cell: simple (half-rectified) or, for `complex_fraction` of them, complex (energy of
    two phases), on images z-scored with one mean and one standard deviation (ddof 0) over all pixels of `stimuli`;
    positions, orientations and phases are uniform, wavelengths long as a mouse's, mean rates log-normal (median 1).
    True weights are log-normal with median `snr_median` and `snr_spread` as standard deviation of the logarithm.
    `sigma_a^2` and `eta_a^2` are over exactly the oracle images; a cell that those do not drive apart has weight 0.

    Each image of `oracle_ids` is shown `n_repeats` times (tier "oracle"), every other one once ("train"), shuffled.
    `neuron_xyz` follows the receptive fields (retinotopy), in micrometres. The same seed gives the same scan.
    Raises `InputError` for oracle ids that are unknown, repeated or fewer than 2, and for numbers out of range.
    """
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
    for what, value, sound, bound in (
        ("n_neurons", n_neurons, n_neurons >= 1, "1 or more"),
        ("n_repeats", n_repeats, n_repeats >= 2, "2 or more, or Eq. 1 has no noise to measure"),
        ("seed", seed, seed >= 0, "0 or more"),
        ("complex_fraction", complex_fraction, 0 <= complex_fraction <= 1, "between 0 and 1"),
        ("snr_median", snr_median, 0 < snr_median < np.inf, "above 0"),
        ("snr_spread", snr_spread, 0 <= snr_spread < np.inf, "0 or more"),
    ):
        if not sound:
            raise InputError(f"simulated scan: {what} is {value}; it must be {bound}")

    # one stream for the animal and one for its trials: more repeats show the same animal again
    animal, session = (np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(2))
    _, height, width = stimuli.pixels.shape
    pair, centre = _receptive_fields(height, width, n_neurons, animal)
    complex_cell = animal.permutation(n_neurons) < round(complex_fraction * n_neurons)
    rates = _rates(stimuli, pair, complex_cell) * np.exp(_RATE_SPREAD * animal.standard_normal(n_neurons))
    drawn = snr_median * np.exp(snr_spread * animal.standard_normal(n_neurons))

    is_oracle = np.isin(stimuli.ids, oracle)
    true_weights = noise_for(rates[is_oracle], drawn)
    fano = true_weights.noise_variance / rates[is_oracle].mean(axis=0)

    trial_image = session.permutation(np.repeat(np.arange(len(stimuli)), np.where(is_oracle, n_repeats, 1)))
    responses = gamma_trials(rates[trial_image], fano, session)
    tier = np.where(is_oracle[trial_image], "oracle", "train")
    depth = 150.0 + 150.0 * animal.random((n_neurons, 1))  # layer 2/3
    xyz = np.hstack([centre * _MICROMETRES_A_PIXEL, depth]).astype(np.float32)
    truth = Population(stimuli.ids, rates.astype(np.float32), true_weights.snr.astype(np.float32), "recorded")
    scan = Scan(name, stimuli, trial_image.astype(np.int64), responses, tier, neuron_xyz=xyz)
    return SimulatedScan(scan, truth, true_weights)
