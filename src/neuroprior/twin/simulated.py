"""A simulated scan of a real mouse's neurons: a twin gives the mean responses, behaviour and noise are simulated."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from neuroprior.recordings import Behaviour, Noise, SimulatedScan, Viewing, simulate_from_rates
from neuroprior.twin.model import Twin, field_centres
from neuroprior.twin.predict import at_neutral, passes, pixel_scale, predict_population, rates_of
from neuroprior.types import Float32, InputError, Int64, Stimuli

__all__ = ["simulate_from_twin"]

_USUAL_NOISE, _USUAL_BEHAVIOUR = Noise(), Behaviour()


@dataclass(frozen=True, slots=True, eq=False)
class TwinRates:
    """Rates of some of a twin's neurons at neutral behaviour, of pixels z-scored with these numbers."""

    twin: Twin
    neurons: Int64[np.ndarray, " neuron"]
    pixel_mean: float
    pixel_std: float

    def __call__(self, pixels: Float32[np.ndarray, "image height width"]) -> Float32[np.ndarray, "image neuron"]:
        """Return the rates to these pixels (0..255)."""
        rates = np.empty((len(pixels), len(self.neurons)), dtype=np.float32)
        scale = self.pixel_mean, self.pixel_std
        for rows in passes(len(pixels)):
            part = pixels[rows]
            rates[rows] = rates_of(self.twin, part, scale, *at_neutral(self.twin, len(part)))[:, self.neurons]
        return rates


def simulate_from_twin(
    twin: Twin,
    stimuli: Stimuli,
    oracle_ids: Sequence[str] | np.ndarray,
    *,
    n_neurons: int | None = None,
    neurons: Int64[np.ndarray, " neuron"] | None = None,
    n_repeats: int = 10,
    n_validation: int = 0,
    seed: int = 0,
    animal: int = 0,
    session: int = 0,
    snr_median: float = 0.5,
    snr_spread: float = 0.6,
    noise: Noise = _USUAL_NOISE,
    behaviour: Behaviour = _USUAL_BEHAVIOUR,
    name: str = "simulated",
    progress: Callable[[int, int], None] | None = None,
) -> SimulatedScan:
    """`simulate_scan` with a real mouse's model in place of Gabor cells: `mu_a` is the twin's rate.

    The twin sees each trial's image shifted by the gaze, at its neutral behaviour and with its own shifter at rest;
    gain, gaze and noise are the simulated animal's. All images are z-scored with one mean and one standard deviation:
    the twin's own, or those of the unshifted `stimuli`. `n_neurons`: so many, drawn at random, another draw in each
    session; None: all. `neurons`: exactly these of the twin's, instead. `neuron_xyz` follows the twin's readout
    positions. The truth's source is "twin".
    The twin looks at every image and, where gaze shifts them, at every trial and 16 times at every oracle image: about
    a minute for 3,000 looks of a Sensorium model on two cores.
    Raises `InputError` for images of another size, and as `simulate_from_rates`.
    """
    viewing = Viewing(n_repeats, n_validation, seed, animal, session)
    wanted = twin.n_neurons if n_neurons is None else n_neurons
    if not 1 <= wanted <= twin.n_neurons:
        raise InputError(f"twin {twin.name}: n_neurons is {wanted}; it must be between 1 and {twin.n_neurons}")
    if neurons is None:
        drawn = np.random.default_rng((seed, animal, session)).permutation(twin.n_neurons)
        neurons = np.sort(drawn[:wanted]).astype(np.int64)
    elif not len(neurons) or neurons.min() < 0 or neurons.max() >= twin.n_neurons:
        raise InputError(f"twin {twin.name}: neurons must be 1 or more of its {twin.n_neurons}, counted from 0")
    everyone = predict_population(twin, stimuli)
    truth = replace(everyone, mean=everyone.mean[:, neurons], weights=everyone.weights[neurons])
    return simulate_from_rates(
        TwinRates(twin, neurons, *pixel_scale(twin, stimuli)),
        truth,
        stimuli,
        oracle_ids,
        viewing=viewing,
        centre=field_centres(twin)[neurons],
        snr_median=snr_median,
        snr_spread=snr_spread,
        noise=noise,
        behaviour=behaviour,
        name=name,
        progress=progress,
    )
