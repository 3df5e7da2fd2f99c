"""The digital twin: images and behaviour in, expected responses of one scan's neurons out."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from neuroprior.twin.core import Core
from neuroprior.twin.modulator import MLPModulator, NoModulation
from neuroprior.twin.readout import Readout
from neuroprior.twin.shifter import MLPShifter, NoShift
from neuroprior.types import Float, Float32, Float64, InputError, Int64, Shaped
from neuroprior.types.given import said

__all__ = ["EncodingModel", "Standardise", "Twin", "field_centres", "no_twin", "z_scored"]


class EncodingModel(nn.Module):
    """rho = unit gain(behaviour) (ELU(readout(core(image), shift(pupil))) + 1), in the units of the recorded responses.

    A modulator `of` the drive stands inside instead: ELU(gain readout) + 1.

    `behavior_scale`, `pupil_scale`: what takes recorded numbers to standardised ones. `channels`: whether behaviour
    also enters the core, as constant maps beside the image. `unit`: one number a neuron, in units of its responses.
    """

    def __init__(
        self,
        core: Core,
        readout: Readout,
        shifter: MLPShifter | NoShift,
        modulator: MLPModulator | NoModulation | None = None,
        *,
        channels: bool = True,
        behavior_scale: "Standardise | None" = None,
        pupil_scale: "Standardise | None" = None,
        unit: Float[torch.Tensor, " neuron"] | None = None,
    ) -> None:
        super().__init__()
        self.core = core
        self.readout = readout
        self.shifter = shifter
        self.modulator = NoModulation() if modulator is None else modulator
        self.channels = channels
        self.behavior_scale = behavior_scale or Standardise()
        self.pupil_scale = pupil_scale or Standardise()
        self.register_buffer("unit", torch.ones(len(readout.bias)) if unit is None else unit)
        self.unit: torch.Tensor

    def forward(
        self,
        images: Float[torch.Tensor, "image 1 h w"],
        behavior: Float[torch.Tensor, "image channel"],
        pupil_center: Float[torch.Tensor, "image 2"],
    ) -> Float[torch.Tensor, "image neuron"]:
        """Predict responses, one trial an image."""
        maps = self.core(self.seen(images, behavior))
        return self.rates(maps, behavior, pupil_center) * self.unit

    def seen(
        self, images: Float[torch.Tensor, "image 1 h w"], behavior: Float[torch.Tensor, "image channel"]
    ) -> Float[torch.Tensor, "image input h w"]:
        """Return what the core sees: the image, and behaviour where it enters there."""
        if not self.channels:
            return images
        maps = self.behavior_scale(behavior)[:, :, None, None].expand(-1, -1, *images.shape[-2:])
        return torch.cat([images, maps], dim=1)

    def rates(
        self,
        maps: Float[torch.Tensor, "image feature a b"],
        behavior: Float[torch.Tensor, "trial channel"],
        pupil_center: Float[torch.Tensor, "trial 2"],
        rows: Int64[torch.Tensor, " trial"] | None = None,
    ) -> Float[torch.Tensor, "trial neuron"]:
        """Expected responses of trials, in each neuron's own unit. `rows`: of `maps`, one a trial; trial t's is t."""
        drive = self.readout(maps, self.shifter(self.pupil_scale(pupil_center)), rows)
        gain: torch.Tensor = self.modulator(self.behavior_scale(behavior))
        return (F.elu(drive) + 1) * gain if self.modulator.of == "rate" else F.elu(drive * gain) + 1


class Standardise(nn.Module):
    """(x - mean) / std of each channel; mean 0 and std 1, whatever the number of channels, unless given."""

    def __init__(self, mean: torch.Tensor | None = None, std: torch.Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1) if mean is None else mean)
        self.register_buffer("std", torch.ones(1) if std is None else std)
        self.mean: torch.Tensor
        self.std: torch.Tensor

    def forward(self, values: Float[torch.Tensor, "trial channel"]) -> Float[torch.Tensor, "trial channel"]:
        """Standardise."""
        return (values - self.mean) / self.std


@dataclass(frozen=True, slots=True, eq=False)
class Twin:
    """A trained predictive model of one scan.

    `input_size`: height, width of the images it takes. `pixel_mean`, `pixel_std`: what images are z-scored with, in
    units of 0..255; None: with those of the image set that is passed. `snr`: w_a of each neuron (Eq. 1). `accuracy`:
    v_a, the correlation of prediction and response over oracle trials, negative ones 0 (Eq. 6). Both are None where
    the recording, or its repeats, are not at hand; every neuron then counts alike. `neutral_behavior`: the mean of
    each behaviour channel, `neutral_pupil`: of the pupil position, in the model's own units; `neutral_is_assumed`
    where nobody said what they are. `digest`: SHA-256 of the file it was read from, or of its own weights.
    """

    name: str
    model: EncodingModel
    input_size: tuple[int, int]
    n_neurons: int
    pixel_mean: float | None
    pixel_std: float | None
    neutral_behavior: tuple[float, ...]
    neutral_is_assumed: bool
    digest: str
    snr: Float32[np.ndarray, " neuron"] | None = None
    accuracy: Float32[np.ndarray, " neuron"] | None = None
    neutral_pupil: tuple[float, float] = (0.0, 0.0)
    behavior_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, value in (("snr", self.snr), ("accuracy", self.accuracy)):
            if value is not None and len(value) != self.n_neurons:
                raise InputError(f"twin {self.name}: {name} has {len(value)} values for {self.n_neurons} neurons")

    @property
    def weights(self) -> Float32[np.ndarray, " neuron"] | None:
        """w_a v_a (Eq. 1, 6); None where they are not known."""
        return None if self.snr is None or self.accuracy is None else self.snr * self.accuracy


def no_twin(what: str, given: object) -> InputError:
    """Return the error, begun by `what`, for what is given in the place of a twin, such as a path."""
    return InputError(f"{what}: got {said(given)}, not a Twin; pass a Twin: load_twin(path), or what fit_twin returns")


def z_scored(
    pixels: Shaped[np.ndarray, "image height width"], mean: float, std: float
) -> Float[torch.Tensor, "image 1 height width"]:
    """Return pixels (0..255) as a core takes them: z-scored, channels last."""
    images = (torch.from_numpy(pixels.astype(np.float32)) - mean) / std
    return images[:, None].contiguous(memory_format=torch.channels_last)


def field_centres(twin: Twin) -> Float64[np.ndarray, "neuron 2"]:
    """x, y of each neuron's place in the image at neutral gaze, in pixels from its upper left corner.

    The middle of pixel k is at k + 1/2. The maps are smaller than the image, about the same middle: positions of -1
    and 1 are the centres of the maps' corner pixels. Of a factorised readout, the place is its mask's centre of mass.
    """
    height, width = twin.input_size
    with torch.inference_mode():
        seen = twin.model.seen(torch.zeros(1, 1, height, width), torch.tensor([twin.neutral_behavior]))
        rows, columns = twin.model.core(seen).shape[2:]
        # shift and positions are learned together: only their sum means anything
        shift = twin.model.shifter(twin.model.pupil_scale(torch.tensor([twin.neutral_pupil])))
        positions = (twin.model.readout.positions + shift).detach().numpy().astype(np.float64)
    centres: Float64[np.ndarray, "neuron 2"] = ((width, height) + positions * (columns - 1, rows - 1)) / 2
    return centres
