"""Twin -> Population: what the twin's neurons would say to images, at neutral behaviour."""

from collections.abc import Callable, Iterator

import numpy as np
import torch

from neuroprior.twin.model import Twin, z_scored
from neuroprior.types import Float, Float32, InputError, Population, Precision, Shaped, Stimuli, Weighting

_PASS = 16  # images: their maps stay in the cache from layer to layer, which those of 64 do not (measured: 1.5 times)


def predict_population(
    twin: Twin,
    stimuli: Stimuli,
    *,
    weighting: Weighting | None = None,
    v_power: float = 1.0,
    precision: Precision = "float32",
    progress: Callable[[int, int], None] | None = None,
) -> Population:
    """Predict the mean response of every neuron to every image, float32, at mean behaviour and mean pupil position.

    Pixels (0..255) are z-scored with one mean and one standard deviation (ddof 0): the twin's own, or those of
    `stimuli`. Same stimuli, threads and versions: same numbers. `progress` is told images done and images in all.
    `precision: bfloat16` computes the maps with 8 bits of mantissa: for a quick look where a processor is fast at it,
    too coarse for a target that results rest on (`benchmarks/twin_predict.py` says by how much S then differs).
    `weighting`, `v_power`: of the neurons, as in `neuron_weights`.
    Raises `InputError` for images of another size, or weights that the twin does not know.
    """
    check_size(twin, stimuli)
    weights = neuron_weights(twin, weighting, v_power)
    scale = pixel_scale(twin, stimuli)
    responses = np.empty((len(stimuli), twin.n_neurons), dtype=np.float32)
    for rows in passes(len(stimuli)):
        pixels = stimuli.pixels[rows]
        responses[rows] = rates_of(twin, pixels, scale, *at_neutral(twin, len(pixels)), precision=precision)
        if progress is not None:
            progress(rows.stop, len(stimuli))
    return Population(image_ids=stimuli.ids, mean=responses, weights=weights, source="twin")


def passes(n: int) -> Iterator[slice]:
    """Cut `n` images or trials into what a twin looks at together."""
    return (slice(start, min(start + _PASS, n)) for start in range(0, n, _PASS))


def rates_of(
    twin: Twin,
    pixels: Shaped[np.ndarray, "trial height width"],
    scale: tuple[float, float],
    behavior: Float[torch.Tensor, "trial channel"],
    pupil: Float[torch.Tensor, "trial 2"],
    *,
    precision: Precision = "float32",
) -> Float32[np.ndarray, "trial neuron"]:
    """One pass: responses to pixels (0..255), z-scored by `scale`, with each trial's behaviour and pupil position."""
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        rates: np.ndarray = twin.model(z_scored(pixels, *scale), behavior, pupil).float().numpy()
    return rates


def neuron_weights(
    twin: Twin, weighting: Weighting | None = None, v_power: float = 1.0
) -> Float32[np.ndarray, " neuron"]:
    """`w_a v_a^n` (Eq. 1, 6), what each neuron counts in a similarity; n is `v_power`.

    `weighting`: "snr-v" is all of it, "snr" leaves v out, "v" leaves w out, "none" is 1 for every neuron. Where it is
    not given it is "snr-v", and "none" for a twin that knows no w and v.
    Raises `InputError` for weights that the twin does not know, or that are 0 for all, or a negative `v_power`.
    """
    if not 0 <= v_power < float("inf"):
        raise InputError(f"v_power is {v_power}; it must be 0 or more, and finite")
    if weighting is None:
        weighting = "none" if twin.weights is None else "snr-v"
    weights = np.ones(twin.n_neurons, dtype=np.float32)
    if weighting == "none":
        return weights
    if twin.snr is None or twin.accuracy is None:
        raise InputError(
            f"twin {twin.name}: knows no w and v (no recording with repeats), so it cannot weigh neurons by "
            f"{weighting}; use none"
        )
    if weighting in ("snr-v", "snr"):
        weights *= twin.snr
    if weighting in ("snr-v", "v"):
        weights *= twin.accuracy ** np.float32(v_power)
    if not weights.any():
        raise InputError(
            f"twin {twin.name}: the weights of all neurons are 0 (v is 0 where predictions and responses do not "
            "correlate); fit it longer or on more trials, or choose another weighting"
        )
    return weights


def at_neutral(twin: Twin, n: int) -> tuple[Float[torch.Tensor, "n channel"], Float[torch.Tensor, "n 2"]]:
    """Return behaviour and pupil position of `n` trials on which the animal does what it does on average."""
    behavior = torch.tensor([twin.neutral_behavior], dtype=torch.float32)
    return behavior.expand(n, -1), torch.tensor([twin.neutral_pupil], dtype=torch.float32).expand(n, -1)


def check_size(twin: Twin, stimuli: Stimuli) -> None:
    """Raise `InputError` when the stimuli are not of the size that the twin takes."""
    height, width = stimuli.pixels.shape[1:]
    if (height, width) != tuple(twin.input_size):
        raise InputError(
            f"twin {twin.name}: takes images of {twin.input_size[0]}x{twin.input_size[1]}, the stimuli are "
            f"{height}x{width}; resize the stimuli, or, if it is a Sensorium checkpoint trained on that size, read it "
            f"in Python with load_twin(..., input_size=({height}, {width})) and save_twins"
        )


def pixel_scale(twin: Twin, stimuli: Stimuli) -> tuple[float, float]:
    """Return the mean and standard deviation (ddof 0, units of 0..255) that these stimuli are z-scored with."""
    mean = float(stimuli.pixels.mean(dtype=np.float64)) if twin.pixel_mean is None else twin.pixel_mean
    std = float(stimuli.pixels.std(dtype=np.float64)) if twin.pixel_std is None else twin.pixel_std
    if not std > 0:
        raise InputError("stimuli: all pixels of all images are equal; z-scoring needs contrast")
    return mean, std


def known_scale(twin: Twin, given: tuple[float, float] | None) -> tuple[float, float]:
    """Return `given`, or the twin's own mean and standard deviation. Raises `InputError` where neither is there."""
    if given is None:
        if twin.pixel_mean is None or twin.pixel_std is None:
            raise InputError(
                f"twin {twin.name}: its file does not say what pixels are z-scored with; give pixel_scale=(mean, "
                "standard deviation) of the images it was trained on, in units of 0..255"
            )
        return twin.pixel_mean, twin.pixel_std
    if not given[1] > 0:
        raise InputError(f"pixel_scale: the standard deviation is {given[1]:g}; it must be above 0")
    return given
