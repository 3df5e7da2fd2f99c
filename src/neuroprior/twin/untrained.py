"""The twin without its training: what of its similarities is the architecture's, and not the mouse's."""

import copy
import hashlib
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from neuroprior.twin.model import Twin
from neuroprior.twin.modulator import MLPModulator
from neuroprior.twin.predict import at_neutral, check_size, pixel_scale
from neuroprior.twin.readout import FactorisedReadout, GaussianReadout, Readout, first_mask
from neuroprior.twin.shifter import MLPShifter
from neuroprior.types import InputError, Stimuli

_CALIBRATION = 512  # images that batch norm's statistics are from: each gives one value a pixel of the map


def untrained_twin(twin: Twin, seed: int, stimuli: Stimuli) -> Twin:
    """The same architecture with fresh weights (`random_twin`); `twin` itself stays as it is.

    Layers are drawn as PyTorch's defaults draw them, batch norm begins at scale 1 and bias 0; each neuron's position
    is uniform over the map and its C feature weights are normal with variance 1/C; a factorised readout has the mask
    there that its training begins with. A shifter shifts by 0 and a modulator's gains are 1, whatever the animal does:
    so does their training begin, and drawn ones would shift neurons off the maps. Batch norm's running means and
    variances are those of 512 of the `stimuli`, as a first training step would find them: with the usual 0 and 1 the
    maps fade from layer to layer, and the rates of the Sensorium core then differ by 0.2 % between images.
    The same seed and stimuli give the same twin. `weights` is None: no neuron was recorded.
    Raises `InputError` for a negative seed, or images of another size.
    """
    if seed < 0:
        raise InputError(f"untrained twin: seed is {seed}; it must be 0 or more")
    check_size(twin, stimuli)
    model = copy.deepcopy(twin.model)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
                module.reset_parameters()
        for part in (model.shifter, model.modulator):
            if isinstance(part, MLPShifter | MLPModulator):
                part.rest()
        model.readout = _drawn(model.readout)
    untrained = replace(
        twin,
        name=f"{twin.name}, untrained (seed {seed})",
        model=model,
        snr=None,
        accuracy=None,
        digest=hashlib.sha256(f"untrained {seed} {twin.digest} {stimuli.digest}".encode()).hexdigest(),
    )
    _calibrate(untrained, stimuli, np.random.default_rng(seed))
    return untrained


def _drawn(readout: Readout) -> Readout:
    n_neurons, n_features = readout.features.shape
    where = torch.empty(n_neurons, 2).uniform_(-1, 1)
    features, bias = torch.randn(n_neurons, n_features) * n_features**-0.5, torch.zeros(n_neurons)
    if isinstance(readout, FactorisedReadout):
        height, width = readout.mask.shape[1:]
        return FactorisedReadout(first_mask(where, height, width), features, bias)
    return GaussianReadout(where, features, bias)


def _calibrate(twin: Twin, stimuli: Stimuli, rng: np.random.Generator) -> None:
    """Set the running statistics of every batch norm to those of one batch, each layer seeing the last one's."""
    norms = [module for module in twin.model.modules() if isinstance(module, nn.BatchNorm2d)]
    shown = np.sort(rng.permutation(len(stimuli))[:_CALIBRATION])
    mean, std = pixel_scale(twin, stimuli)
    images = ((torch.from_numpy(stimuli.pixels[shown].astype(np.float32)) - mean) / std)[:, None]
    for norm in norms:
        norm.momentum = None  # one batch: its own statistics, not a tenth of them
        norm.train()
    with torch.no_grad():
        twin.model(images, *at_neutral(twin, len(images)))
    twin.model.eval()
