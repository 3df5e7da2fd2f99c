"""Prediction of a twin's responses: ours against the plain form that the reference libraries use.

    python benchmarks/twin_predict.py [--json] [--images 192]

Peer: the same weights as an NCHW convolutional core, and `grid_sample` of all maps at every neuron's position. Both
predict the same images in fp32, in turn; the ratio is of medians. The checkpoint is the real one in the data folder.
"""

import argparse
import statistics

import numpy as np
import torch
from measured import at_least, at_most, coarse_stimuli, in_turn, matrix_rate, ratio, show, spread, time_goes_to
from torch import nn
from torch.nn import functional as F

from neuroprior.similarity import centered_cosine
from neuroprior.sources import data_folder
from neuroprior.twin import Twin, load_twin, predict_population
from neuroprior.twin.core import SeparableConv
from neuroprior.types import Stimuli

CHECKPOINT = "twins/sensorium2022_26872-17-20_sota.pth"
REPEATS = 7


def plain_predict(twin: Twin, stimuli: Stimuli) -> np.ndarray:
    """The plain form: standard memory format, `grid_sample`, one batch of 64 after the other."""
    pixels = torch.from_numpy(stimuli.pixels.astype(np.float32))
    images = ((pixels - pixels.mean()) / pixels.std(correction=0))[:, None]
    readout = twin.model.readout
    out = []
    with torch.inference_mode():
        for batch in images.split(64):
            maps = twin.model.core(batch)
            grid = readout.positions[None, :, None, :].expand(len(batch), -1, -1, -1)
            seen = F.grid_sample(maps, grid, align_corners=True).squeeze(-1)
            out.append(F.elu((seen * readout.features.T).sum(1) + readout.bias) + 1)
    return torch.cat(out).numpy()


def multiply_adds(twin: Twin) -> int:
    """Multiply-adds of one image: of every convolution, and of reading four pixels a neuron."""
    counted = [0]

    def count(module: nn.Module, _: object, out: torch.Tensor) -> None:
        weight = module.weight
        counted[0] += out.shape[2] * out.shape[3] * weight.numel()

    height, width = twin.input_size
    hooks = [m.register_forward_hook(count) for m in twin.model.core.modules() if isinstance(m, nn.Conv2d)]
    with torch.inference_mode():
        maps = twin.model.core(torch.zeros(1, 1, height, width))
    for hook in hooks:
        hook.remove()
    spatial = [m[1].weight.numel() for m in twin.model.core.modules() if isinstance(m, SeparableConv)]
    counted[0] += sum(spatial) * maps.shape[2] * maps.shape[3]  # whose weights are used without calling the module
    return counted[0] + 4 * twin.n_neurons * maps.shape[1]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=192)
    parser.add_argument("--json", action="store_true", help="end with one JSON object on a line")
    arguments = parser.parse_args()

    n = arguments.images
    stimuli = coarse_stimuli(n)
    checkpoint = data_folder() / CHECKPOINT
    plain, ours = load_twin(checkpoint), load_twin(checkpoint)
    plain.model.to(memory_format=torch.contiguous_format)
    seconds = in_turn(
        {
            "plain": lambda: plain_predict(plain, stimuli),
            "ours": lambda: predict_population(ours, stimuli),
            "ours, bfloat16": lambda: predict_population(ours, stimuli, precision="bfloat16"),
        },
        REPEATS,
    )
    theirs, mine = plain_predict(plain, stimuli), predict_population(ours, stimuli).mean
    difference = float(np.abs(centered_cosine(mine) - centered_cosine(theirs)).max())
    coarse = predict_population(ours, stimuli, precision="bfloat16").mean
    coarser = float(np.abs(centered_cosine(coarse) - centered_cosine(theirs)).max())
    milliseconds = {name: [1e3 * s / n for s in taken] for name, taken in seconds.items()}
    operations, rate = multiply_adds(ours), matrix_rate()
    over = statistics.median(seconds["ours"]) / n / (operations / rate)
    show(
        "twin_predict",
        [
            at_least("speed against the plain form", ratio(seconds["plain"], seconds["ours"]), 2.0),
            at_most("largest difference of S", difference, 1e-5),
            at_most("time against its multiply-adds at the rate of a matrix product", over, 4.0),
        ],
        {
            "images": n,
            "multiply-adds of an image": f"{operations / 1e6:.1f} million",
            "matrix products": f"{2 * rate / 1e9:.0f} GFLOP/s (1024 x 1024, fp32)",
            "where the time goes": time_goes_to(lambda: predict_population(ours, stimuli)),
            "neurons": ours.n_neurons,
            "ms an image, plain": spread(milliseconds["plain"]),
            "ms an image, ours": spread(milliseconds["ours"]),
            "ms an image, ours in bfloat16 (an option, too coarse for a target)": spread(
                milliseconds["ours, bfloat16"]
            ),
            "largest difference of S in bfloat16": f"{coarser:.2g}",
            "seconds for 5,100 images, ours": f"{5.1 * statistics.median(milliseconds['ours']):.1f}",
        },
        arguments.json,
    )


if __name__ == "__main__":
    main()
