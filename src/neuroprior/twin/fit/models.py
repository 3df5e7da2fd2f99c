"""The models of a fit: before the first step, and after the last."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from neuroprior.reliability import scan_reliability
from neuroprior.twin.architecture import TwinArchitecture
from neuroprior.twin.evaluate import score_twin
from neuroprior.twin.fit.receptive_fields import first_positions
from neuroprior.twin.fit.trials import ImageBank, ScanTrials
from neuroprior.twin.model import EncodingModel, Standardise, Twin
from neuroprior.types import Float32, InputError, Shaped

__all__ = ["new_models", "settled", "weights_digest"]


def new_models(trials: Sequence[ScanTrials], bank: ImageBank, architecture: TwinArchitecture) -> list[EncodingModel]:
    """Return one model a scan, with a common core; random numbers are torch's.

    Readouts begin where the responses say that neurons look (`first_positions`), and at each neuron's mean response.
    """
    height, width = bank.pixels.shape[1:]
    rows, columns = architecture.map_size((height, width))
    core = architecture.new_core(trials[0].behavior.shape[1])
    middle, reach = np.array([width - 1, height - 1]) / 2, np.array([columns - 1, rows - 1]) / 2
    models = []
    for scan in trials:
        xyz = scan.scan.neuron_xyz
        cortex = None if xyz is None else _standardised(np.asarray(xyz[:, :2]))
        if cortex is not None and architecture.readout == "gaussian" and architecture.positions == "cortical":
            _check_cortex(cortex, scan.scan.name)
        where = first_positions(bank.pixels[scan.row[scan.train]], scan.scan.responses[scan.train], cortex)
        first = torch.from_numpy(np.clip((where - middle) / reach, -0.99, 0.99).astype(np.float32))
        mean = torch.from_numpy(scan.mean / scan.unit).clamp(min=1e-3)
        bias = torch.where(mean > 1, mean - 1, mean.log())  # ELU(bias) + 1 is the mean response
        onto = None if cortex is None else torch.from_numpy(cortex)
        model = EncodingModel(
            core,
            architecture.new_readout((rows, columns), first, bias, onto),
            architecture.new_shifter(),
            architecture.new_modulator(scan.behavior.shape[1], len(bias)),
            channels=architecture.behavior == "channels",
            behavior_scale=_scale(scan.behavior[scan.train]),
            pupil_scale=_scale(scan.pupil[scan.train]),
            unit=torch.from_numpy(scan.unit),
        )
        models.append(model.to(memory_format=torch.channels_last))  # type: ignore[call-overload] # missing from the stub
    return models


def settled(model: EncodingModel, scan: ScanTrials, bank: ImageBank) -> tuple[Twin, list[str]]:
    """Turn a trained model into a twin, weigh its neurons, and say what is to be said of that."""
    model.readout = model.readout.settled()
    model.eval().requires_grad_(False)
    height, width = bank.pixels.shape[1:]
    name = scan.scan.name
    pupil_x, pupil_y = scan.pupil[scan.train].mean(axis=0, dtype=np.float64).tolist()
    twin = Twin(
        name=name,
        model=model,
        input_size=(height, width),
        n_neurons=len(scan.unit),
        pixel_mean=bank.mean,
        pixel_std=bank.std,
        neutral_behavior=tuple(scan.behavior[scan.train].mean(axis=0, dtype=np.float64).tolist()),
        neutral_is_assumed=False,
        digest=weights_digest(model),
        neutral_pupil=(pupil_x, pupil_y),
        behavior_names=scan.scan.behavior_names,
    )
    notes = []
    if scan.dropped:
        notes.append(f"scan {name}: {scan.dropped} trials left out, as behaviour or pupil was not tracked on them")
    if scan.held_back:
        notes.append(f"scan {name}: {scan.held_back} trials left out, as another scan holds their images back")
    try:
        snr = scan_reliability(scan.scan).weights.snr.astype(np.float32)
    except InputError as error:
        return twin, [*notes, f"scan {name}: its neurons have no w and v, and count alike ({error})"]
    return replace(twin, snr=snr, accuracy=score_twin(twin, scan.scan).accuracy), notes


def weights_digest(model: nn.Module) -> str:
    """SHA-256 of all parameters and buffers, by name."""
    sha = hashlib.sha256()
    for name, value in model.state_dict().items():
        sha.update(name.encode())
        sha.update(value.contiguous().numpy().tobytes())
    return sha.hexdigest()


def _standardised(values: Shaped[np.ndarray, "neuron 2"]) -> Float32[np.ndarray, "neuron 2"]:
    """Mean 0 and standard deviation 1 over the neurons whose place is known; NaN for the others."""
    known = np.isfinite(values).all(axis=1)
    standard = np.full(values.shape, np.nan, dtype=np.float32)
    if known.any():
        spread = np.maximum(values[known].std(axis=0), 1e-12)
        standard[known] = (values[known] - values[known].mean(axis=0)) / spread
    return standard


def _check_cortex(cortex: Float32[np.ndarray, "neuron 2"], name: str) -> None:
    lost = np.count_nonzero(~np.isfinite(cortex).all(axis=1))
    if lost:
        raise InputError(
            f"scan {name}: neuron_xyz of {lost} of {len(cortex)} neurons is not finite, and positions are to be "
            "cortical; drop these neurons, or take --positions free (positions='free')"
        )


def _scale(values: Float32[np.ndarray, "trial channel"]) -> Standardise:
    std = values.std(axis=0)
    mean = torch.from_numpy(values.mean(axis=0, dtype=np.float64).astype(np.float32))
    return Standardise(mean, torch.from_numpy(np.where(std > 0, std, 1.0).astype(np.float32)))
