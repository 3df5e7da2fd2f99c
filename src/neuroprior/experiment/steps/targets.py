"""Stimuli and what looked at them -> the targets that networks are taught, and the controls beside them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from neuroprior.experiment.engine import Say
from neuroprior.experiment.inputs import (
    TIERS,
    chosen_neurons,
    chosen_rows,
    every_stimulus_of,
    fit_of,
    matrix_of,
    scans_of,
    stimuli_of,
    twin_of,
)
from neuroprior.experiment.sections import (
    MADE,
    FittedTwinsTarget,
    MatrixTarget,
    ScansTarget,
    SimulatedMouseTarget,
    TwinTarget,
)
from neuroprior.experiment.steps.settings import TARGET_FILE, ControlWork, TargetWork
from neuroprior.networks import vgg_target
from neuroprior.recordings import (
    SimulatedScan,
    load_stimuli,
    population_from_scan,
    simulate_scan,
    target_from_scan,
    target_from_scans,
)
from neuroprior.similarity import (
    lowpass_target,
    pixel_target,
    shuffle_target,
    spectrum_target,
    target_from_population,
)
from neuroprior.sources import data_path
from neuroprior.twin import (
    Denoiser,
    Twin,
    predict_denoised,
    predict_population,
    simulate_from_twin,
    target_details,
    target_from_twin,
    untrained_twin,
)
from neuroprior.types import Details, Population, SimilarityTarget, Stimuli

_STIMULI = "stimuli.npz"
_RESPONSES = "responses.npz"


def make_targets(work: TargetWork, out: Path, say: Say) -> None:
    """Write a target for each of `MADE`, `stimuli.npz`, and `heldout.safetensors` where held-out images are known."""
    stimuli, tier = stimuli_of(work.stimuli, work.target)
    shown = {name: stimuli.select(stimuli.ids[tier == name]) for name in TIERS}

    def from_population(population: Population, details: Mapping[str, Any]) -> None:
        for name, part in (("model", shown["train"]), ("heldout", shown["oracle"])):
            say(f"similarity of {len(part)} images", 0.9)
            made = target_from_population(population.select(part.ids), part, details=details)
            made.save(out / f"{name}.safetensors")

    match work.target:
        case TwinTarget():
            twin = twin_of(work.target)
            from_population(_predicted(twin, stimuli, say, work.target.neurons), _said_of(work.target, twin, stimuli))
        case SimulatedMouseTarget():
            say("simulating a mouse", 0.0)
            mouse = simulated_mouse(work.target, stimuli, shown["oracle"])
            target_from_scan(mouse.scan, tier="train").save(out / "data.safetensors")
            weights = "true signal-to-noise ratios (Eq. 1)"
            from_population(mouse.truth, {"population": "simulated mouse, noise-free rates", "weights": weights})
        case ScansTarget():
            say("reading recordings", 0.0)
            scans = scans_of(work.target)
            say(f"similarity over {len(scans)} scans", 0.5)
            target_from_scans(scans, "train").select(shown["train"]).save(out / "data.safetensors")
            target_from_scans(scans, "oracle").save(out / "heldout.safetensors")
        case FittedTwinsTarget():
            say("reading recordings and twins", 0.0)
            scans, twins = fit_of(work.target)
            target_from_scans(scans, "train").select(shown["train"]).save(out / "data.safetensors")
            # All training images, as in `data`: of both the same part is kept, centred on the same images.
            everything, of_tier = every_stimulus_of(work.stimuli, work.target)
            for name, one in zip(("model", "heldout"), TIERS, strict=True):
                seen = everything.select(everything.ids[of_tier == one])
                _of_twins(work.target, twins, seen, say).select(shown[one]).save(out / f"{name}.safetensors")
        case MatrixTarget():
            say("reading the matrix", 0.0)
            whole = matrix_of(work.target, work.stimuli)
            for name, part in (("user", shown["train"]), ("heldout", shown["oracle"])):
                known = part.select(part.ids[np.isin(part.ids, whole.image_ids)])
                if name == "user" or len(known) > 2:
                    whole.select(known).save(out / f"{name}.safetensors")
    keep_stimuli(stimuli, tier, out)


def keep_stimuli(stimuli: Stimuli, tier: np.ndarray, out: Path) -> None:
    """Write the images that a target is of, with each one's tier, for the steps after it."""
    np.savez_compressed(out / _STIMULI, images=stimuli.pixels, names=stimuli.ids, tier=tier)


def make_control(work: ControlWork, inputs: Mapping[str, Path], out: Path, say: Say) -> None:
    """Write the control's target, for exactly the images that the recipe's own target is of; or `responses.npz`."""
    folder = inputs["target"]
    main = main_target(folder)
    everything = load_stimuli(folder / _STIMULI)
    stimuli = everything.select(main.image_ids)
    oracle = load_stimuli(folder / _STIMULI, tier="oracle")
    say(work.control, 0.0)
    match work.control:
        case "responses":
            _save_population(_responses(work, everything, stimuli, oracle, say), out / _RESPONSES)
            return
        case "pixel":
            made = pixel_target(stimuli, threshold=work.threshold)
        case "pixel_raw":
            made = pixel_target(stimuli, threshold=None)
        case "lowpass":
            assert work.sigma is not None  # the plan gives it
            made = lowpass_target(stimuli, sigma=work.sigma)
        case "spectrum":
            made = spectrum_target(main, work.seed)
        case "vgg":
            made = vgg_target(
                data_path(str(work.vgg)), stimuli, progress=lambda done, of: say("VGG-19", 0.9 * done / of)
            )
        case "random_twin":
            # Those that give every image the same response have no similarity to teach: a control must have one.
            made = _untrained_target(work, stimuli, say)
            made = replace(made, details={**made.details, "weights": "1 for every neuron (untrained twin)"})
        case "simulated_data":
            assert isinstance(work.target, TwinTarget)
            twin = twin_of(work.target)
            mouse = simulate_from_twin(
                twin,
                everything,
                oracle.ids,
                neurons=chosen_rows(twin, work.target.neurons),
                seed=work.seed,
                name=f"simulated from {work.target.path}",
                progress=lambda done, of: say("the twin looks at every trial", 0.9 * done / of),
            )
            made = target_from_scan(mouse.scan, "train").select(stimuli)
            said: Details = {
                "responses": "single trials simulated from the twin, not a recording",
                "noise_seed": work.seed,
            }
            made = replace(made, source="twin", details={**made.details, **said})
    made.save(out / TARGET_FILE)


def main_target(folder: Path) -> SimilarityTarget:
    """Return the target that a recipe's own `target` gives first."""
    names = [made[0] for made in MADE.values()]
    return SimilarityTarget.load(next(p for name in names if (p := folder / f"{name}.safetensors").exists()))


def taught_target(
    target: str, *, shuffled: bool, seed: int, made: Path, control: Path | None = None
) -> SimilarityTarget:
    """Return the target that a condition trains on: from the folder of the target step, or of its control."""
    if control is not None:
        taught = SimilarityTarget.load(control / TARGET_FILE)
    else:
        taught = main_target(made) if target == "main" else SimilarityTarget.load(made / f"{target}.safetensors")
    return shuffle_target(taught, seed) if shuffled else taught


def load_responses(folder: Path) -> Population:
    """Read what the control `responses` left."""
    with np.load(folder / _RESPONSES, allow_pickle=False) as kept:
        return Population(kept["image_ids"], kept["mean"], kept["weights"], str(kept["source"]))  # type: ignore[arg-type]


def _save_population(population: Population, path: Path) -> None:
    np.savez(
        path,
        image_ids=population.image_ids,
        mean=population.mean,
        weights=population.weights,
        source=np.array(population.source),
    )


def _responses(work: ControlWork, everything: Stimuli, stimuli: Stimuli, oracle: Stimuli, say: Say) -> Population:
    """Return what the neurons say to the training stimuli: those of all scans beside each other."""
    match work.target:
        case TwinTarget():
            return _predicted(twin_of(work.target), everything, say, work.target.neurons).select(stimuli.ids)
        case SimulatedMouseTarget():
            return simulated_mouse(work.target, everything, oracle).truth.select(stimuli.ids)
        case ScansTarget():
            return _beside(population_from_scan(scan, "train").select(stimuli.ids) for scan in scans_of(work.target))
        case FittedTwinsTarget(weighting=weighting, v_power=v_power):
            _, twins = fit_of(work.target)
            return _beside(predict_denoised(twin, stimuli, weighting=weighting, v_power=v_power) for twin in twins)
    raise AssertionError("the recipe was checked: a matrix has no responses")


def _beside(populations: Iterable[Population]) -> Population:
    """Return the neurons of all populations as those of one."""
    parts = list(populations)
    mean = np.concatenate([part.mean for part in parts], axis=1)
    return Population(parts[0].image_ids, mean, np.concatenate([part.weights for part in parts]), parts[0].source)


def _of_twins(target: FittedTwinsTarget, twins: Sequence[Denoiser], stimuli: Stimuli, say: Say) -> SimilarityTarget:
    looking = f"twins of {len(twins)} scans look at {len(stimuli)} images"
    return target_from_twin(
        twins,
        stimuli,
        weighting=target.weighting,
        v_power=target.v_power,
        progress=lambda done, of: say(looking, 0.9 * done / of),
    )


def _untrained_target(work: ControlWork, stimuli: Stimuli, say: Say) -> SimilarityTarget:
    match work.target:
        case TwinTarget():
            untrained = untrained_twin(twin_of(work.target), work.seed, stimuli)
            population = _predicted(untrained, stimuli, say, work.target.neurons)
            return target_from_population(population, stimuli, details=_said_of(work.target, untrained, stimuli))
        case FittedTwinsTarget():
            _, twins = fit_of(work.target)
            return target_from_twin(untrained_twins(twins, work.seed, stimuli), stimuli)
    raise AssertionError("the recipe was checked: no other target has a twin")


def untrained_twins(twins: Sequence[Denoiser], seed: int, stimuli: Stimuli) -> list[Twin]:
    """Return `untrained_twin` of each scan, with a draw of its own for its neurons; all on one core, as in a fit."""
    drawn: list[Twin] = []
    for k, twin in enumerate(twins):
        one = twin if isinstance(twin, Twin) else twin.folds[0]
        untrained = untrained_twin(one, seed * len(twins) + k, stimuli)
        if drawn:
            untrained.model.core = drawn[0].model.core
        drawn.append(untrained)
    return drawn


def _predicted(twin: Twin, stimuli: Stimuli, say: Say, neurons: str | None) -> Population:
    looking = f"{twin.name} looks at the stimuli"
    say(looking, 0.0)
    everyone = predict_population(twin, stimuli, progress=lambda done, of: say(looking, 0.9 * done / of))
    return chosen_neurons(everyone, neurons)


def _said_of(target: TwinTarget, twin: Twin, stimuli: Stimuli) -> Details:
    chosen = {} if target.neurons is None else {"neurons_chosen": target.neurons}
    return {**target_details(twin, stimuli), **chosen}


def simulated_mouse(target: SimulatedMouseTarget, stimuli: Stimuli, oracle: Stimuli) -> SimulatedScan:
    """Return what a recipe's mouse did, the same each time."""
    return simulate_scan(stimuli, oracle.ids, n_neurons=target.n_neurons, n_repeats=target.n_repeats, seed=target.seed)
