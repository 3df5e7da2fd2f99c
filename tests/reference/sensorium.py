"""The Sensorium 2022 model written straight from its state dict, in float64, one image and one neuron at a time."""

import numpy as np
import torch
from torch.nn import functional as F


def predict(state: dict[str, torch.Tensor], name: str, images: np.ndarray, neurons: list[int]) -> np.ndarray:
    """`images`: z-scored `(image, height, width)`. Bilinear interpolation is written out by hand."""
    s = {key: value.double() for key, value in state.items()}
    x = torch.from_numpy(images).double()[:, None]
    for layer in range(4):
        p = f"core.features.layer{layer}."
        if layer == 0:
            x = F.conv2d(x, s[p + "conv.weight"])
        else:
            x = F.conv2d(x, s[p + "ds_conv.in_depth_conv.weight"])
            x = F.conv2d(x, s[p + "ds_conv.spatial_conv.weight"], padding=3, groups=64)
            x = F.conv2d(x, s[p + "ds_conv.out_depth_conv.weight"])
        shape = (1, -1, 1, 1)
        x = (x - s[p + "norm.running_mean"].view(shape)) / torch.sqrt(s[p + "norm.running_var"].view(shape) + 1e-5)
        x = F.elu(x * s[p + "norm.weight"].view(shape) + s[p + "norm.bias"].view(shape))
    maps = x.numpy()
    r = f"readout.{name}."
    hidden = F.elu(s[r + "source_grid"] @ s[r + "mu_transform.0.weight"].T + s[r + "mu_transform.0.bias"])
    position = torch.tanh(hidden @ s[r + "mu_transform.2.weight"].T + s[r + "mu_transform.2.bias"]).numpy()
    features, bias = s[r + "_features"][0, :, 0].numpy(), s[r + "bias"].numpy()
    height, width = maps.shape[2:]
    out = np.empty((len(maps), len(neurons)))
    for column, neuron in enumerate(neurons):
        at_x = (position[neuron, 0] + 1) / 2 * (width - 1)
        at_y = (position[neuron, 1] + 1) / 2 * (height - 1)
        x0, y0 = int(np.floor(at_x)), int(np.floor(at_y))
        x1, y1 = min(x0 + 1, width - 1), min(y0 + 1, height - 1)
        dx, dy = at_x - x0, at_y - y0
        seen = (
            maps[:, :, y0, x0] * (1 - dx) * (1 - dy)
            + maps[:, :, y0, x1] * dx * (1 - dy)
            + maps[:, :, y1, x0] * (1 - dx) * dy
            + maps[:, :, y1, x1] * dx * dy
        )
        out[:, column] = seen @ features[:, neuron] + bias[neuron]
    return np.where(out > 0, out, np.expm1(np.minimum(out, 0))) + 1
