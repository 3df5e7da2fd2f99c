"""The cosine of centred features (Eq. 9), and their mean by channel, without a copy of them in float32; a part of them.

Features are taken block by block, in the order in which they lie in memory: a dot product does not mind.
"""

from collections.abc import Iterator

import torch

from neuroprior.types import Float, Int64

_SHORTEST = 1e-12  # length of a centred feature vector; a shorter one counts as of this length
_BLOCK = 1 << 20  # values of all images that are float32 at once


def layer_similarity(
    features: Float[torch.Tensor, "image ..."], mean: Float[torch.Tensor, "..."]
) -> Float[torch.Tensor, "image image"]:
    """S_ij = (f_i - f̄) . (f_j - f̄) / (|f_i - f̄| |f_j - f̄|) (Eq. 9), f flattened over channels and space, float32.

    `mean` broadcasts against one image's features. A vector of zero length has similarity 0 with every other.
    Differentiable once. Features are centred, multiplied and forgotten block by block, in the order in which they lie.
    """
    # a copy: the running mean changes in place, and a second call may come before this one's gradient
    found: torch.Tensor = _CentredCosine.apply(features, _mean_as_features(features, mean.float()).clone())  # type: ignore[no-untyped-call]
    return found


def channel_mean(features: Float[torch.Tensor, "image ..."]) -> Float[torch.Tensor, "..."]:
    """Return the mean over images and places of each channel, shaped to broadcast against one image's features.

    Channels are axis 1 of maps `(image, channel, height, width)` and the last axis of tokens `(image, token, channel)`.
    Float32, without gradient.
    """
    maps = _as_they_lie(features.detach())
    channels_last = features.ndim == 3 or _lies_channels_last(features)
    total = torch.zeros(maps.shape[2 if channels_last else 1], device=maps.device)
    for part in _parts(maps):
        own = maps[:, part].float()
        if channels_last:
            total += own.sum((0, 1))
        else:
            total[part] = own.sum((0, 2))
    shape = (1, -1) if features.ndim == 3 else (-1, *(1,) * (features.ndim - 2))
    return (total * (len(total) / features.numel())).view(shape)


def places_of(features: torch.Tensor) -> tuple[int, int]:
    """Return the number of places of an image's features, and of features at a place; vectors have one place."""
    if features.ndim == 2:
        return 1, features.shape[1]
    channels = features.shape[2 if features.ndim == 3 else 1]
    return features[0].numel() // channels, channels


def at_places(features: torch.Tensor, chosen: Int64[torch.Tensor, " place"]) -> torch.Tensor:
    """Return features at some places: tokens `(image, place, channel)`, or maps `(image, channel, place, 1)`."""
    if features.ndim == 3:
        return features.index_select(1, chosen)
    if _lies_channels_last(features):
        return _as_they_lie(features).index_select(1, chosen).transpose(1, 2)[..., None]
    return features.flatten(2).index_select(2, chosen)[..., None]


class _CentredCosine(torch.autograd.Function):
    """With G_ij = (f_i - f̄) . (f_j - f̄) and u_i = 1 / |f_i - f̄|: S_ij = u_i G_ij u_j.

    The gradient to f - f̄ is M (f - f̄), M = D + D' of images x images, D that to G; so f - f̄ is never kept whole.
    """

    @staticmethod
    def forward(ctx, features, mean):  # type: ignore[no-untyped-def]
        gram = torch.zeros(len(features), len(features), device=features.device)
        with torch.autocast(features.device.type, enabled=False):
            for _, centred in _centred(features, mean):
                gram.addmm_(centred, centred.T)
        inverse = 1 / gram.diagonal().sqrt().clamp(min=_SHORTEST)
        ctx.save_for_backward(features, mean, gram, inverse)
        return gram * inverse[:, None] * inverse

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream):  # type: ignore[no-untyped-def]
        features, mean, gram, inverse = ctx.saved_tensors
        to_gram = upstream * inverse[:, None] * inverse
        to_gram = to_gram + to_gram.T
        by_length = -inverse.square() * (to_gram * gram).sum(1)
        # a length that counts as another one is none of the features'
        mixed = to_gram + torch.diag(torch.where(gram.diagonal().sqrt() > _SHORTEST, by_length, 0))
        to_features = torch.empty_like(features, memory_format=_format(features))
        to_mean = torch.zeros_like(mean) if ctx.needs_input_grad[1] else None
        written = _as_they_lie(to_features)
        with torch.autocast(features.device.type, enabled=False):
            for part, centred in _centred(features, mean):
                flow = (mixed @ centred).view(len(features), -1, written.shape[2])
                written[:, part] = flow
                if to_mean is not None:
                    own = to_mean[part] if len(mean) > 1 else to_mean
                    own.sub_(flow.sum(0).sum_to_size(own.shape))
        return to_features, to_mean


def _lies_channels_last(features: torch.Tensor) -> bool:
    return features.ndim == 4 and features.is_contiguous(memory_format=torch.channels_last)


def _format(features: torch.Tensor) -> torch.memory_format:
    return torch.channels_last if _lies_channels_last(features) else torch.contiguous_format


def _as_they_lie(features: torch.Tensor) -> torch.Tensor:
    """Return features as `(image, a, b)`: a view, where they lie in one piece."""
    if _lies_channels_last(features):
        return features.permute(0, 2, 3, 1).flatten(1, 2)
    return features[..., None] if features.ndim == 2 else features.flatten(2)


def _mean_as_features(features: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """Return the mean as `_as_they_lie` returns features, `(a or 1, b or 1)`."""
    mean = mean.view(*(1,) * (features.ndim - 1 - mean.ndim), *mean.shape)
    shape, merged = features.shape[1:], 1  # so many axes become a
    if _lies_channels_last(features):
        shape, mean, merged = features.permute(0, 2, 3, 1).shape[1:], mean.permute(1, 2, 0), 2
    a, b = (
        mean.shape[axes] if mean.shape[axes].numel() == 1 else shape[axes]
        for axes in (slice(0, merged), slice(merged, None))
    )
    return mean.expand(*a, *b).reshape(a.numel(), b.numel())


def _parts(maps: torch.Tensor) -> Iterator[slice]:
    """Yield ranges of the second axis, of a block each; all of it on a GPU, which is not helped by small pieces."""
    n, along, across = maps.shape
    step = along if maps.is_cuda else max(1, _BLOCK // (n * across))
    return (slice(start, start + step) for start in range(0, along, step))


def _centred(features: torch.Tensor, mean: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """Yield ranges of the second axis of features as they lie, and f - f̄ there, `(image, value)`, float32."""
    maps = _as_they_lie(features)
    for part in _parts(maps):
        yield part, torch.sub(maps[:, part], mean[part] if len(mean) > 1 else mean).float().reshape(len(maps), -1)
