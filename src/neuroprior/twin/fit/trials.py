"""Scans -> what training takes: one bank of images, and of every scan the trials to fit, to stop by, and to score."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from neuroprior.twin.fit.settings import FitSettings
from neuroprior.twin.model import z_scored
from neuroprior.types import Bool, Float, Float32, Float64, InputError, Int64, Scan, Shaped, UInt8

__all__ = ["HeldBack", "ImageBank", "ScanTrials", "held_back", "image_bank", "scan_trials", "stopping_trials"]

_ROWS = 256
_LEAST_STD = 0.01  # of the mean standard deviation: a neuron that hardly responds is not blown up to all others' size


@dataclass(frozen=True, slots=True, eq=False)
class ImageBank:
    """Every image of all scans, once: scans that show the same images share the core's work on them."""

    ids: Shaped[np.ndarray, " image"]
    pixels: UInt8[np.ndarray, "image height width"]
    mean: float
    """Of the pixels of all training images, as `std` is (ddof 0), in units of 0..255."""
    std: float

    def z_scored(self, rows: Int64[np.ndarray, " batch"]) -> Float[torch.Tensor, "batch 1 height width"]:
        """Return images as the core takes them."""
        return z_scored(self.pixels[rows], self.mean, self.std)


@dataclass(frozen=True, slots=True, eq=False)
class ScanTrials:
    """The trials of one scan, by use. `row`: of the image bank, for every trial of the scan.

    `unit`: standard deviation of each neuron over the training trials, in which its responses are fitted. `behavior`,
    `pupil`: NaN only on trials that are in no list. `dropped`: trials left out for what was not tracked on them.
    `held_back`: trials left out as another scan holds their images back.
    """

    scan: Scan
    row: Int64[np.ndarray, " trial"]
    train: Int64[np.ndarray, " fitted"]
    validation: Int64[np.ndarray, " held"]
    unit: Float32[np.ndarray, " neuron"]
    mean: Float32[np.ndarray, " neuron"]
    behavior: Float32[np.ndarray, "trial channel"]
    pupil: Float32[np.ndarray, "trial 2"]
    dropped: int
    held_back: int

    def responses(self, trials: Int64[np.ndarray, " some"]) -> Float[torch.Tensor, "some neuron"]:
        """Responses on these trials, in each neuron's unit; read from the file where the scan is lazy."""
        return torch.from_numpy(self.scan.responses[trials]) / torch.from_numpy(self.unit)

    def conditions(self, trials: Int64[np.ndarray, " some"]) -> tuple[torch.Tensor, torch.Tensor]:
        """Behaviour and pupil position on these trials."""
        return torch.from_numpy(self.behavior[trials]), torch.from_numpy(self.pupil[trials])


@dataclass(frozen=True, slots=True)
class HeldBack:
    """Ids of the images that no scan is trained on, as at least one holds them back: the core is common."""

    oracle: frozenset[str] = frozenset()
    """They stop no training either."""
    validation: frozenset[str] = frozenset()
    """Of tier validation, or held out of tier train where a scan has none."""


_NOTHING = HeldBack()


def held_back(scans: Sequence[Scan], settings: FitSettings) -> HeldBack:
    """Gather what any of these scans holds back."""
    oracle = {name for scan in scans for name in _shown(scan, scan.tier == "oracle")}
    validation = {name for scan in scans for name in _shown(scan, _own_lists(scan, settings)[1])}
    return HeldBack(frozenset(oracle), frozenset(validation))


def held_out(ids: Shaped[np.ndarray, " image"], fraction: float, seed: int) -> Bool[np.ndarray, " image"]:
    """Which images are held out: by a hash of the id, so that all scans agree and order does not matter."""
    chosen: np.ndarray = _draws(ids, f"held out {seed}") < fraction
    return chosen


def fold_of(ids: Shaped[np.ndarray, " image"], n_folds: int, seed: int) -> Int64[np.ndarray, " image"]:
    """Which fold an image is of, from 0 to n_folds - 1: by a hash of the id, as `held_out`."""
    fold: np.ndarray = (_draws(ids, f"fold {seed}") * n_folds).astype(np.int64)
    return fold


def _draws(ids: Shaped[np.ndarray, " image"], purpose: str) -> Float64[np.ndarray, " image"]:
    """A number in [0, 1) of every id."""
    hashes = [hashlib.sha256(f"{purpose} {name}".encode()).digest()[:6] for name in ids.tolist()]
    return np.array([int.from_bytes(some, "big") / 2**48 for some in hashes], dtype=np.float64)


def scan_trials(
    scan: Scan,
    bank_ids: dict[str, int],
    settings: FitSettings,
    left_out: frozenset[str] = frozenset(),
    held: HeldBack = _NOTHING,
    *,
    needs_behavior: bool = True,
    needs_pupil: bool = True,
) -> ScanTrials:
    """Sort the trials of a scan. Oracle images are in no list, nor are those of `left_out`.

    `held`: what is held back in all scans that are fitted together. Raises `InputError` where nothing is left to train
    on, or to stop by, and for responses below 0.
    """
    row_of_image = np.array([bank_ids[name] for name in scan.stimuli.ids.tolist()], dtype=np.int64)
    behavior, tracked = _tracked(scan.behavior, len(scan.trial_image), settings, needs_behavior)
    pupil, seen = _tracked(scan.pupil_center, len(scan.trial_image), settings, needs_pupil)
    if scan.pupil_center is None:
        pupil = np.zeros((len(scan.trial_image), 2), dtype=np.float32)
    usable = tracked & seen
    wanted = ~_shows(scan, left_out)
    alone = [part & wanted for part in _own_lists(scan, settings)]
    train, validation = (part & wanted for part in _lists(scan, settings, held))
    fitted, stopping = (np.flatnonzero(part & usable) for part in (train, validation))
    dropped = int(np.count_nonzero((train | validation) & ~usable))
    elsewhere = int(np.count_nonzero(alone[0] | alone[1]) - np.count_nonzero(train | validation))
    for what, some in (("train on", fitted), ("stop by (tier validation)", stopping)):
        if len(some) < 2:
            lost = f" ({elsewhere} show images that another scan holds back)" if elsewhere else ""
            if dropped:
                lost += (
                    f" ({dropped} have no behaviour or pupil: --missing-behavior mean (missing_behavior='mean') keeps "
                    "them)"
                )
            raise InputError(f"scan {scan.name}: {len(some)} trials to {what}{lost}; a twin needs 2 or more")
    _check_rates(scan, fitted)
    mean, std = _moments(scan.responses, fitted)
    unit = np.maximum(std, _LEAST_STD * std.mean())
    if not std.any():
        raise InputError(f"scan {scan.name}: no neuron's response differs from trial to trial; nothing to fit")
    return ScanTrials(
        scan, row_of_image[scan.trial_image], fitted, stopping, unit.astype(np.float32), mean.astype(np.float32),
        behavior, pupil, dropped, elsewhere,
    )  # fmt: skip


def stopping_trials(
    scan: Scan, settings: FitSettings, held: HeldBack = _NOTHING, *, needs_behavior: bool, needs_pupil: bool
) -> Int64[np.ndarray, " some"]:
    """`ScanTrials.validation`, of a scan that was fitted with `held`, before any fold left anything out."""
    tracked = _tracked(scan.behavior, len(scan.trial_image), settings, needs_behavior)[1]
    seen = _tracked(scan.pupil_center, len(scan.trial_image), settings, needs_pupil)[1]
    return np.flatnonzero(_lists(scan, settings, held)[1] & tracked & seen)


def image_bank(scans: Sequence[Scan]) -> ImageBank:
    """Gather the images of all scans; those of tier train give mean and std.

    Raises `InputError` for images of two sizes, or two images under one id.
    """
    first = scans[0]
    ids: dict[str, int] = {}
    parts: list[np.ndarray] = []
    for scan in scans:
        _same_size(scan, first)
        names = scan.stimuli.ids.tolist()
        new = [k for k, name in enumerate(names) if name not in ids]
        shared = [k for k, name in enumerate(names) if name in ids]
        if shared:
            held = np.concatenate(parts)[[ids[names[k]] for k in shared]]
            differs = (held != scan.stimuli.pixels[shared]).any(axis=(1, 2))
            if differs.any():
                name = names[shared[int(differs.argmax())]]
                raise InputError(
                    f"scan {scan.name}: image {name!r} has other pixels than in an earlier scan; give images that "
                    "differ ids that differ"
                )
        ids |= {names[k]: len(ids) + n for n, k in enumerate(new)}
        parts.append(scan.stimuli.pixels[new])
    pixels = np.concatenate(parts)
    if not any((scan.tier == "train").any() for scan in scans):
        raise InputError(f"scan {first.name}: no trial is of tier train; a twin needs 2 or more to train on")
    shown = pixels[sorted({ids[name] for scan in scans for name in _shown(scan, scan.tier == "train")})]
    std = float(shown.std(dtype=np.float64))
    if not std > 0:
        raise InputError(f"scan {first.name}: all pixels of all training images are equal; nothing to see in them")
    return ImageBank(np.array(list(ids)), pixels, float(shown.mean(dtype=np.float64)), std)


def _same_size(scan: Scan, first: Scan) -> None:
    size, wanted = scan.stimuli.pixels.shape[1:], first.stimuli.pixels.shape[1:]
    if size != wanted:
        raise InputError(
            f"scan {scan.name}: images of {size[0]}x{size[1]}, and of {wanted[0]}x{wanted[1]} in scan {first.name}; "
            "one core takes one size: resize, or fit them apart"
        )


def _own_lists(scan: Scan, settings: FitSettings) -> tuple[Bool[np.ndarray, " trial"], Bool[np.ndarray, " trial"]]:
    """Trials to train on and to stop by, as if the scan were fitted alone."""
    train, validation = scan.tier == "train", scan.tier == "validation"
    if not validation.any():
        kept = held_out(scan.stimuli.ids, settings.validation_fraction, settings.seed)[scan.trial_image]
        train, validation = train & ~kept, train & kept
    return train, validation


def _lists(
    scan: Scan, settings: FitSettings, held: HeldBack
) -> tuple[Bool[np.ndarray, " trial"], Bool[np.ndarray, " trial"]]:
    """Trials to train on and to stop by, less what another scan holds back."""
    train, validation = _own_lists(scan, settings)
    scored = _shows(scan, held.oracle)
    return train & ~scored & ~_shows(scan, held.validation), validation & ~scored


def _shows(scan: Scan, names: frozenset[str]) -> Bool[np.ndarray, " trial"]:
    """Whether a trial shows one of these images."""
    shown: np.ndarray = np.isin(scan.stimuli.ids, list(names))[scan.trial_image]
    return shown


def _check_rates(scan: Scan, trials: Int64[np.ndarray, " some"]) -> None:
    """Refuse what a Poisson loss has no meaning for."""
    negative = sum(
        int(np.count_nonzero(scan.responses[trials[start : start + _ROWS]] < 0))
        for start in range(0, len(trials), _ROWS)
    )
    if negative:
        share = 100 * negative / (len(trials) * scan.responses.shape[1])
        raise InputError(
            f"scan {scan.name}: {share:.2g} % of the responses to train on are below 0; give rates of 0 or more "
            "(deconvolved, not z-scored)"
        )


def _tracked(
    values: Float32[np.ndarray, "trial channel"] | None, n: int, settings: FitSettings, needed: bool
) -> tuple[Float32[np.ndarray, "trial channel"], Shaped[np.ndarray, " trial"]]:
    """Values, and the trials on which all are known; means in place of what is missing where that is asked."""
    if values is None:
        return np.zeros((n, 0), dtype=np.float32), np.ones(n, dtype=bool)
    known = np.isfinite(values)
    if settings.missing_behavior == "drop" and needed:
        return np.where(known, values, np.float32(0)), known.all(axis=1)
    counts = np.maximum(known.sum(axis=0), 1)
    mean = (np.where(known, values, 0).sum(axis=0, dtype=np.float64) / counts).astype(np.float32)
    return np.where(known, values, mean), np.ones(n, dtype=bool)


def _moments(
    responses: Float32[np.ndarray, "trial neuron"], trials: Int64[np.ndarray, " some"]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each neuron over these trials, some at a time."""
    total, square = (np.zeros(responses.shape[1]) for _ in range(2))
    shift = responses[trials[0]].astype(np.float64)  # so that a large mean takes no digits from the variance
    for start in range(0, len(trials), _ROWS):
        part = responses[trials[start : start + _ROWS]] - shift
        total += part.sum(axis=0)
        square += np.square(part).sum(axis=0)
    mean = total / len(trials)
    return shift + mean, np.sqrt(np.maximum(square / len(trials) - mean**2, 0))


def _shown(scan: Scan, trials: Bool[np.ndarray, " trial"]) -> list[str]:
    """Ids of the images of these trials, each once."""
    names: list[str] = scan.stimuli.ids[np.unique(scan.trial_image[trials])].tolist()
    return names
