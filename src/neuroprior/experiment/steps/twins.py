"""Simulated mice -> scans with known truth -> twins in variants -> how near each comes to the truth, and targets."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from neuroprior.checkpoint import Checkpoint
from neuroprior.experiment.engine import Say
from neuroprior.experiment.inputs import TIERS, shown_stimuli, stimuli_of
from neuroprior.experiment.steps.settings import TARGET_FILE, Json, ScansWork, TargetWork, TwinsWork, metric_row
from neuroprior.experiment.steps.targets import keep_stimuli
from neuroprior.experiment.store import LOG
from neuroprior.files import write_json
from neuroprior.logs import JsonLines
from neuroprior.recordings import (
    Behaviour,
    Noise,
    load_scan,
    load_truth,
    save_scan,
    save_truth,
    simulate_scan,
    target_from_scans,
)
from neuroprior.similarity import (
    average_targets,
    oracle_similarity,
    oracle_trials,
    pair_correlation,
    target_from_population,
)
from neuroprior.twin import FitProgress, TwinScores, fit_twin, save_twins, score_twin, target_from_twin
from neuroprior.types import Float, Population, Scan, SimilarityTarget, Stimuli, Tier

TWINS_FILE = "twin.safetensors"
_TRAINING, _ORACLE = "similarity_to_truth", "similarity_to_truth_oracle"


def simulate_mice(work: ScansWork, out: Path, say: Say) -> None:
    """Write `mouseK-scan0.npz` and its truth beside it, of each mouse, and `metrics.json` (`neural_data`)."""
    mice = work.mice
    shown, oracle = shown_stimuli(work.stimuli)
    for k in range(mice.n_scans):
        name = f"mouse{k}-scan0"
        made = simulate_scan(
            shown,
            oracle,
            n_neurons=mice.n_neurons,
            n_repeats=mice.n_repeats,
            seed=mice.seed,
            animal=k,
            snr_median=mice.snr_median,
            snr_spread=mice.snr_spread,
            noise=Noise(mice.noise, mice.shared_noise),
            behaviour=Behaviour(mice.running_gain, mice.pupil_gain, mice.gaze_spread),
            name=name,
            progress=partial(_tell, say, k, mice.n_scans),
        )
        save_scan(made.scan, out / f"{name}.npz")
        save_truth(made, out / f"{name}-truth")
    say("comparing with the truth", 0.9)
    scans, truths = simulated_mice(out)
    trained = _shown_in(scans[0], "train")
    of_trials = target_from_scans(scans, "train").select(trained)
    ids, of_repeats = _oracle_similarity(scans)
    rows = [
        *_truth_row("neural_data", mice.seed, _TRAINING, of_trials.matrix, true_target(truths, trained)),
        *_truth_row("neural_data", mice.seed, _ORACLE, of_repeats, true_target(truths, shown.select(ids))),
    ]
    write_json(out / "metrics.json", rows)


def fit_twins(work: TwinsWork, inputs: Mapping[str, Path], out: Path, say: Say, checkpoint: Checkpoint) -> None:
    """Write `twin.safetensors`, what they would teach (`target.safetensors`), the fit's log, and `metrics.json`."""
    scans, truths = simulated_mice(inputs["scans"])
    epochs = work.settings.max_epochs

    def tell(at: FitProgress) -> None:
        best = f", r {at.best_correlation:.3f}" if at.epoch > 1 else ""
        say(f"epoch {at.epoch} of at most {epochs}{best}", 0.9 * min(1.0, (at.epoch - 1 + at.part) / epochs))

    # Its checkpoint stays until the step is whole: who is killed while scoring has not lost the fit.
    fitted = fit_twin(
        scans, work.architecture, work.settings, log=JsonLines(out / LOG), checkpoint=checkpoint, progress=tell
    )
    save_twins(fitted, out / TWINS_FILE)
    say("comparing with the truth", 0.9)
    twins, seed = list(fitted.twins), work.settings.seed
    predicted = {tier: target_from_twin(twins, _shown_in(scans[0], tier)) for tier in TIERS}
    taught = predicted["train"]
    said = {"taught_to": work.condition, "recordings": "simulated from Gabor cells"}
    replace(taught, details={**taught.details, **said}).save(out / TARGET_FILE)
    rows: list[Json] = []
    for metric, tier in zip((_TRAINING, _ORACLE), TIERS, strict=True):
        truth = true_target(truths, _shown_in(scans[0], tier))
        rows += _truth_row(work.condition, seed, metric, predicted[tier].matrix, truth)
    scores = [score_twin(twin, scan) for twin, scan in zip(twins, scans, strict=True)]
    rows += _score_rows(work, scores)
    write_json(out / "metrics.json", rows)


def targets_of_twins(work: TargetWork, inputs: Mapping[str, Path], out: Path, say: Say) -> None:
    """Write `model` (the first variant's), `data`, `truth` and the held-out images' truth, and `stimuli.npz`."""
    say("reading scans and twins", 0.0)
    stimuli, tier = stimuli_of(work.stimuli, work.target)
    trained, oracle = (stimuli.select(stimuli.ids[tier == name]) for name in TIERS)
    scans, truths = simulated_mice(inputs["scans"])
    SimilarityTarget.load(inputs["twins"] / TARGET_FILE).select(trained).save(out / "model.safetensors")
    say("similarity of single trials", 0.3)
    target_from_scans(scans, "train").select(trained).save(out / "data.safetensors")
    say("similarity without noise", 0.6)
    true_target(truths, trained).save(out / "truth.safetensors")
    true_target(truths, oracle).save(out / "heldout.safetensors")
    keep_stimuli(stimuli, tier, out)


def simulated_mice(folder: Path) -> tuple[list[Scan], list[Population]]:
    """Read what `simulate_mice` wrote: scans, and of each the noise-free rates with the true weights."""
    files = sorted(folder.glob("*.npz"), key=lambda file: (len(file.name), file.name))  # mouse10 after mouse9
    return (
        [load_scan(file) for file in files],
        [load_truth(folder / f"{file.stem}-truth").population for file in files],
    )


def true_target(truths: Sequence[Population], stimuli: Stimuli) -> SimilarityTarget:
    """S_true: Eq. 2 of noise-free rates weighted by the true w, centred on these stimuli; the mean over scans."""
    said = {"population": "simulated mice, noise-free rates", "weights": "true signal-to-noise ratios (Eq. 1)"}
    each = [target_from_population(truth.select(stimuli.ids), stimuli, details=said) for truth in truths]
    return each[0] if len(each) == 1 else average_targets(each)


def _tell(say: Say, k: int, n_scans: int, done: int, of: int) -> None:
    say(f"mouse {k + 1} of {n_scans} looks", 0.9 * (k + done / of) / n_scans)


def _shown_in(scan: Scan, tier: Tier) -> Stimuli:
    return scan.stimuli.select(scan.stimuli.ids[np.unique(scan.trial_image[scan.tier == tier])])


def _oracle_similarity(scans: Sequence[Scan]) -> tuple[np.ndarray, Float[np.ndarray, "image image"]]:
    """S_oracle (Eq. 3), the mean over scans, which all show the same oracle images."""
    each = [oracle_similarity(*oracle_trials(scan)) for scan in scans]
    return np.asarray(each[0][0]), np.mean([np.asarray(matrix) for _, matrix in each], axis=0)


def _truth_row(
    condition: str, seed: int, metric: str, matrix: Float[np.ndarray, "image image"], truth: SimilarityTarget
) -> list[Json]:
    """Pearson's r with S_true over pairs i < j; no row where one of them does not vary."""
    pairs = np.triu_indices(len(matrix), k=1)
    r = pair_correlation(matrix[pairs], truth.matrix[pairs])
    return [metric_row(condition, seed, metric, r, len(pairs[0]))] if np.isfinite(r) else []


def _score_rows(work: TwinsWork, scores: Sequence[TwinScores]) -> list[Json]:
    """Means over the neurons of all scans of which a correlation is defined, on oracle trials."""
    to_average = [score.to_average for score in scores if score.to_average is not None]
    rows = []
    for metric, each in (
        ("twin_correlation", to_average),
        ("twin_single_trial_correlation", [score.single_trial for score in scores]),
    ):
        values = np.concatenate(each) if each else np.empty(0)
        known = values[np.isfinite(values)]
        if len(known):
            rows.append(metric_row(work.condition, work.settings.seed, metric, float(known.mean()), len(known)))
    return rows
