"""How much of the true similarity a twin recovers from simulated scans: the headline, and what each part is worth.

    python docs/results/twin/recovery.py headline --out runs/twin-headline
    python docs/results/twin/recovery.py headline --from-twin --out runs/twin-headline-real
    python docs/results/twin/recovery.py ablations --seeds 0 1 2 --out runs/twin-ablations

S_true is Eq. 2 of the noise-free rates at neutral gaze and gain with the true SNR weights; r is Pearson's, over pairs
i < j. S_data is Eq. 2 of single trials (training images), S_oracle Eq. 3 of the repeats. Both and S_model are weighted
by Eq. 1 as measured. The ablations' mice run and look about more than simulated mice do unless asked. Stimuli: the
photographs of the data folder. What is finished in --out is not done again.
"""

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neuroprior.experiment.provenance import device_name, source_commit
from neuroprior.files import read_json, write_json
from neuroprior.recordings import Behaviour, SimulatedScan, load_stimuli, population_from_scan, simulate_scan
from neuroprior.similarity import (
    centered_cosine,
    oracle_similarity,
    oracle_trials,
    pair_correlation,
    single_trial_similarity,
)
from neuroprior.sources import data_folder
from neuroprior.twin import (
    FitSettings,
    Twin,
    TwinArchitecture,
    fit_in_folder,
    load_twin,
    predict_population,
    score_twin,
    simulate_from_twin,
)
from neuroprior.twin.evaluate import correlation

STIMULI, REAL = "stimuli/tiny_imagenet_36x64.npz", "twins/sensorium2022_26872-17-20_sota.pth"
HEADLINE = {"n_scans": 4, "n_neurons": 1000, "n_images": 5000}
ABLATION = {"n_scans": 1, "n_neurons": 500, "n_images": 2000}
USUAL, RESTLESS = Behaviour(), Behaviour(running_gain=0.3, pupil_gain=0.2, gaze_spread=3.0)  # the ablations' mice
ABLATIONS: dict[str, dict[str, Any]] = {
    "whole": {},
    "no shifter": {"shifter": "none"},
    "modulator of the drive": {"behavior": "modulator"},
    "no modulator": {"behavior": "none"},
    "behaviour as channels": {"behavior": "channels"},
    "linear core": {"linear": True},
}


def record(
    n_scans: int, n_neurons: int, n_images: int, *, seed: int, from_twin: bool, behaviour: Behaviour = USUAL
) -> list[SimulatedScan]:
    """Simulate one scan each of so many animals, of the first so many training images and all oracle images."""
    path = data_folder() / STIMULI
    oracle = load_stimuli(path, tier="oracle").ids
    every = load_stimuli(path)
    kept = np.concatenate([load_stimuli(path, tier="train").ids[:n_images], oracle])
    shown = every.select(
        every.ids[np.isin(every.ids, kept)]
    )  # in the file's order: the same scans as `scan simulate`'s
    own = {"n_neurons": n_neurons, "seed": seed, "behaviour": behaviour}
    if not from_twin:
        return [simulate_scan(shown, oracle, animal=k, name=f"mouse{k}-scan0", **own) for k in range(n_scans)]
    real = load_twin(data_folder() / REAL)
    return [simulate_from_twin(real, shown, oracle, animal=k, name=f"mouse{k}-scan0", **own) for k in range(n_scans)]


def r(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's r over pairs i < j."""
    above = np.triu_indices(len(a), 1)
    return pair_correlation(a[above], b[above])


def similarities(made: SimulatedScan, twin: Twin) -> dict[str, dict[str, np.ndarray]]:
    """Matrices of the training and of the oracle images, by what they are made of; `true` among them."""
    scan, truth = made.scan, made.truth
    predicted = predict_population(twin, scan.stimuli)
    data = population_from_scan(scan)
    found: dict[str, dict[str, np.ndarray]] = {}
    for part in ("train", "oracle"):
        ids = scan.stimuli.ids[np.unique(scan.trial_image[scan.tier == part])]
        mean = predicted.select(ids).mean
        found[part] = {
            "true": centered_cosine(truth.select(ids).mean * truth.weights),
            "model": centered_cosine(mean * twin.weights),
            "model, no v": centered_cosine(mean * twin.snr),
            "model, no w": centered_cosine(mean * twin.accuracy),
            "model, w v^2": centered_cosine(mean * twin.snr * twin.accuracy**2),
            # what weights as measured allow at most: of rates without any error
            "true rates, w v": centered_cosine(truth.select(ids).mean * twin.weights),
            "true rates, w": centered_cosine(truth.select(ids).mean * twin.snr),
        }
        if part == "train":
            found[part]["data"] = centered_cosine(data.select(ids).mean * data.weights)
            found[part]["data, no w"] = centered_cosine(data.select(ids).mean)
        else:
            shown, matrix = oracle_similarity(*oracle_trials(scan))
            found[part]["oracle"] = matrix[np.ix_(*[np.searchsorted(shown, ids)] * 2)]
    return found


def single_trial_r(made: SimulatedScan) -> float:
    """r of S of one trial an image with that of its other trials: the paper's .39 (whose average holds the trial)."""
    _, single, others = single_trial_similarity(*oracle_trials(made.scan), seed=0)
    return r(np.asarray(single), np.asarray(others))


def rate_correlation(made: SimulatedScan, twin: Twin) -> np.ndarray:
    """Each neuron's r of prediction and noise-free rate, over the oracle images."""
    ids = made.scan.stimuli.ids[np.unique(made.scan.trial_image[made.scan.tier == "oracle"])]
    predicted = predict_population(twin, made.scan.stimuli.select(ids)).mean.astype(np.float64)
    return correlation(predicted, made.truth.select(ids).mean.astype(np.float64))


def correlations(mice: list[SimulatedScan], twins: list[Twin]) -> dict[str, Any]:
    """r with S_true, of every scan and of the means over scans; and how well each twin predicts."""
    every = [similarities(made, twin) for made, twin in zip(mice, twins, strict=True)]
    said: dict[str, Any] = {}
    for part in ("train", "oracle"):
        truth = [one[part]["true"] for one in every]
        for name in every[0][part]:
            if name == "true":
                continue
            mine = [one[part][name] for one in every]
            said[f"{part}: {name}"] = {
                "scans": [round(r(a, b), 4) for a, b in zip(mine, truth, strict=True)],
                "mean of scans": round(r(np.mean(mine, axis=0), np.mean(truth, axis=0)), 4),
            }
    said["oracle: model with S_oracle"] = [
        round(r(one["oracle"]["model"], one["oracle"]["oracle"]), 4) for one in every
    ]
    said["oracle: single trials with S_oracle"] = [round(single_trial_r(made), 4) for made in mice]
    said["r of predicted and noise-free rates, median neuron"] = [
        round(float(np.nanmedian(rate_correlation(made, twin))), 4) for made, twin in zip(mice, twins, strict=True)
    ]
    scores = [score_twin(twin, made.scan) for made, twin in zip(mice, twins, strict=True)]
    said["single-trial r"] = [round(float(np.nanmean(one.single_trial)), 4) for one in scores]
    said["r to average"] = [round(float(np.nanmean(one.to_average)), 4) for one in scores]
    said["median FEVE"] = [round(float(np.nanmedian(one.feve)), 4) for one in scores]
    said["oracle fraction"] = [round(one.oracle_fraction, 4) for one in scores]
    return said


def measure(
    out: Path,
    size: dict[str, int],
    architecture: TwinArchitecture,
    settings: FitSettings,
    *,
    from_twin: bool,
    behaviour: Behaviour = USUAL,
) -> dict[str, Any]:
    """Simulate, fit, compare; keep what came out in `out/recovery.json`."""
    if done := read_json(out / "recovery.json"):
        return done
    began = time.monotonic()
    mice = record(**size, seed=settings.seed, from_twin=from_twin, behaviour=behaviour)
    simulated = time.monotonic()
    epochs: list[int] = []

    def tell(_: int, at: Any) -> None:
        if at.epoch not in epochs:
            epochs.append(at.epoch)
            seconds = time.monotonic() - began
            print(f"{out.name}: epoch {at.epoch}, best r {at.best_correlation:.4f}, {seconds:.0f} s", flush=True)

    made = fit_in_folder([one.scan for one in mice], out, architecture, settings, progress=tell)
    fitted = time.monotonic()
    said = {
        **correlations(mice, list(made.twins)),
        "epochs": len(made.history[0]),
        "validation correlation": max(epoch.validation_correlation for epoch in made.history[0]),
        "seconds": {"simulating": round(simulated - began), "fitting": round(fitted - simulated)},
        "size": size,
        "behaviour": asdict(behaviour),
        "from": "a real mouse's model" if from_twin else "Gabor cells",
        "device": f"{device_name('cpu')}, {torch.get_num_threads()} threads",
        "commit": source_commit(),
    }
    said["seconds"]["all"] = round(time.monotonic() - began)
    write_json(out / "recovery.json", said)
    return said


def table(found: dict[str, dict[str, Any]]) -> str:
    """What came out of every variant, as Markdown: the mean over seeds, and their range."""
    lines = [
        "| | training images: w v | w | v | oracle images: w v | w | ten trials (S_oracle) | single-trial r |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    columns = [
        *(f"train: {name}" for name in ("model", "model, no v", "model, no w")),
        *(f"oracle: {name}" for name in ("model", "model, no v", "oracle")),
    ]
    for variant in ABLATIONS:
        mine = [said for name, said in found.items() if name.startswith(f"{variant}, ")]
        if mine:
            cells = [spread([said[column]["mean of scans"] for said in mine]) for column in columns]
            lines.append(
                f"| {variant} | {' | '.join(cells)} | {spread([said['single-trial r'][0] for said in mine])} |"
            )
    whole = [said for name, said in found.items() if name.startswith("whole, ")]
    for name, what in (("data", "raw responses, w"), ("data, no w", "raw responses, unweighted")):
        if whole:
            lines.append(
                f"| {what} | {spread([said[f'train: {name}']['mean of scans'] for said in whole])} | | | | | | |"
            )
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    """Mean and range."""
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["headline", "ablations"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--from-twin", action="store_true", help="a real mouse's model gives the rates")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=ABLATIONS, default=list(ABLATIONS), help="of the ablations, these")
    arguments = parser.parse_args()
    found = {}
    for seed in arguments.seeds:
        settings = FitSettings(seed=seed)
        origin = {"from_twin": arguments.from_twin}
        if arguments.what == "headline":
            place = arguments.out / f"seed{seed}"
            found[f"seed {seed}"] = measure(place, HEADLINE, TwinArchitecture(), settings, **origin)
            continue
        for name in arguments.only:
            architecture = replace(TwinArchitecture(), **ABLATIONS[name])
            place = arguments.out / f"{name.replace(' ', '-')}-seed{seed}"
            found[f"{name}, seed {seed}"] = measure(
                place, ABLATION, architecture, settings, **origin, behaviour=RESTLESS
            )
    write_json(arguments.out / f"{arguments.what}.json", found)
    print(json.dumps(found, indent=1) if arguments.what == "headline" else table(found))


if __name__ == "__main__":
    main()
