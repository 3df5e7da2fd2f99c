"""What steps before training need: targets, controls, simulated scans and the twins fitted to them."""

import numpy as np

from neuroprior.experiment.forecast.needs import Needs, median_seconds
from neuroprior.experiment.forecast.twins import few_scans, fitting_seconds, images_tried, looks
from neuroprior.experiment.inputs import every_stimulus_of, fit_of, twin_of
from neuroprior.experiment.recipe import Recipe
from neuroprior.experiment.sections import FittedTwinsTarget, ScansTarget, SimulatedMouseTarget, TwinTarget
from neuroprior.experiment.simulated_twins import SimulatedMiceSection, SimulatedTwinsTarget
from neuroprior.experiment.steps.settings import ControlWork, TwinsWork
from neuroprior.networks import VGG_LAYER, load_vgg19, population_from_network
from neuroprior.recordings import simulate_scan
from neuroprior.similarity import centered_cosine, spectrum_target
from neuroprior.sources import data_path
from neuroprior.twin import predict_denoised, predict_population
from neuroprior.types import SimilarityTarget, Stimuli

_MATRICES, _TRIAL_PAIRS = 7, 200_000  # that are kept of a scan's stability: beside its own, of models and trials
_TWIN_IMAGES, _TWIN_MAPS = 32, 8  # images that pass a twin's core together; copies of its maps that a step holds


class TargetTrial:
    """A recipe's target and stimuli, and what making targets takes; `program`: bytes it holds by itself."""

    def __init__(self, recipe: Recipe, stimuli: Stimuli, tier: np.ndarray, program: int) -> None:
        self.recipe, self.stimuli, self.tier, self.program = recipe, stimuli, tier, program
        self.n_trained = int(np.count_nonzero(tier == "train"))

    def control(self, work: ControlWork) -> Needs:
        """Return what a control's target needs: what the networks behind it take, and the comparison of images."""
        n, trained = len(self.stimuli), self.n_trained
        few = self.stimuli.select(self.stimuli.ids[: min(48, n)])
        features, looking = int(np.prod(self.stimuli.pixels.shape[1:])), 0.0
        match work.control:
            case "vgg":
                network = load_vgg19(data_path(str(work.vgg)))
                seen = population_from_network(network, VGG_LAYER, few)
                features = seen.mean.shape[1]
                looking = trained / len(few) * median_seconds(lambda: population_from_network(network, VGG_LAYER, few))
            case "random_twin" | "simulated_data" | "responses":
                made = self.target()
                times = 1.0
                if work.control == "simulated_data":  # the twin looks at every image, and at trials as gaze shifts them
                    times += looks(trained, n - trained, repeats=10) / n
                return Needs(times * made.seconds, made.memory, 4.0 * trained * trained)
            case "spectrum":
                some = np.random.default_rng(0).standard_normal((min(200, trained), 50)).astype(np.float32)
                target = SimilarityTarget(
                    centered_cosine(some), self.stimuli.ids[: len(some)], self.stimuli.digest, "user"
                )
                # Rotations one after another, each over whole rows: measured, between linear and quadratic in N.
                looking = (trained / len(some)) ** 1.5 * median_seconds(lambda: spectrum_target(target, 0), repeats=1)
        comparing = self._comparing_seconds(features)
        memory = self.program + 2 * 4 * trained * features + 3 * 4 * trained**2
        return Needs(looking + comparing + 1.0, float(memory), float(4 * trained**2))

    def _comparing_seconds(self, features: int) -> float:
        trained = self.n_trained
        block = np.random.default_rng(0).standard_normal((min(512, trained), features)).astype(np.float32)
        return (trained / len(block)) ** 2 * median_seconds(lambda: centered_cosine(block))

    def target(self) -> Needs:
        """Return what making the recipe's target needs: the pass over its images, and their comparison."""
        n, trained = len(self.stimuli), self.n_trained
        neurons, looking, scans = 1000, 0.0, 1
        if isinstance(self.recipe.target, TwinTarget):
            twin = twin_of(self.recipe.target)
            neurons = twin.n_neurons
            few = self.stimuli.select(self.stimuli.ids[: min(48, n)])
            predict_population(twin, few)
            looking = n / len(few) * median_seconds(lambda: predict_population(twin, few))
        elif isinstance(self.recipe.target, FittedTwinsTarget):
            _, twins = fit_of(self.recipe.target)
            few, scans = self.stimuli.select(self.stimuli.ids[: min(48, n)]), len(twins)
            neurons = predict_denoised(twins[0], few).mean.shape[1]
            seen = len(every_stimulus_of(self.recipe.stimuli, self.recipe.target)[0])
            looking = scans * seen / len(few) * median_seconds(lambda: predict_denoised(twins[0], few))
        elif isinstance(self.recipe.target, SimulatedMouseTarget):
            target = self.recipe.target
            neurons = target.n_neurons
            chosen = np.concatenate([self.stimuli.ids[self.tier == tier][:20] for tier in ("train", "oracle")])
            few, oracle = self.stimuli.select(chosen), chosen[-20:]
            seconds = median_seconds(
                lambda: simulate_scan(few, oracle, n_neurons=neurons, n_repeats=target.n_repeats, seed=0), repeats=1
            )
            some = looks(len(few) - len(oracle), len(oracle), target.n_repeats)
            looking = looks(trained, n - trained, target.n_repeats) / some * seconds
        elif isinstance(self.recipe.target, SimulatedTwinsTarget):  # what they look at is known when this begins
            neurons, scans = self.recipe.target.mice.n_neurons, self.recipe.target.mice.n_scans
        # model and data
        both = isinstance(self.recipe.target, SimulatedMouseTarget | FittedTwinsTarget | SimulatedTwinsTarget)
        comparing = self._comparing_seconds(neurons) * (2 * scans if scans > 1 else 1)
        compressed = 0.7 * self.stimuli.pixels.size
        matrices = 4 * trained**2 * (2 if both else 1)
        memory = self.program + 3 * 4 * n * neurons + (2 + scans) * 4 * trained**2
        return Needs(looking + comparing + 1.0, float(memory), float(matrices + compressed))

    def stability(self) -> Needs:
        """Return what looking at the recordings needs: as much is read or simulated as for the target."""
        made, oracle = self.target(), len(self.stimuli) - self.n_trained
        match self.recipe.target:
            case ScansTarget(paths=paths) | FittedTwinsTarget(paths=paths):
                scans = len(paths)
            case SimulatedTwinsTarget(mice=mice):
                scans = mice.n_scans
            case _:
                scans = 1
        kept = scans * (4 * _MATRICES * oracle**2 + 4 * _TRIAL_PAIRS) + self.stimuli.pixels[0].size * oracle
        return Needs(made.seconds, made.memory, float(kept))

    def simulating(self, mice: SimulatedMiceSection) -> Needs:
        """Return what simulating every mouse's scan needs, with the true similarities."""
        n, trained = len(self.stimuli), self.n_trained
        trials = mice.n_scans * (trained + mice.n_repeats * (n - trained))
        few_scans(self.stimuli, self.tier, mice, 20)  # the first starts the threads of NumPy's products, for a second
        _, a_look = few_scans(self.stimuli, self.tier, mice, 200)
        looking = mice.n_scans * looks(trained, n - trained, mice.n_repeats) * a_look
        comparing = 2 * mice.n_scans * self._comparing_seconds(mice.n_neurons)
        kept = 4 * mice.n_neurons * (trials + mice.n_scans * n)
        matrices = 4 * mice.n_scans * n * n
        memory = self.program + 2 * kept + 3 * matrices
        return Needs(looking + comparing + 1.0, float(memory), float(kept + matrices))

    def fitting(self, work: TwinsWork) -> Needs:
        """Return what fitting twins to those scans needs, a few steps of the fit being done here."""
        assert isinstance(self.recipe.target, SimulatedTwinsTarget)  # no other target plans such steps
        mice, n, trained = self.recipe.target.mice, len(self.stimuli), self.n_trained
        few, _ = few_scans(self.stimuli, self.tier, mice, images_tried(work.settings))
        fitting = fitting_seconds(few, trained, work.architecture, work.settings)
        comparing = (1 + mice.n_scans) * self._comparing_seconds(mice.n_neurons)
        stimulus = self.stimuli.pixels.shape[1:]
        height, width = work.architecture.map_size((stimulus[0], stimulus[1]))
        maps = 4 * _TWIN_IMAGES * work.architecture.channels * work.architecture.n_layers * height * width
        responses = 4 * mice.n_scans * mice.n_neurons * (trained + mice.n_repeats * (n - trained))
        memory = self.program + 3 * responses + _TWIN_MAPS * maps + 4 * (2 + mice.n_scans) * trained**2
        return Needs(fitting + comparing + 1.0, float(memory), float(4 * trained**2))
