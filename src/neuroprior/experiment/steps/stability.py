"""The recordings behind a target -> how stable what they say is, and how near models and pixels come to it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from neuroprior.experiment.engine import Say
from neuroprior.experiment.inputs import TIERS, fit_of, scans_of, stimuli_of
from neuroprior.experiment.sections import FittedTwinsTarget, ScansTarget, SimulatedMouseTarget
from neuroprior.experiment.simulated_twins import SimulatedTwinsTarget
from neuroprior.experiment.steps.settings import ABSENT_FILE, STABILITY_FILE, Json, StabilityWork, metric_row
from neuroprior.experiment.steps.targets import simulated_mouse, untrained_twins
from neuroprior.experiment.steps.twins import TWINS_FILE, simulated_mice
from neuroprior.files import write_json
from neuroprior.networks import vgg_target
from neuroprior.recordings import save_stability, scan_stability
from neuroprior.recordings.stability import OTHER_SCANS, SINGLE_APART, SINGLE_INSIDE, TRUTH
from neuroprior.similarity import lowpass_target, pixel_target
from neuroprior.sources import data_path
from neuroprior.twin import Denoiser, load_twins, target_from_twin
from neuroprior.types import InputError, Population, Scan, SimilarityTarget, Stimuli, Weighting

_NO_MODELS = {
    SINGLE_INSIDE: "neural_data",
    SINGLE_APART: "neural_data_apart",
    OTHER_SCANS: "other_scans",
    TRUTH: "truth",
}


def measure_stability(work: StabilityWork, inputs: Mapping[str, Path], out: Path, say: Say) -> None:
    """Write `stability.npz` and `metrics.json`: r of each scan's Eq. 3 with what is beside it, and how far it moves.

    Recordings whose repeats do not suffice have no stability to show, and are none the worse a target: `absent.json`
    then says why.
    """
    say("reading recordings", 0.0)
    scans, twins, truths = _recorded(work, inputs)
    models, left_out = _models(work, scans, twins, say)
    try:
        found = scan_stability(
            scans,
            models,
            truths,
            missing="intersection",
            progress=lambda done, of: say("trials", 0.3 + 0.7 * done / of),
        )
    except InputError as error:
        write_json(out / ABSENT_FILE, {"absent": str(error)})
        write_json(out / "metrics.json", [])
        return
    save_stability(replace(found, not_computed=(*found.not_computed, *left_out)), out / STABILITY_FILE)
    n_pairs = len(found.stimuli) * (len(found.stimuli) - 1) // 2
    rows: list[Json] = []
    for name, rs in found.correlations().items():
        condition = _NO_MODELS.get(name, name)
        rows += _of_scans(condition, "oracle_correlation", rs, n_pairs)
    if found.over_scans is not None and len(scans) > 2:  # of two, both numbers are one
        moved = found.over_scans.std(axis=1, dtype=np.float64).tolist()
        rows += _of_scans("neural_data", "fluctuation_over_scans", moved, n_pairs)
    for k, (scan, sd) in enumerate(zip(scans, found.repeats_sd.tolist(), strict=True)):
        rows += _of_scans("neural_data", "fluctuation_over_repeats", [sd], _pairs_of_repeats(scan), first=k)
    write_json(out / "metrics.json", rows)


def _of_scans(condition: str, metric: str, values: Sequence[float], n: int, *, first: int = 0) -> list[Json]:
    """One row a scan in which it is defined, from the `first` one on."""
    known = [(k, one) for k, one in enumerate(values, first) if np.isfinite(one)]
    return [metric_row(condition, 0, metric, one, n, x=float(k)) for k, one in known]


def _pairs_of_repeats(scan: Scan) -> int:
    """How many pairs of trials Eq. 5 is of: of the oracle images of three trials or more."""
    _, times = np.unique(scan.trial_image[scan.tier == "oracle"], return_counts=True)
    times = times[times > 2]
    return int((times * (times - 1) // 2).sum())


def _recorded(
    work: StabilityWork, inputs: Mapping[str, Path]
) -> tuple[Sequence[Scan], Sequence[Denoiser], Sequence[Population] | None]:
    """The scans, the twin of each where it has one, and of simulated mice the noise-free rates."""
    match work.target:
        case ScansTarget():
            return scans_of(work.target), (), None
        case FittedTwinsTarget():
            return *fit_of(work.target), None
        case SimulatedTwinsTarget():
            scans, truths = simulated_mice(inputs["scans"])
            return scans, load_twins(inputs["twins"] / TWINS_FILE), truths
        case SimulatedMouseTarget():
            stimuli, tier = stimuli_of(work.stimuli, work.target)
            mouse = simulated_mouse(work.target, stimuli, stimuli.select(stimuli.ids[tier == TIERS[1]]))
            return [mouse.scan], (), [mouse.truth]
    raise AssertionError("planned for recordings alone")


def _models(
    work: StabilityWork, scans: Sequence[Scan], twins: Sequence[Denoiser], say: Say
) -> tuple[dict[str, list[SimilarityTarget]], list[str]]:
    """What is set beside the recordings, by condition, and what could not be made: of each scan's oracle images."""
    weighting: Weighting | None = None
    v_power = 1.0
    if isinstance(work.target, FittedTwinsTarget):
        weighting, v_power = work.target.weighting, work.target.v_power
    shown = [_repeated_in(scan) for scan in scans]
    if min(map(len, shown)) < 2:
        return {}, []  # there is nothing to compare with, which the comparison says
    of_pixels: dict[str, Callable[[Stimuli], SimilarityTarget]] = {
        "pixel_raw": partial(pixel_target, threshold=None),
        "lowpass": partial(lowpass_target, sigma=work.lowpass_sigma),
    }
    if work.vgg is not None:
        of_pixels["vgg"] = partial(vgg_target, data_path(work.vgg))
    makers: dict[str, Sequence[Callable[[Stimuli], SimilarityTarget]]] = {}
    if twins:
        makers["neural_model"] = [partial(target_from_twin, one, weighting=weighting, v_power=v_power) for one in twins]
        if work.random_twin is not None:  # of the images that the control of this name is calibrated on
            stimuli, tier = stimuli_of(work.stimuli, work.target)
            drawn = untrained_twins(twins, work.random_twin, stimuli.select(stimuli.ids[tier == TIERS[0]]))
            makers["random_twin"] = [partial(target_from_twin, one) for one in drawn]  # they know no w and v
    makers |= {name: [make] * len(scans) for name, make in of_pixels.items()}
    models: dict[str, list[SimilarityTarget]] = {}
    left_out = []
    for k, (name, each) in enumerate(makers.items()):
        say(f"{name} looks at the oracle images", 0.1 + 0.2 * k / len(makers))
        try:
            models[name] = [make(stimuli) for make, stimuli in zip(each, shown, strict=True)]
        except InputError as error:  # images too small for the blur, say: no reason to show nothing
            left_out.append(f"{name} ({error})")
    return models, left_out


def _repeated_in(scan: Scan) -> Stimuli:
    """The oracle images of two trials or more, which Eq. 3 is of and is centred on."""
    rows, counts = np.unique(scan.trial_image[scan.tier == "oracle"], return_counts=True)
    return scan.stimuli.select(scan.stimuli.ids[rows[counts > 1]])
