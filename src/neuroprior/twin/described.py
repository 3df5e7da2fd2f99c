"""A model, said in plain records: every size that is needed to build it again, before any weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import ConfigDict, Field
from torch import nn

from neuroprior.twin.core import Core, Layer, SeparableConv
from neuroprior.twin.model import EncodingModel, Standardise
from neuroprior.twin.modulator import MLPModulator, NoModulation, Scaled
from neuroprior.twin.readout import (
    CorticalPositions,
    FactorisedReadout,
    FreePositions,
    GaussianReadout,
    PositionSpread,
    Readout,
)
from neuroprior.twin.shifter import MLPShifter, NoShift
from neuroprior.types import InputError
from neuroprior.weights import first_line

__all__ = [
    "CoreRecord",
    "ModelRecord",
    "Record",
    "TwinRecord",
    "built",
    "built_core",
    "check_sizes",
    "described",
    "described_core",
]

Count = Annotated[int, Field(ge=0)]


class Record:
    """What is the same for all: read from JSON, a record takes no key that it does not know, and finite numbers."""

    __slots__ = ()
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class LayerRecord(Record):
    """`norm`: what batch norm adds to the variance; None: no batch norm."""

    kind: Literal["dense", "separable"]
    in_channels: Count
    channels: Count
    kernel: tuple[Count, Count]
    padding: tuple[Count, Count]
    bias: bool
    norm: float | None
    nonlinearity: Literal["elu", "none"]


@dataclass(frozen=True, slots=True)
class CoreRecord(Record):
    """`sees`, `stack`: as a `Core` has them."""

    layers: tuple[LayerRecord, ...]
    sees: tuple[Count, ...]
    stack: Count


@dataclass(frozen=True, slots=True)
class GaussianRecord(Record):
    """`cortical`: hidden units of the map from cortical coordinates; None: free positions."""

    kind: Literal["gaussian"]
    neurons: Count
    features: Count
    cortical: Count | None
    spread: Literal["full", "isotropic"] | None


@dataclass(frozen=True, slots=True)
class FactorisedRecord(Record):
    """`mask`: rows and columns of the maps."""

    kind: Literal["factorised"]
    neurons: Count
    features: Count
    mask: tuple[Count, Count]


@dataclass(frozen=True, slots=True)
class LinearRecord(Record):
    """A layer of the shifter."""

    inputs: Count
    outputs: Count
    bias: bool


@dataclass(frozen=True, slots=True)
class ModulatorRecord(Record):
    """`channels`: of behaviour. `hidden`: units. `of`: what it scales."""

    channels: Count
    hidden: Count
    of: Scaled = "drive"  # files of before there was a choice


@dataclass(frozen=True, slots=True)
class ModelRecord(Record):
    """`core`: which one of the file's. `shifter`: its layers. Scales: how many numbers each of its two has."""

    core: Count
    readout: Annotated[GaussianRecord | FactorisedRecord, Field(discriminator="kind")]
    shifter: tuple[LinearRecord, ...] | None
    modulator: ModulatorRecord | None
    channels: bool
    behavior_scale: tuple[Count, Count]
    pupil_scale: tuple[Count, Count]


@dataclass(frozen=True, slots=True)
class TwinRecord(Record):
    """All of a `Twin` that is no array, under the names that it has there."""

    model: ModelRecord
    name: str
    input_size: tuple[Count, Count]
    n_neurons: Count
    pixel_mean: float | None
    pixel_std: float | None
    neutral_behavior: tuple[float, ...]
    neutral_is_assumed: bool
    digest: str
    neutral_pupil: tuple[float, float] = (0.0, 0.0)
    behavior_names: tuple[str, ...] = ()


def described(model: EncodingModel, core: int, where: str) -> ModelRecord:
    """Say how a model is built. Raises `InputError`, naming `where`, for a part that a record has no place for."""
    shifter = None
    if type(model.shifter) is MLPShifter:
        layers = [layer for layer in model.shifter.mlp if isinstance(layer, nn.Linear)]
        shifter = tuple(LinearRecord(layer.in_features, layer.out_features, layer.bias is not None) for layer in layers)
    elif type(model.shifter) is not NoShift:
        raise _no_place(f"{where} shifter", model.shifter)
    modulator = None
    if type(model.modulator) is MLPModulator:
        channels, hidden = model.modulator.mlp[0].in_features, model.modulator.mlp[0].out_features
        modulator = ModulatorRecord(int(channels), int(hidden), model.modulator.of)  # type: ignore[arg-type] # of a Linear
    elif type(model.modulator) is not NoModulation:
        raise _no_place(f"{where} modulator", model.modulator)
    scales = [(len(scale.mean), len(scale.std)) for scale in (model.behavior_scale, model.pupil_scale)]
    return ModelRecord(core, _described_readout(model.readout, where), shifter, modulator, model.channels, *scales)


def described_core(core: Core, where: str) -> CoreRecord:
    """Say how a core is built. Raises as `described`."""
    layers = tuple(_described_layer(layer, f"{where} layer {k}") for k, layer in enumerate(core.layers))
    return CoreRecord(layers, tuple(core.sees), core.stack)


def _described_layer(layer: nn.Module, where: str) -> LayerRecord:
    if not isinstance(layer, Layer) or len(layer) != 3:
        raise _no_place(where, layer)
    conv, norm, nonlinearity = layer.children()
    separable = type(conv) is SeparableConv
    mix_in, spatial = (conv[0], conv[1]) if isinstance(conv, SeparableConv) else (conv, conv)
    if type(spatial) is not nn.Conv2d or not _is_plain(spatial, depthwise=separable):
        raise _no_place(where, spatial)
    if type(norm) is not nn.Identity and not (type(norm) is nn.BatchNorm2d and norm.track_running_stats):
        raise _no_place(where, norm)
    if not (type(nonlinearity) is nn.Identity or (type(nonlinearity) is nn.ELU and nonlinearity.alpha == 1)):
        raise _no_place(where, nonlinearity)
    return LayerRecord(
        kind="separable" if separable else "dense",
        in_channels=mix_in.in_channels,  # type: ignore[arg-type] # of a Conv2d, which a Sequential does not know
        channels=spatial.out_channels,
        kernel=_pair(spatial.kernel_size),
        padding=_pair(spatial.padding),
        bias=spatial.bias is not None,
        norm=norm.eps if isinstance(norm, nn.BatchNorm2d) else None,
        nonlinearity="elu" if isinstance(nonlinearity, nn.ELU) else "none",
    )


def _is_plain(conv: nn.Conv2d, *, depthwise: bool) -> bool:
    groups = conv.out_channels if depthwise else 1
    steps = conv.stride, conv.dilation
    return steps == ((1, 1), (1, 1)) and conv.groups == groups and conv.padding_mode == "zeros"


def _described_readout(readout: nn.Module, where: str) -> GaussianRecord | FactorisedRecord:
    if type(readout) is FactorisedReadout:
        neurons, rows, columns = readout.mask.shape
        return FactorisedRecord("factorised", neurons, readout.features.shape[1], (rows, columns))
    if type(readout) is not GaussianReadout:
        raise _no_place(f"{where} readout", readout)
    cortical = None
    if type(readout.places) is CorticalPositions:
        cortical = int(readout.places.mlp[0].out_features)  # type: ignore[arg-type] # of a Linear
    elif type(readout.places) is not FreePositions:
        raise _no_place(f"{where} readout", readout.places)
    spread: Literal["full", "isotropic"] | None = None
    if readout.spread is not None:
        spread = "isotropic" if readout.spread.factor.ndim == 1 else "full"
    neurons, features = readout.features.shape
    return GaussianRecord("gaussian", neurons, features, cortical, spread)


def _no_place(where: str, module: nn.Module) -> InputError:
    return InputError(f"{where}: a {module!r:.60} has no place in the file; save twins of this package's parts only")


def _pair(value: Any) -> tuple[int, int]:
    return (int(value[0]), int(value[1]))


def built(record: ModelRecord, core: Core, where: str) -> EncodingModel:
    """Build the model on the "meta" device, where a size that a damaged header made up costs no memory.

    Raises `InputError`, naming `where`, for sizes of which no model can be built.
    """
    with _building(where):
        shifter: MLPShifter | NoShift = NoShift()
        if record.shifter is not None:
            shifter = MLPShifter([nn.Linear(each.inputs, each.outputs, bias=each.bias) for each in record.shifter])
        modulator: MLPModulator | NoModulation = NoModulation()
        if record.modulator is not None:
            given = record.modulator
            modulator = MLPModulator(given.channels, record.readout.neurons, given.hidden, of=given.of)
        scales = [
            Standardise(*(torch.empty(n) for n in sizes)) for sizes in (record.behavior_scale, record.pupil_scale)
        ]
        model = EncodingModel(
            core,
            _built_readout(record.readout),
            shifter,
            modulator,
            channels=record.channels,
            behavior_scale=scales[0],
            pupil_scale=scales[1],
            unit=torch.empty(record.readout.neurons),
        )
    return model.eval()


def built_core(record: CoreRecord, where: str) -> Core:
    """Build the core. Raises as `built`."""
    n = len(record.layers)
    if n < 1 or len(record.sees) != n or not 1 <= record.stack <= n:
        raise InputError(f"{where}: {n} layers, sees {list(record.sees)}, stack {record.stack}; save the twins again")
    if any(not min(1, k) <= back <= k for k, back in enumerate(record.sees)):
        raise InputError(f"{where}.sees is {list(record.sees)}: a layer sees 1 or more before it; save the twins again")
    with _building(where):
        return Core([_built_layer(layer) for layer in record.layers], list(record.sees), record.stack)


def _built_layer(record: LayerRecord) -> nn.Module:
    if record.kind == "separable":
        conv: nn.Module = SeparableConv(record.in_channels, record.channels, record.kernel[0], bias=record.bias)
    else:
        conv = nn.Conv2d(record.in_channels, record.channels, record.kernel, padding=record.padding, bias=record.bias)
    norm = nn.Identity() if record.norm is None else nn.BatchNorm2d(record.channels, eps=record.norm)
    return Layer(conv, norm, nn.ELU() if record.nonlinearity == "elu" else nn.Identity())


def _built_readout(record: GaussianRecord | FactorisedRecord) -> Readout:
    n = record.neurons
    features, bias = torch.empty(n, record.features), torch.empty(n)
    if isinstance(record, FactorisedRecord):
        return FactorisedReadout(torch.empty(n, *record.mask), features, bias)
    where = torch.empty(n, 2)
    spread = None
    if record.spread is not None:
        spread = PositionSpread(torch.empty(n) if record.spread == "isotropic" else torch.empty(n, 2, 2))
    places = where if record.cortical is None else CorticalPositions(where, record.cortical)
    return GaussianReadout(places, features, bias, spread)


@contextmanager
def _building(where: str) -> Iterator[None]:
    try:
        with torch.device("meta"):
            yield
    except (RuntimeError, ValueError, OverflowError, TypeError) as error:
        raise InputError(f"{where}: cannot be built ({first_line(error)}); save the twins again") from None


def check_sizes(core: CoreRecord, twin: TwinRecord, where: str) -> None:
    """Raise `InputError` unless each part gives what the next one takes: channels, maps, neurons, behaviour."""
    model, layers, n_behavior = twin.model, core.layers, len(twin.neutral_behavior)
    sizes: list[tuple[int, int]] = []
    for k, layer in enumerate(layers):
        seen = layers[k - core.sees[k] : k]
        channels = sum(one.channels for one in seen) if k else 1 + n_behavior * model.channels
        _check(f"{where}: layer {k} of its core takes", layer.in_channels, channels)
        before = sizes[-1] if k else twin.input_size
        _check(f"{where}: layer {k} of its core sees maps of", sizes[k - core.sees[k] : k], [before] * len(seen))
        pads = layer.padding if layer.kind == "dense" else (layer.kernel[0] // 2,) * 2
        height, width = (n + 2 * pad - side + 1 for n, pad, side in zip(before, pads, layer.kernel, strict=True))
        if min(height, width) < 1:
            raise InputError(f"{where}.input_size: {_by(twin.input_size)} is too small for its core; save it again")
        sizes.append((height, width))
    readout, stacked = model.readout, layers[-core.stack :]
    _check(f"{where}: the readout sees maps of", sizes[-core.stack :], [sizes[-1]] * core.stack)
    _check(f"{where}.model.readout.features", readout.features, sum(layer.channels for layer in stacked))
    _check(f"{where}.n_neurons", twin.n_neurons, readout.neurons)
    if isinstance(readout, FactorisedRecord):
        _check(f"{where}.model.readout.mask", readout.mask, sizes[-1])
    if model.modulator is not None:
        _check(f"{where}.model.modulator.channels", model.modulator.channels, n_behavior)
    if model.shifter is not None:
        ends = [2, *(layer.outputs for layer in model.shifter)]
        _check(f"{where}.model.shifter", [*(layer.inputs for layer in model.shifter), 2], ends)
    for name, numbers, n in (("behavior", model.behavior_scale, n_behavior), ("pupil", model.pupil_scale, 2)):
        _check(f"{where}.model.{name}_scale", numbers, tuple(1 if number == 1 else n for number in numbers))


def _check(what: str, given: object, needed: object) -> None:
    if given != needed:
        raise InputError(f"{what} {given}, and the rest of the model gives {needed}; save the twins again")


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
