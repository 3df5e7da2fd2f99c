"""Twin -> Population -> SimilarityTarget: what the twin's neurons would say to images, at neutral behaviour."""

from collections.abc import Callable

import numpy as np
import torch

from neuroprior.similarity import target_from_population
from neuroprior.twin.model import Twin
from neuroprior.types import Float, InputError, Population, Precision, SimilarityTarget, Stimuli

_CHUNK = 16  # images a pass: their maps stay in the cache from layer to layer, which 64 do not (measured: 1.5 times)


def predict_population(
    twin: Twin,
    stimuli: Stimuli,
    *,
    precision: Precision = "float32",
    progress: Callable[[int, int], None] | None = None,
) -> Population:
    """Predict the mean response of every neuron to every image, float32, at mean behaviour and mean pupil position.

    Pixels (0..255) are z-scored with one mean and one standard deviation (ddof 0): the twin's own, or those of
    `stimuli`. Same stimuli, threads and versions: same numbers. `progress` is told images done and images in all.
    `precision: bfloat16` computes the maps with 8 bits of mantissa: for a quick look where a processor is fast at it,
    too coarse for a target that results rest on (`benchmarks/twin_predict.py` says by how much S then differs).
    Raises `InputError` for images of another size.
    """
    check_size(twin, stimuli)
    mean, std = pixel_scale(twin, stimuli)
    responses = np.empty((len(stimuli), twin.n_neurons), dtype=np.float32)
    with torch.inference_mode():
        for start in range(0, len(stimuli), _CHUNK):
            pixels = torch.from_numpy(stimuli.pixels[start : start + _CHUNK].astype(np.float32))
            images = ((pixels - mean) / std)[:, None].contiguous(memory_format=torch.channels_last)
            n = len(images)
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                rates = twin.model(images, *at_neutral(twin, n))
            responses[start : start + n] = rates.float().numpy()
            if progress is not None:
                progress(start + n, len(stimuli))
    weights = np.ones(twin.n_neurons, dtype=np.float32) if twin.weights is None else twin.weights
    return Population(image_ids=stimuli.ids, mean=responses, weights=weights, source="twin")


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
            f"{height}x{width}; resize the stimuli, or name the size it was trained on: load_twin(..., input_size=)"
        )


def pixel_scale(twin: Twin, stimuli: Stimuli) -> tuple[float, float]:
    """Return the mean and standard deviation (ddof 0, units of 0..255) that these stimuli are z-scored with."""
    mean = float(stimuli.pixels.mean(dtype=np.float64)) if twin.pixel_mean is None else twin.pixel_mean
    std = float(stimuli.pixels.std(dtype=np.float64)) if twin.pixel_std is None else twin.pixel_std
    if not std > 0:
        raise InputError("stimuli: all pixels of all images are equal; z-scoring needs contrast")
    return mean, std


def target_from_twin(
    twin: Twin,
    stimuli: Stimuli,
    *,
    precision: Precision = "float32",
    progress: Callable[[int, int], None] | None = None,
) -> SimilarityTarget:
    """S_model (Eq. 6): Eq. 2 of the twin's predictions, each neuron weighted by w_a v_a where the twin knows them.

    A target of `precision: bfloat16` says in its details that it is coarse.
    """
    population = predict_population(twin, stimuli, precision=precision, progress=progress)
    details = dict(target_details(twin, stimuli))
    if precision == "bfloat16":
        details["precision"] = "bfloat16: too coarse for a target that results rest on"
    return target_from_population(population, stimuli, details=details)


def target_details(twin: Twin, stimuli: Stimuli) -> dict[str, str | float | int]:
    """Say how a target of this twin is made, for every table that uses it."""
    mean, std = pixel_scale(twin, stimuli)
    behavior: dict[str, str | float | int] = {}
    if twin.neutral_behavior:
        said = ", ".join(f"{value:g}" for value in twin.neutral_behavior)
        behavior["neutral_behavior"] = f"{said} (assumed: not in the checkpoint)" if twin.neutral_is_assumed else said
    return {
        **behavior,
        "twin": twin.name,
        "twin_digest": twin.digest,
        "weights": "1 for every neuron (ready-made twin: no recording, so no w and v)"
        if twin.weights is None
        else "w v (Eq. 1, 6)",
        "pixel_mean": mean,
        "pixel_std": std,
    }
