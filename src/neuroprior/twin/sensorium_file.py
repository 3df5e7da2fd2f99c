"""A twin as the Sensorium 2022 code would have saved it: the names and shapes of its state dict."""

import io
import os

import torch
from torch import nn

from neuroprior.twin.core import SeparableConv
from neuroprior.twin.model import EncodingModel, Standardise, Twin
from neuroprior.twin.modulator import NoModulation
from neuroprior.twin.readout import GaussianReadout
from neuroprior.twin.saved import replacing
from neuroprior.twin.shifter import MLPShifter
from neuroprior.types import Float, InputError

__all__ = ["save_sensorium"]

_PARTS = ("in_depth_conv", "spatial_conv", "out_depth_conv")
_NEAR = 1e-4  # standard deviations: a mean over other trials, or in other precision
_LAPLACE = [[0.0, -1.0, 0.0], [-1.0, 4.0, -1.0], [0.0, -1.0, 0.0]]


def save_sensorium(twin: Twin, path: str | os.PathLike[str], *, own_units: bool = False) -> tuple[str, ...]:
    """Write a state dict that the Sensorium 2022 code and `load_twin` read; return what it does not hold, a line each.

    `core.features.layer{l}`, `readout.{scan}._mu`, `sigma`, `_features` and `bias`, `shifter.{scan}.mlp`: the names of
    a `FiringRateEncoder` with a stacked core (depth-separable or not) and a full Gaussian readout, free positions.
    The model in the file takes z-scored images, and behaviour and pupil position that are standardised as the twin
    standardises them: the lines returned give the numbers. `own_units`: responses in each neuron's own unit (one
    standard deviation), as Sensorium's are, where the twin predicts recorded units.
    Raises `InputError` naming every part that has no place there (the padding and the gain of a twin as fits make them
    by default) and the options to fit without, and for a disk that cannot be written.
    """  # fmt: skip
    strange = _without_place(twin.model)
    if strange:
        options = " and ".join(dict.fromkeys(filter(None, strange.values())))
        fit = "" if None in strange.values() else f"fit with {options}, or "
        raise InputError(
            f"twin {twin.name}: a Sensorium file has no place for {', '.join(strange)}; {fit}keep it as .safetensors "
            "(save_twins)"
        )
    if not own_units and not bool((twin.model.unit == 1).all()):
        raise InputError(
            f"twin {twin.name}: predicts recorded units, and a Sensorium file has no place for them (ELU + 1 is the "
            "last step); own_units=True (--own-units) saves it in each neuron's standard deviations"
        )
    state = _core(twin.model) | _readout(twin.model, twin.name) | _shifter(twin.model, twin.name)
    held = io.BytesIO()
    torch.save({name: value.detach().cpu().contiguous().clone() for name, value in state.items()}, held)
    with replacing(path) as temporary:
        temporary.write_bytes(held.getbuffer())
    return _lost(twin)


def _without_place(model: EncodingModel) -> dict[str, str | None]:
    """What a Sensorium file cannot say of a model; its reader would take something else for it.

    With the option of `twin fit` that does without; None where there is none.
    """
    strange: dict[str, str | None] = {}
    for k, layer in enumerate(model.core.layers):
        conv, norm, nonlinearity = layer.children()
        if type(nonlinearity) is not nn.ELU:
            strange[f"a linear layer {k}"] = "no --linear"
        if isinstance(norm, nn.BatchNorm2d) and norm.eps != nn.BatchNorm2d(1).eps:
            strange[f"batch norm with eps {norm.eps:g}"] = None
        if isinstance(conv, SeparableConv) and k == 0:
            strange["a depth-separable first layer"] = None
        if isinstance(conv, nn.Conv2d) and conv.padding != ((0, 0) if k == 0 else _half(conv.kernel_size)):
            strange[f"the padding of layer {k}"] = "--no-padded" if k == 0 else None
    if not isinstance(model.readout, GaussianReadout):
        strange["a factorised readout"] = "--readout gaussian"
    if not isinstance(model.modulator, NoModulation):
        strange["a modulator"] = "--behavior channels (or none)"
    return strange


def _half(kernel: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(side // 2 for side in kernel)


def _core(model: EncodingModel) -> dict[str, torch.Tensor]:
    state = {"core._input_weights_regularizer.laplace.filter": torch.tensor(_LAPLACE)[None, None]}
    for k, layer in enumerate(model.core.layers):
        conv, norm, _ = layer.children()
        named: dict[str, nn.Module] = {"conv": conv, "norm": norm}
        if isinstance(conv, SeparableConv):
            parts = zip(_PARTS, conv, strict=True)
            named = {**{f"ds_conv.{part}": each for part, each in parts}, "norm": norm}
        for part, each in named.items():
            state |= {f"core.features.layer{k}.{part}.{name}": value for name, value in each.state_dict().items()}
    return state


def _readout(model: EncodingModel, scan: str) -> dict[str, torch.Tensor]:
    readout = model.readout
    assert isinstance(readout, GaussianReadout)
    n = len(readout.bias)
    return {
        f"readout.{scan}._mu": readout.positions.clamp(-1, 1)[None, :, None],
        f"readout.{scan}.sigma": _spread(readout)[None],
        f"readout.{scan}._features": readout.features.T[None, :, None],
        f"readout.{scan}.bias": readout.bias.reshape(n),
    }


def _spread(readout: GaussianReadout) -> Float[torch.Tensor, "neuron 2 2"]:
    """What positions were sampled with in training: full; 0 where the twin is settled and no longer knows."""
    if readout.spread is None:
        return torch.zeros(len(readout.bias), 2, 2)
    factor: torch.Tensor = readout.spread.factor
    return factor[:, None, None] * torch.eye(2) if factor.ndim == 1 else factor


def _shifter(model: EncodingModel, scan: str) -> dict[str, torch.Tensor]:
    if not isinstance(model.shifter, MLPShifter):
        return {}
    return {f"shifter.{scan}.{name}": value for name, value in model.shifter.state_dict().items()}


def _lost(twin: Twin) -> tuple[str, ...]:
    """What a reader of the file has to be told."""
    model = twin.model
    lost = []
    if twin.input_size != (36, 64):
        lost.append(f"images are {twin.input_size[0]}x{twin.input_size[1]}; tell load_twin by input_size=")
    if twin.pixel_mean is not None and twin.pixel_std is not None:
        lost.append(f"pixels (0..255) are z-scored with mean {twin.pixel_mean:g}, std {twin.pixel_std:g}")
    if bool((model.unit != 1).any()):
        lost.append("responses are in each neuron's standard deviations; twin.model.unit is what these are")
    if model.channels and twin.neutral_behavior:
        lost += _standardised("behaviour", model.behavior_scale, twin.neutral_behavior)
    if isinstance(model.shifter, MLPShifter):
        lost += _standardised("pupil position", model.pupil_scale, twin.neutral_pupil)
    if twin.weights is not None:
        lost.append("signal-to-noise ratios w and accuracies v are left out; every neuron counts alike")
    return tuple(lost)


def _standardised(what: str, scale: Standardise, neutral: tuple[float, ...]) -> list[str]:
    """What goes into the file's model in place of recorded numbers, and where neutral then is if that is not at 0."""
    lost = []
    mean, std = (value.expand(len(neutral)).tolist() for value in (scale.mean, scale.std))
    if any(value != 0 for value in mean) or any(value != 1 for value in std):
        lost.append(f"{what} goes in as (x - {_listed(mean)}) / {_listed(std)}")
    at = scale(torch.tensor([neutral]))[0].tolist()
    if any(abs(value) > _NEAR for value in at):
        lost.append(f"neutral {what} is {_listed(at)}, where a reader takes 0")
    return lost


def _listed(values: list[float]) -> str:
    return f"({', '.join(f'{value:g}' for value in values)})"
