"""Reading twins: those that were saved, and Sensorium 2022 checkpoints, whose architecture is in no header."""

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from neuroprior.twin.core import Core, Layer, SeparableConv
from neuroprior.twin.model import EncodingModel, Twin
from neuroprior.twin.readout import GaussianReadout
from neuroprior.twin.saved import is_saved, load_twins
from neuroprior.twin.shifter import MLPShifter, NoShift
from neuroprior.types import InputError
from neuroprior.weights import first_line, read_weights

Weights = dict[str, torch.Tensor]

# What only training needs: the smoothness penalty's kernel, the spread that positions are sampled with, step counters.
_TRAINING_ONLY = re.compile(
    r"core\._input_weights_regularizer\..*|.*\.num_batches_tracked|readout\.(?P<scan>.+)\.sigma|readout\..+\.mean_activity"
)
_SEPARABLE = ("in_depth_conv", "spatial_conv", "out_depth_conv")
_USUAL_SIZE = (36, 64)  # height, width of Sensorium's images
# What parameters of other architectures are called there, so that a message can say what a file holds.
_KNOWN_ELSEWHERE = {
    r"readout\..+\.(spatial|_shared_spatial|normalized_spatial|_?mask\w*)": "a factorised readout",
    r"readout\..+\.(_shared_features|scales|feature_sharing_index|_shared_mu|mu_scale|mu_bias|grid_sharing_index)": (
        "a readout whose neurons share features or positions"
    ),
    r"readout\..+\.(log_var|mu_xy|mu_ch|sigma_xy|sigma_ch|offset_field\w*\..*)": "another kind of Gaussian readout",
    r"readout\..+\.(weight|_?linear\..*)": "a readout of all pixels",
    r"readout\..+\.(keys|values|query|attention|position_embedding)\b.*": "a readout by attention",
    r"core\..*\b(se|seg_ex_block|se_block)\..*": "squeeze and excitation",
    r"core\..*(attention|attn|qkv|patch|transformer).*": "a core with attention",
    r"core\..*\b(gru|rnn|lstm|ConvGRU|\w*_gate)\b.*": "a recurrent core",
    r"core\..*(hermite|rotat).*": "a rotation-equivariant core",
    r"core\..*(temporal|conv3d).*": "a core for films",
    r"modulator\..*": "a modulator",
    r"shifter\..*": "a shifter of another kind",
}


def load_twin(
    path: str | os.PathLike[str],
    *,
    scan: str | None = None,
    input_size: tuple[int, int] | None = None,
    neutral_behavior: tuple[float, ...] | None = None,
) -> Twin:
    """Read one twin: of the folder of `neuroprior twin fit`, a file that `save_twins` wrote, or a Sensorium 2022
    checkpoint. Nothing in it is executed.

    Which of them it is, is found by looking. A saved file says all there is to say. Of a checkpoint (a state
    dict) these are inferred from names and shapes: number, kind (dense or depth-separable) and width of the layers,
    which layers each one sees and which the readout sees, batch norm or bias, behaviour channels beside the image,
    free or cortically predicted positions, the shifter. Not in the file, and so the Sensorium defaults: first layer
    unpadded, others size-keeping; ELU; `tanh` on predicted positions; output `ELU + 1`.

    `scan`: which mouse's twin, when the file holds several. `input_size`: height, width the model was trained on;
    where it is not given, what the file says, or 36x64 for a checkpoint. `neutral_behavior`: mean of each behaviour
    channel in the model's units. A checkpoint does not hold it: where it is not given, zeros are assumed, and every
    target made with the twin says so.
    Raises `InputError` for a missing or damaged file, parameters this reader does not know (all are listed), or
    several readouts where `scan` is not given.
    """
    file = Path(path)
    if file.is_dir():
        return _of_fit(file, scan, input_size, neutral_behavior)
    if is_saved(file):
        twins = {twin.name: twin for twin in load_twins(file)}
        return _as_asked(twins[_chosen(list(twins), scan, file)], file, input_size, neutral_behavior)
    weights = read_weights(file)
    names = sorted({m["scan"] for key in weights if (m := re.fullmatch(r"readout\.(?P<scan>.+?)\._?features", key))})
    if not names:
        raise InputError(
            f"{file}: no neuron readout in it{_said_of(weights)}; a Sensorium 2022 checkpoint (core and readout) is "
            "expected, or what save_twins wrote"
        )
    name = _chosen(names, scan, file)
    left = {key: value for key, value in weights.items() if not _TRAINING_ONLY.fullmatch(key)}
    for other in names:
        if other != name:
            left = {k: v for k, v in left.items() if not k.startswith((f"readout.{other}.", f"shifter.{other}."))}
    try:
        core, in_channels = _core(left, readout_features=_features_of(weights, name).shape[1])
        readout = _readout(left, name)
        shifter = _shifter(left, name)
    except KeyError as error:
        if kinds := _kinds([key for key in left if not key.startswith("shifter.")]):
            raise InputError(
                f"{file}: parameter {error.args[0]} is missing, and there is {kinds}, which this reader does not know; "
                "take a checkpoint with a Gaussian readout and a convolutional core"
            ) from None
        raise InputError(f"{file}: parameter {error.args[0]} is missing; the checkpoint is incomplete") from None
    except (RuntimeError, IndexError, ValueError) as error:
        raise InputError(f"{file}: shapes do not fit together ({first_line(error)}); not a model this reads") from None
    if left:
        kinds = f" ({found})" if (found := _kinds(left)) else ""
        raise InputError(
            f"{file}: parameters of an architecture this reader does not know: {', '.join(sorted(left))}{kinds}; "
            "only Sensorium 2022 stacked or depth-separable cores with Gaussian readouts are read"
        )
    channels = in_channels - 1
    model = EncodingModel(core, readout, shifter, channels=True).eval().requires_grad_(False)
    twin = Twin(
        name=name,
        model=model.to(memory_format=torch.channels_last),  # type: ignore[call-overload] # missing from torch's stub
        input_size=_USUAL_SIZE if input_size is None else input_size,
        n_neurons=len(readout.bias),
        pixel_mean=None,
        pixel_std=None,
        neutral_behavior=(0.0,) * channels,
        neutral_is_assumed=channels > 0,
        digest=hashlib.sha256(file.read_bytes()).hexdigest(),
    )
    return _as_asked(twin, file, input_size, neutral_behavior)


def _of_fit(
    folder: Path, scan: str | None, input_size: tuple[int, int] | None, neutral_behavior: tuple[float, ...] | None
) -> Twin:
    """One twin of a folder that `neuroprior twin fit` made."""
    from neuroprior.twin.folder import load_fit  # which reads files with `load_twin`

    twins = {twin.name: twin for twin in load_fit(folder).twins}
    twin = twins[_chosen(list(twins), scan, folder)]
    if not isinstance(twin, Twin):
        raise InputError(
            f"{folder}: a crossfit of {len(twin.folds)} folds, no single twin; use neuroprior.twin.load_fit(path).twins"
        )
    return _as_asked(twin, folder, input_size, neutral_behavior)


def _chosen(names: list[str], scan: str | None, file: Path) -> str:
    if scan is None and len(names) > 1:
        raise InputError(f"{file}: holds {len(names)} scans ({', '.join(names)}); choose one with scan=")
    name = scan or names[0]
    if name not in names:
        raise InputError(f"{file}: no scan {name!r}; it holds {', '.join(names)}")
    return name


def _as_asked(
    twin: Twin, file: Path, input_size: tuple[int, int] | None, neutral_behavior: tuple[float, ...] | None
) -> Twin:
    """The twin with what the caller says of it. Raises `InputError` where that does not fit it."""
    if input_size is not None and tuple(input_size) != tuple(twin.input_size):
        height, width = twin.input_size
        raise InputError(f"{file}: twin {twin.name} takes images of {height}x{width}; leave input_size out")
    if neutral_behavior is None:
        return twin
    channels = len(twin.neutral_behavior)
    if len(neutral_behavior) != channels:
        raise InputError(f"{file}: {len(neutral_behavior)} neutral_behavior values for {channels} behaviour channels")
    return replace(twin, neutral_behavior=tuple(neutral_behavior), neutral_is_assumed=False)


def _kinds(names: Iterable[str]) -> str:
    """What parameters of these names are of, as far as it is known."""
    here = list(names)
    found = [kind for form, kind in _KNOWN_ELSEWHERE.items() if any(re.fullmatch(form, name) for name in here)]
    return ", ".join(dict.fromkeys(found))


def _said_of(weights: Weights) -> str:
    """What a file without a readout that is known holds instead."""
    named = sorted(key for key in weights if key.startswith("readout.")) or sorted(weights)
    more = f" and {len(named) - 3} more" if len(named) > 3 else ""
    kinds = f" ({found})" if (found := _kinds(named)) else ""
    return f", but {', '.join(named[:3])}{more}{kinds}"


def _conv(left: Weights, prefix: str, *, padded: bool, groups: int = 1) -> nn.Conv2d:
    weight = left.pop(f"{prefix}.weight")
    bias = left.pop(f"{prefix}.bias", None)
    out_channels, in_channels, height, width = weight.shape
    conv = nn.Conv2d(
        in_channels * groups,
        out_channels,
        (height, width),
        padding=(height // 2, width // 2) if padded else 0,
        groups=groups,
        bias=bias is not None,
    )
    conv.load_state_dict({"weight": weight} if bias is None else {"weight": weight, "bias": bias})
    return conv


def _core(left: Weights, readout_features: int) -> tuple[Core, int]:
    """Take the core's parameters out of `left`; return it and its number of input channels."""
    depth = 1 + max((int(m[1]) for key in left if (m := re.match(r"core\.features\.layer(\d+)\.", key))), default=0)
    layers: list[nn.Module] = []
    sees = []
    widths: list[int] = []
    for index in range(depth):
        prefix = f"core.features.layer{index}"
        if f"{prefix}.ds_conv.spatial_conv.weight" in left:
            mix_in, spatial, mix_out = (f"{prefix}.ds_conv.{part}" for part in _SEPARABLE)
            out, _, kernel, _ = left[f"{spatial}.weight"].shape
            first = left[f"{mix_in}.weight"]
            conv: nn.Module = SeparableConv(first.shape[1], out, kernel, bias=f"{mix_in}.bias" in left)
            parts = (_conv(left, mix_in, padded=False), _conv(left, spatial, padded=True, groups=out))
            conv = _filled(conv, nn.Sequential(*parts, _conv(left, mix_out, padded=False)).state_dict())
            in_channels = first.shape[1]
        else:
            conv = _conv(left, f"{prefix}.conv", padded=index > 0)
            out, in_channels = conv.out_channels, conv.in_channels
        if index == 0:
            image_channels = in_channels
        # A layer that takes as many channels as the last k layers gave sees exactly those.
        back = 0
        while back < index and sum(widths[index - back :]) < in_channels:
            back += 1
        if index and sum(widths[index - back :]) != in_channels:
            raise RuntimeError(f"layer {index} takes {in_channels} channels of {widths}")
        widths.append(out)
        sees.append(back)
        layers.append(Layer(conv, _norm(left, prefix, out), nn.ELU()))
    stack = 1
    while stack < depth and sum(widths[-stack:]) < readout_features:
        stack += 1
    if sum(widths[-stack:]) != readout_features:
        raise RuntimeError(f"the readout takes {readout_features} features of layers with {widths} channels")
    return Core(layers, sees, stack), image_channels


def _norm(left: Weights, prefix: str, channels: int) -> nn.Module:
    """Batch norm with its own scale and bias, with either one beside it, or none at all."""
    if f"{prefix}.norm.running_mean" not in left:
        return nn.Identity()
    norm = nn.BatchNorm2d(channels)
    scale = left.pop(f"{prefix}.norm.weight", left.pop(f"{prefix}.scale.scale", torch.ones(channels)))
    bias = left.pop(f"{prefix}.norm.bias", left.pop(f"{prefix}.bias.bias", torch.zeros(channels)))
    state = {"weight": scale.reshape(-1), "bias": bias.reshape(-1), "num_batches_tracked": torch.tensor(0)}
    for moment in ("running_mean", "running_var"):
        state[moment] = left.pop(f"{prefix}.norm.{moment}")
    return _filled(norm, state)


def _filled(module: nn.Module, state: Weights) -> nn.Module:
    module.load_state_dict(state)
    return module


def _features_of(left: Weights, name: str) -> torch.Tensor:
    key = f"readout.{name}._features"
    return left[key] if key in left else left[f"readout.{name}.features"]


def _readout(left: Weights, name: str) -> GaussianReadout:
    prefix = f"readout.{name}"
    features = _features_of(left, name)
    left.pop(f"{prefix}._features", None)
    left.pop(f"{prefix}.features", None)
    n = features.shape[-1]
    grid = left.pop(f"{prefix}.source_grid", None)
    if grid is None:
        positions = left.pop(f"{prefix}._mu", None)
        if positions is None:
            positions = left.pop(f"{prefix}.mu")
    else:
        positions = grid
        linear = _linears(left, f"{prefix}.mu_transform")
        for index, layer in enumerate(linear):
            positions = layer(positions)
            positions = torch.tanh(positions) if index == len(linear) - 1 else nn.functional.elu(positions)
    return GaussianReadout(
        positions=positions.detach().reshape(n, 2).clamp(-1, 1),
        features=features.reshape(-1, n).T.contiguous(),
        bias=left.pop(f"{prefix}.bias", torch.zeros(n)),
    )


def _shifter(left: Weights, name: str) -> MLPShifter | NoShift:
    if f"shifter.{name}.weight" in left:  # the static affine shifter is one linear layer and a tanh
        return MLPShifter([_linear(left, f"shifter.{name}")])
    layers = _linears(left, f"shifter.{name}.mlp")
    if layers and layers[0].in_features != 2:
        raise RuntimeError(f"the shifter takes {layers[0].in_features} numbers, and a pupil position has 2")
    return MLPShifter(layers) if layers else NoShift()


def _linears(left: Weights, prefix: str) -> list[nn.Linear]:
    numbers = sorted(int(m[1]) for key in left if (m := re.fullmatch(re.escape(prefix) + r"\.(\d+)\.weight", key)))
    return [_linear(left, f"{prefix}.{number}") for number in numbers]


def _linear(left: Weights, prefix: str) -> nn.Linear:
    weight = left.pop(f"{prefix}.weight")
    bias = left.pop(f"{prefix}.bias", None)
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.load_state_dict({"weight": weight} if bias is None else {"weight": weight, "bias": bias})
    return layer
