"""How long simulating scans and fitting twins to them will take: both tried on a few images, here."""

import statistics
import time
from dataclasses import replace

import numpy as np

from neuroprior.experiment.simulated_twins import SimulatedMiceSection
from neuroprior.recordings import Behaviour, SimulatedScan, simulate_scan
from neuroprior.recordings.simulate.behaviour import GAZES
from neuroprior.twin import FitSettings, TwinArchitecture, fit_twin
from neuroprior.types import Stimuli

EPOCHS = 32
"""Until a fit ends, as measured: 23 to 36 (docs/results/twin)."""
_STEPS = 6  # of a fit that are timed
_ORACLE, _REPEATS = 12, 2
_FORWARD = 1 / 3  # of a step's time: what an image held out for validation costs beside one that is trained on


def looks(once: int, oracle: int, repeats: int) -> float:
    """Images that a simulated mouse looks at: each, every trial, and the oracle images at other gazes."""
    return 2.0 * once + (1.0 + repeats + GAZES) * oracle


def few_scans(
    stimuli: Stimuli, tier: np.ndarray, mice: SimulatedMiceSection, n: int
) -> tuple[list[SimulatedScan], float]:
    """Simulate each mouse's scan of at most `n` training images and a few oracle images; with seconds a look."""
    trained, oracle = stimuli.ids[tier == "train"][:n], stimuli.ids[tier == "oracle"][:_ORACLE]
    few = stimuli.select(np.concatenate([trained, oracle]))
    start = time.perf_counter()
    made = [
        simulate_scan(
            few,
            oracle,
            n_neurons=mice.n_neurons,
            n_repeats=_REPEATS,
            seed=mice.seed,
            animal=k,
            behaviour=Behaviour(mice.running_gain, mice.pupil_gain, mice.gaze_spread),
            name=f"mouse{k}",
        )
        for k in range(mice.n_scans)
    ]
    seconds = time.perf_counter() - start
    return made, seconds / (mice.n_scans * looks(len(trained), len(oracle), _REPEATS))


def fitting_seconds(
    scans: list[SimulatedScan], n_trained: int, architecture: TwinArchitecture, settings: FitSettings
) -> float:
    """Seconds of a whole fit to `n_trained` images: of a step on few of them, times steps and epochs."""
    ticks = [time.perf_counter()]
    few = replace(settings, max_epochs=1)
    fit_twin([one.scan for one in scans], architecture, few, progress=lambda _: ticks.append(time.perf_counter()))
    steps = np.diff(ticks)[1:] if len(ticks) > 2 else np.diff(ticks)  # the first makes the models, too
    epochs = min(settings.max_epochs, EPOCHS)
    share = 1 - settings.validation_fraction * (1 - _FORWARD)
    return float(epochs * share * n_trained / settings.batch_images * statistics.median(steps.tolist()))


def images_tried(settings: FitSettings) -> int:
    """How many training images make so many steps."""
    return _STEPS * settings.batch_images
