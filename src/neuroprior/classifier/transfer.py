"""What a trained core is worth on other data: its features, frozen, under the two simplest classifiers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from neuroprior.classifier.datasets import LabelledImages
from neuroprior.classifier.episodes import episode_rows
from neuroprior.classifier.resnet import ResNet
from neuroprior.modes import evaluating, like
from neuroprior.regularizer.taps import Taps, evenly_spaced_stages
from neuroprior.types import Float, Float32, Float64, InputError, Int64, UInt8

__all__ = ["FewShot", "class_means_head", "core_features", "few_shot_accuracy", "linear_probe_accuracy"]

_EPISODES_AT_ONCE = 50  # the features of all would be gigabytes
_HELD_OUT = 0.2


@dataclass(frozen=True, slots=True)
class FewShot:
    """Mean accuracy (0 to 1) of `n_episodes`, and its standard error over them.

    The episodes draw from the same images, so the error tells nothing of other images, nor of other trainings.
    """

    accuracy: float
    standard_error: float
    n_episodes: int
    ways: int
    shots: int


def core_features(
    network: nn.Module,
    images: UInt8[np.ndarray, "image channel h w"],
    *,
    layer: str | None = None,
    batch_size: int = 500,
) -> Float32[np.ndarray, "image feature"]:
    """f_ic = mean_yx a_icyx: the output a of the last stage, or of the module named `layer`, averaged over space.

    Of a `ResNet` these are the features that its head sees. The network is given pixels in [0, 1] in evaluation mode,
    and left as it was. Raises `InputError` for a layer that is not there, or whose output is neither `(image, feature)`
    nor `(image, channel, h, w)`.
    """
    if not len(images) or batch_size < 1:
        raise InputError(f"core_features: {len(images)} images, batch_size {batch_size}; give at least 1 of each")
    parts = []
    with torch.no_grad(), evaluating(network):
        layer = _last_stage(network, _pixels(network, images[:1])) if layer is None else layer
        taps = Taps(network, [layer])
        for start in range(0, len(images), batch_size):
            (output,) = taps.features(network, _pixels(network, images[start : start + batch_size]))
            if output.ndim not in (2, 4):
                raise InputError(
                    f"core_features: the output of {layer!r} is {tuple(output.shape)}, neither (image, feature) nor "
                    "(image, channel, h, w); name another layer"
                )
            output = output.float()
            parts.append((output.mean(dim=(2, 3)) if output.ndim == 4 else output).cpu())
    return torch.cat(parts).numpy()


def few_shot_accuracy(
    features: Float[np.ndarray, "image feature"],
    labels: Int64[np.ndarray, " image"],
    *,
    ways: int = 5,
    shots: int = 1,
    queries: int = 15,
    episodes: int = 600,
    seed: int = 0,
    base_mean: Float[np.ndarray, " feature"] | None = None,
) -> FewShot:
    """argmin_k |z_q - mean_s z_ks|^2 with z = (f - m) / |f - m|: SimpleShot, CL2N (Wang et al. 2019).

    m is `base_mean`, the mean feature of the images that the network was trained on (SimpleShot's choice), or that of
    `features` (transductive: it looks at the queries, not at their labels). The episodes follow from `labels` and
    `seed` alone, so networks are compared on the same ones.
    Raises `InputError` for features that are not finite, fewer classes than `ways`, or a class with too few images.
    """
    _check_features("few_shot_accuracy", features, labels)
    if base_mean is not None and (base_mean.shape != features.shape[1:] or not np.isfinite(base_mean).all()):
        raise InputError(
            f"few_shot_accuracy: base_mean is {base_mean.shape}, or not finite; pass the mean over images of "
            f"{features.shape[1]} finite features"
        )
    if episodes < 2:
        raise InputError(f"few_shot_accuracy: episodes is {episodes}; a standard error needs at least 2")
    z = _directions(features, base_mean)
    random = torch.Generator().manual_seed(seed)
    given = torch.from_numpy(np.require(labels, requirements="W"))
    rows = [
        episode_rows(given, ways=ways, shots=shots, queries=queries, random=random).numpy() for _ in range(episodes)
    ]
    grid = np.stack(rows).reshape(episodes, ways, shots + queries)
    parts = range(0, episodes, _EPISODES_AT_ONCE)
    accuracy = np.concatenate([_episode_accuracy(z[grid[k : k + _EPISODES_AT_ONCE]], shots) for k in parts])
    return FewShot(
        accuracy=float(accuracy.mean()),
        standard_error=float(accuracy.std(ddof=1)) / math.sqrt(episodes),
        n_episodes=episodes,
        ways=ways,
        shots=shots,
    )


def linear_probe_accuracy(
    train_features: Float[np.ndarray, "train feature"],
    train_labels: Int64[np.ndarray, " train"],
    test_features: Float[np.ndarray, "test feature"],
    test_labels: Int64[np.ndarray, " test"],
    *,
    l2: Sequence[float | int] = (1e-4, 1e-2, 1.0),
) -> float:
    """Test accuracy (0 to 1) of argmin_{W, b} mean_i CE(W x_i + b, y_i) + l2 / 2 |W|^2: logistic regression.

    x: the features, each standardised by the training part's mean and spread. Of the strengths `l2` (scikit-learn's
    1 / (C n)), that with the least cross-entropy on a fixed fifth of the training part is used on all of it.
    Raises `InputError` for features that are not finite, fewer than 2 classes, or a test label that training has not.
    """
    _check_features("linear_probe_accuracy: training part", train_features, train_labels)
    _check_features("linear_probe_accuracy: test part", test_features, test_labels)
    classes, y = np.unique(train_labels, return_inverse=True)
    unknown = np.setdiff1d(test_labels, classes)
    if len(unknown) or len(classes) < 2:
        label = f"; test label {unknown[0]} is not among them" if len(unknown) else ""
        raise InputError(
            f"linear_probe_accuracy: {len(classes)} classes in the training part{label}; train on images of each"
        )
    if not len(l2) or not all(0 < strength < math.inf for strength in l2):
        raise InputError(f"linear_probe_accuracy: l2 is {list(l2)}; give at least one strength above 0, and finite")
    mean, spread = train_features.mean(axis=0, dtype=np.float64), train_features.std(axis=0, dtype=np.float64)
    spread[spread <= _rounding(train_features) * np.abs(mean)] = math.inf  # a constant feature tells nothing
    x, x_test = (torch.from_numpy((part - mean) / spread) for part in (train_features, test_features))
    wanted = torch.from_numpy(y)

    order = torch.from_numpy(np.random.default_rng(0).permutation(len(x)))
    n_held_out = max(1, round(_HELD_OUT * len(x)))
    held_out, kept = order[:n_held_out], order[n_held_out:]
    losses = []
    for strength in l2:
        layer = _logistic_regression(x[kept], wanted[kept], len(classes), strength)
        losses.append(float(F.cross_entropy(layer(x[held_out]), wanted[held_out])))
    layer = _logistic_regression(x, wanted, len(classes), l2[int(np.argmin(losses))])
    return float((classes[layer(x_test).argmax(1).numpy()] == test_labels).mean())


def class_means_head(network: ResNet, images: LabelledImages) -> None:
    """Set the head to nearest class mean: z_k = 2 c_k . f - |c_k|^2, with c_k the mean core feature of class k.

    The largest z_k is that of the least |f - c_k|, so a network trained on episodes classifies, and is measured, as any
    other is. Raises `InputError` naming a class without images.
    """
    features = torch.from_numpy(core_features(network, images.pixels))
    labels = torch.from_numpy(images.labels.astype(np.int64))
    counts = torch.bincount(labels, minlength=len(images.classes))
    if not bool(counts.all()):
        raise InputError(f"class means: no image of class {images.classes[int(counts.argmin())]!r}; add some")
    sums = torch.zeros(len(counts), features.shape[1]).index_add_(0, labels, features)
    means = (sums / counts[:, None]).to(network.head.weight)
    with torch.no_grad():
        network.head.weight.copy_(2 * means)
        network.head.bias.copy_(-means.square().sum(dim=1))


def _last_stage(network: nn.Module, images: torch.Tensor) -> str:
    try:
        return evenly_spaced_stages(network, images, 1)[0]
    except InputError:
        raise InputError("core_features: this network's last stage is not clear; name it: layer=...") from None


def _pixels(network: nn.Module, images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.require(images, requirements="W")).to(like(network)) / 255


def _directions(features: np.ndarray, base_mean: np.ndarray | None) -> Float64[np.ndarray, "image feature"]:
    """z = (f - m) / |f - m|, and 0 where f is m but for rounding."""
    mean = features.mean(axis=0, dtype=np.float64) if base_mean is None else base_mean
    centred = features - mean.astype(np.float64)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    centred /= np.where(length > _rounding(features) * np.linalg.norm(mean), length, math.inf)
    return centred


def _episode_accuracy(
    z: Float64[np.ndarray, "episode way image feature"], shots: int
) -> Float64[np.ndarray, " episode"]:
    prototype = z[:, :, :shots].mean(axis=2)
    query = z[:, :, shots:].reshape(len(z), -1, z.shape[3])
    # |q - p|^2 without its |q|^2, which is the same for every class.
    distance = (prototype**2).sum(axis=2)[:, None] - 2 * query @ prototype.transpose(0, 2, 1)
    wanted = np.repeat(np.arange(z.shape[1]), z.shape[2] - shots)
    accuracy: np.ndarray = (distance.argmin(axis=2) == wanted).mean(axis=1)
    return accuracy


def _logistic_regression(
    x: Float64[torch.Tensor, "image feature"], wanted: Int64[torch.Tensor, " image"], classes: int, l2: float | int
) -> nn.Linear:
    """Return the minimum; the problem is convex, so it starts at 0 and nothing is random."""
    layer = nn.Linear(x.shape[1], classes, dtype=torch.float64)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.LBFGS(
        layer.parameters(), max_iter=500, tolerance_grad=1e-6, tolerance_change=1e-10, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(layer(x), wanted) + l2 / 2 * layer.weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call] # missing from torch's stub
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call] # missing from torch's stub
    return layer.requires_grad_(False)


def _rounding(features: np.ndarray) -> float:
    return 4 * float(np.finfo(features.dtype).eps)


def _check_features(what: str, features: np.ndarray, labels: np.ndarray) -> None:
    if features.ndim != 2 or labels.shape != features.shape[:1] or not len(features):
        raise InputError(
            f"{what}: features are {features.shape}, labels {labels.shape}; give (image, feature) and a label an image"
        )
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise InputError(
            f"{what}: {np.count_nonzero(~finite)} images have features that are not finite (first: row {row}); "
            "is the network's training gone wrong?"
        )
