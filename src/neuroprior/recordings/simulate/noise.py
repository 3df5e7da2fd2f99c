"""Noise of each neuron's own: gamma, or counts (negative binomial), as large as the reliability asked for allows."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from neuroprior.recordings.simulate.checks import check
from neuroprior.types import Float, Float32, Float64, NeuronWeights

__all__ = ["Noise", "NoiseKind"]

NoiseKind = Literal["gamma", "negative_binomial"]

_LEAST = 0.01  # private variance at the mean rate, in squared mean rates: a coefficient of variation of 10 %
_TOLD_APART = 1e-10  # signal variance in squared mean rates, below which it is rounding


@dataclass(frozen=True, slots=True)
class Noise:
    """What scatters trials at the same behaviour.

    `kind`: of the private noise, "gamma" (continuous) or "negative_binomial" (counts). `shared`: mean standard
    deviation of the log response due to fluctuations that all neurons share; `shared_rank`: how many of them there are.
    Raises `InputError` for another kind, `shared` outside [0, 1], or a rank below 1.
    """

    kind: NoiseKind = "gamma"
    shared: float = 0.15
    shared_rank: int = 3

    def __post_init__(self) -> None:
        check(
            "noise",
            ("kind", self.kind, self.kind in get_args(NoiseKind), " or ".join(get_args(NoiseKind))),
            ("shared", self.shared, 0 <= self.shared <= 1, "between 0 and 1"),
            ("shared_rank", self.shared_rank, self.shared_rank >= 1, "1 or more"),
        )


def private_noise(
    signal_variance: Float64[np.ndarray, " neuron"],
    outer_variance: Float64[np.ndarray, " neuron"],
    mean: Float64[np.ndarray, " neuron"],
    snr: Float64[np.ndarray, " neuron"],
) -> tuple[NeuronWeights, Float64[np.ndarray, " neuron"]]:
    """`c_a = (sigma_a^2 / snr_a^2 - outer_a) / mean_a`: the Fano factor that leaves `sigma_a / eta_a` the `snr` drawn.

    `outer_variance`: what behaviour and shared noise do to repeats of an image. Where they alone exceed the noise that
    the snr allows, private variance stays at 1 % of the squared mean rate, and the snr is what then comes out. There is
    no upper bound: at a low snr noise is rare, strong responses (gamma of shape `mean_a / c_a` far below 1), and a
    session may be too short for one, as a recording's may; a bound would give another snr than was asked for. A neuron
    that the images do not drive apart has a Fano factor of 1 and `sigma_a` 0.
    Returns the true `sigma_a^2` and `eta_a^2 = outer_a + c_a mean_a`, and `c_a`.
    """
    told_apart = signal_variance > _TOLD_APART * mean**2
    signal = np.where(told_apart, signal_variance, 0.0)
    private = np.where(told_apart, np.maximum(signal / snr**2 - outer_variance, _LEAST * mean**2), mean)
    fano = np.divide(private, mean, out=np.ones_like(mean), where=mean > 0)
    return NeuronWeights(signal, outer_variance + private), fano


def count_unit(fano: Float[np.ndarray, " neuron"]) -> Float[np.ndarray, " neuron"]:
    """What one count is worth: 1, or `c_a` where that is less, as counts cannot vary less than Poisson's."""
    unit: Float[np.ndarray, " neuron"] = np.minimum(fano, 1)
    return unit


def count_trials(
    rates: Float32[np.ndarray, "trial neuron"], fano: Float32[np.ndarray, " neuron"], rng: np.random.Generator
) -> Float32[np.ndarray, "trial neuron"]:
    """`u_a n` with n ~ Poisson(Gamma(mean mu, variance (c_a - u_a) mu) / u_a): mean mu, variance c_a mu.

    n is negative binomial, or Poisson where `c_a` is 1 or less; `u_a` is `count_unit`.
    """
    unit = count_unit(fano)
    extra = fano - unit
    mixed = extra > 0
    rates = rates.copy()
    rates[:, mixed] = extra[mixed] * rng.standard_gamma(rates[:, mixed] / extra[mixed], dtype=np.float32)
    responses: Float32[np.ndarray, "trial neuron"] = rng.poisson(rates / unit).astype(np.float32)
    responses *= unit
    return responses


def draw_trials(
    kind: NoiseKind,
    rates: Float32[np.ndarray, "trial neuron"],
    fano: Float32[np.ndarray, " neuron"],
    rng: np.random.Generator,
) -> Float32[np.ndarray, "trial neuron"]:
    """One response for every trial's rate `mu`, of mean `mu` and variance `c_a mu`."""
    if kind == "negative_binomial":
        return count_trials(rates, fano, rng)
    responses: Float32[np.ndarray, "trial neuron"] = rng.standard_gamma(rates / fano, dtype=np.float32)
    responses *= fano
    responses[responses < 1e-6] = 0.0  # a gamma of small shape reaches 1e-300, which no detector does
    return responses
