"""The digital twin: images and behaviour in, expected responses of one scan's neurons out."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from neuroprior.twin.core import Core
from neuroprior.twin.readout import GaussianReadout
from neuroprior.twin.shifter import MLPShifter, NoShift
from neuroprior.types import Float, Float32


class EncodingModel(nn.Module):
    """rho = ELU(readout(core(image, behaviour), shifter(pupil))) + 1, in the units of the recorded responses."""

    def __init__(self, core: Core, readout: GaussianReadout, shifter: MLPShifter | NoShift) -> None:
        super().__init__()
        self.core = core
        self.readout = readout
        self.shifter = shifter

    def forward(
        self,
        images: Float[torch.Tensor, "image 1 h w"],
        behavior: Float[torch.Tensor, "image channel"],
        pupil_center: Float[torch.Tensor, "image 2"],
    ) -> Float[torch.Tensor, "image neuron"]:
        """Predict responses; behaviour (if the model takes any) enters as constant channels beside the image."""
        channels = behavior[:, :, None, None].expand(-1, -1, *images.shape[-2:])
        maps = self.core(torch.cat([images, channels], dim=1))
        drive: torch.Tensor = self.readout(maps, self.shifter(pupil_center))
        return F.elu(drive) + 1


@dataclass(frozen=True, slots=True, eq=False)
class Twin:
    """A trained predictive model of one scan.

    `input_size`: height, width of the images it takes. `pixel_mean`, `pixel_std`: what images are z-scored with, in
    units of 0..255; None: with those of the image set that is passed. `weights`: w_a v_a of each neuron (Eq. 1, 6);
    None where the recording is not at hand, and every neuron then counts alike. `neutral_behavior`: the mean of each
    behaviour channel, in the model's own units; `neutral_is_assumed` where nobody said what it is. `digest`: SHA-256
    of the file it was read from.
    """

    name: str
    model: EncodingModel
    input_size: tuple[int, int]
    n_neurons: int
    pixel_mean: float | None
    pixel_std: float | None
    weights: Float32[np.ndarray, " neuron"] | None
    neutral_behavior: tuple[float, ...]
    neutral_is_assumed: bool
    digest: str
