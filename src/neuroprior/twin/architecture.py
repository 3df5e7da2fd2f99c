"""What a twin is made of, and its parts before any training."""

import math
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, get_args

import torch

from neuroprior.twin.core import Core, separable_core, stacked_core
from neuroprior.twin.modulator import MLPModulator, NoModulation
from neuroprior.twin.readout import (
    CorticalPositions,
    FactorisedReadout,
    GaussianReadout,
    Readout,
    first_features,
    first_mask,
    first_spread,
)
from neuroprior.twin.shifter import MLPShifter, NoShift
from neuroprior.types import Float, InputError

__all__ = ["CORES", "TwinArchitecture"]

CoreKind: TypeAlias = str
"""A name in `CORES`."""
ReadoutKind = Literal["gaussian", "factorised"]
BehaviorKind = Literal["gain", "modulator", "channels", "none"]


class NewCore(Protocol):
    """What puts an untrained core together."""

    def __call__(
        self,
        in_channels: int,
        channels: int,
        first_kernel: int,
        kernel: int,
        n_layers: int,
        *,
        linear: bool = False,
        padded: bool = False,
    ) -> Core:
        """Return it; random numbers are torch's."""
        ...


CORES: dict[str, NewCore] = {
    "separable": separable_core,
    "stacked": stacked_core,
}


@dataclass(frozen=True, slots=True)
class TwinArchitecture:
    """The parts of a twin (PROTOCOL 4).

    `core`: "separable" (Sensorium 2022: a chain) or "stacked" (2019: every layer sees all before it, the readout too).
    `padded`: the first layer sees mean gray beyond the image, so that neurons can look at its margin (half a first
    filter wide), at a larger core's cost; Sensorium 2022's does not. `positions`: of the Gaussian readout, "free", or
    predicted from "cortical" coordinates. `covariance`: of the positions sampled in training. `behavior`: scales each
    neuron's rate ("gain") or, before the output nonlinearity, its drive ("modulator", as in 2018 and 2019), enters the
    core as constant "channels", or is left out. `linear`: no nonlinearity in the core (an ablation).
    Raises `InputError` for names that are unknown and numbers out of range.
    """

    core: CoreKind = "separable"
    channels: int = 64
    n_layers: int = 3
    first_kernel: int = 15
    kernel: int = 7
    padded: bool = True
    linear: bool = False
    readout: ReadoutKind = "gaussian"
    positions: Literal["free", "cortical"] = "free"
    covariance: Literal["full", "isotropic"] = "full"
    first_spread: float = 0.1
    shifter: Literal["mlp", "none"] = "mlp"
    behavior: BehaviorKind = "gain"

    def __post_init__(self) -> None:
        for name, kinds in (
            ("core", tuple(CORES)),
            ("readout", get_args(ReadoutKind)),
            ("positions", ("free", "cortical")),
            ("covariance", ("full", "isotropic")),
            ("shifter", ("mlp", "none")),
            ("behavior", get_args(BehaviorKind)),
        ):
            if getattr(self, name) not in kinds:
                raise InputError(f"twin: {name} is {getattr(self, name)!r}; choose {', '.join(kinds)}")
        for name in ("channels", "n_layers", "first_kernel", "kernel"):
            if getattr(self, name) < 1:
                raise InputError(f"twin: {name} is {getattr(self, name)}; it must be 1 or more")
        for name in ("kernel", "first_kernel") if self.padded else ("kernel",):
            if getattr(self, name) % 2 == 0:
                raise InputError(
                    f"twin: {name} is {getattr(self, name)}; give an odd one, so that layers keep their size"
                )
        if not 0 < self.first_spread < math.inf:
            raise InputError(f"twin: first_spread is {self.first_spread}; it must be above 0, and finite")

    @property
    def n_features(self) -> int:
        """Channels that the readout sees."""
        with torch.device("meta"):  # shapes alone: no memory, no random numbers
            return self.channels * self.new_core(0).stack

    def map_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the maps. Raises `InputError` for images smaller than the first filter."""
        lost = 0 if self.padded else self.first_kernel - 1
        height, width = (side - lost for side in image_size)
        if min(height, width) < 2:
            raise InputError(
                f"twin: images of {image_size[0]}x{image_size[1]} are too small for a first filter of "
                f"{self.first_kernel}; set first_kernel lower"
            )
        return height, width

    def new_core(self, n_behavior: int) -> Core:
        """Return a core to train; random numbers are torch's."""
        in_channels = 1 + (n_behavior if self.behavior == "channels" else 0)
        sizes = (in_channels, self.channels, self.first_kernel, self.kernel, self.n_layers)
        return CORES[self.core](*sizes, linear=self.linear, padded=self.padded)

    def new_readout(
        self,
        map_size: tuple[int, int],
        where: Float[torch.Tensor, "neuron 2"],
        bias: Float[torch.Tensor, " neuron"],
        cortex: Float[torch.Tensor, "neuron 2"] | None,
    ) -> Readout:
        """Return a readout to train. `where`: first positions; `bias`: the drive that gives the mean response."""
        features = first_features(len(bias), self.n_features)
        if self.readout == "factorised":
            return FactorisedReadout(first_mask(where, *map_size), features, bias)
        spread = first_spread(len(bias), self.first_spread, full=self.covariance == "full")
        if self.positions == "free":
            return GaussianReadout(where, features, bias, spread)
        if cortex is None:
            raise InputError("twin: positions are to be cortical, and the scan has no neuron_xyz; use free ones")
        return GaussianReadout(CorticalPositions(cortex), features, bias, spread)

    def new_shifter(self) -> MLPShifter | NoShift:
        """Return a shifter to train, or none."""
        return MLPShifter.untrained() if self.shifter == "mlp" else NoShift()

    def new_modulator(self, n_behavior: int, n_neurons: int) -> MLPModulator | NoModulation:
        """Return a modulator to train, or none."""
        if self.behavior not in ("gain", "modulator") or not n_behavior:
            return NoModulation()
        return MLPModulator(n_behavior, n_neurons, of="rate" if self.behavior == "gain" else "drive")
