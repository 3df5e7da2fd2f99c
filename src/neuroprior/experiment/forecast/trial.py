"""What each step of a recipe needs: time from short trials here, memory and disk by counting."""

import math
import time

import numpy as np

from neuroprior.experiment.forecast.needs import MB, Needs
from neuroprior.experiment.forecast.network import NetworkTrial
from neuroprior.experiment.forecast.targets import TargetTrial
from neuroprior.experiment.inputs import count_images, stimuli_of, task_images
from neuroprior.experiment.recipe import Recipe
from neuroprior.experiment.sections import CorruptionsSection, EnsembleSection, FrequenciesSection, TuningSection
from neuroprior.experiment.steps.settings import (
    AttackWork,
    ControlWork,
    MaskingWork,
    ProbeWork,
    ScansWork,
    StabilityWork,
    TargetWork,
    TrainWork,
    TwinsWork,
)
from neuroprior.experiment.store import Step, memory_mb
from neuroprior.robustness import chosen
from neuroprior.robustness.radius import EFFORTS

_EVALUATED_AT_ONCE = 256  # images a forward pass, as `noise_accuracy` has it
_ATTACKED_AT_ONCE = 64
_GRADIENT = 3  # forward passes that a gradient for the images costs, its own included
_SPENT = 0.3  # of the gradients that settings may cost, where each starts from what earlier ones found
_CORRUPTING, _FILTERING = 3e-4, 5e-5  # seconds an image of 32x32 takes beside the network, on average over kinds
_FREQUENCIES_ASKED = 11  # as `unit_tuning` has it
_MASKING_GRADIENTS = 2500  # an image: steps, restarts, the ensemble and the smallest perturbations, as measured


class Trial:
    """A recipe's sizes, and the speeds measured for it; each kind of step is worked out once."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        few = task_images(recipe.task.model_copy(update={"n_train": 20, "n_test": 20}), "train")
        self.image = few.pixels.shape[1:]
        self.n = {"train": count_images(recipe.task, "train"), "test": count_images(recipe.task, "test")}
        self.stimuli, self.tier = stimuli_of(recipe.stimuli, recipe.target)
        self.network = NetworkTrial(recipe, self.image, len(few.classes), self.stimuli)
        self.parameters = self.network.bytes
        self.program = (memory_mb("VmRSS") or 0) * MB
        self.reading = self._reading_seconds()
        self.forward = self.network.forward
        self.targets = TargetTrial(recipe, self.stimuli, self.tier, self.program)
        self._known: dict[object, Needs] = {}

    def needs(self, step: Step) -> Needs:
        """Return what a step needs; steps of a kind that differ in condition or seed alone need the same."""
        work = step.work
        match work:
            case TargetWork() | ScansWork() | StabilityWork():
                kind: object = step.kind
            case TwinsWork():
                kind = (step.kind, work.architecture, work.settings)
            case ControlWork():
                kind = (step.kind, work.control)
            case TrainWork():
                kind = (step.kind, work.second, work.adversarial, self._every(work), self._stimuli(work))
            case _:
                kind = step.kind
        if kind not in self._known:
            match work:
                case TargetWork():
                    self._known[kind] = self.targets.target()
                case StabilityWork():
                    self._known[kind] = self.targets.stability()
                case ScansWork():
                    self._known[kind] = self.targets.simulating(work.mice)
                case TwinsWork():
                    self._known[kind] = self.targets.fitting(work)
                case ControlWork():
                    self._known[kind] = self.targets.control(work)
                case TrainWork():
                    self._known[kind] = self._training(work)
                case AttackWork():
                    self._known[kind] = self._attacking()
                case ProbeWork():
                    self._known[kind] = self._probing(work)
                case MaskingWork():
                    self._known[kind] = self._comparing(work)
                case _:
                    self._known[kind] = self._measuring()
        return self._known[kind]

    def _training(self, work: TrainWork) -> Needs:
        settings, stimuli = self.recipe.training, self._stimuli(work)
        validation = max(1, round(settings.validation_fraction * self.n["train"]))
        steps = (self.n["train"] - validation) // settings.batch_size * settings.epochs
        plain = self.network.step_seconds(0)
        beside = self.network.step_seconds(stimuli) - plain if stimuli else 0.0
        seconds = steps * (plain + beside / self._every(work)) + settings.epochs * validation * self.forward
        if work.adversarial is not None:  # each ascent is a forward and a backward pass, as training's own is
            seconds += steps * work.adversarial.steps * plain
        seconds += self.n["train"] * self.reading
        padded = (self.image[1] + 8) * (self.image[2] + 8) * self.image[0]
        pixels = int(np.prod(self.image))
        # Padding is done in floats, once, before the first step; what stays is bytes.
        loading = self.n["train"] * (2 * pixels + 4 * pixels + 5 * padded)
        stepping = self.n["train"] * (2 * pixels + padded) + self.network.kept_bytes(stimuli)
        matrix = 4 * self.targets.n_trained**2 if stimuli else 0
        memory = self.program + 4 * self.parameters + matrix + max(loading, stepping)
        return Needs(seconds, float(memory), float(self.parameters))

    def _every(self, work: TrainWork) -> int:
        return work.regularizer.every if work.regularizer is not None else 1

    def _stimuli(self, work: TrainWork) -> int:
        """How many stimuli a step sees."""
        if work.second is None:
            return 0
        return (work.regularizer or self.recipe.regularizer).stimuli_per_step

    def _measuring(self) -> Needs:
        n, levels = self.n["test"], len(self.recipe.noise.sigmas)
        heldout = int(np.count_nonzero(self.tier == "oracle"))
        area = np.prod(self.stimuli.pixels.shape[1:]) / np.prod(self.image[1:])
        attack = self.recipe.robustness
        attacked = min(n, attack.n_images) * len(attack.radii) * attack.steps * attack.restarts
        # How many images hold out to the end is not known before.
        seconds = (
            n * levels * len(self.recipe.noise.kinds) + heldout * area + _GRADIENT * attacked
        ) * self.forward + n * self.reading
        if self.recipe.transfer is not None:  # features of the other data set; the classifiers on them are small
            other = self.recipe.transfer.task
            seconds += (count_images(other, "train") + count_images(other, "test")) * (self.forward + self.reading)
        batch = min(n, _EVALUATED_AT_ONCE)
        images = 5 * n * int(np.prod(self.image))
        taps = 4 * heldout * sum(self.network.tap_sizes())
        memory = self.program + self.parameters + images + max(self.network.forward_bytes(batch), taps)
        return Needs(float(seconds), float(memory), 50_000.0)

    def _attacking(self) -> Needs:
        options = self.recipe.perturbations
        images = min(self.n["test"], options.n_images)
        gradients = 0.0
        for norm, attacks in options.by_norm.items():
            most = options.repetitions * sum(
                attack.most_gradients for attack in chosen(attacks, norm, exhaustive=options.exhaustive)
            )
            expected = most if options.exhaustive else _SPENT * most
            gradients += images * min(expected, options.max_gradients or math.inf)
        seconds = _GRADIENT * gradients * self.forward + images * self.reading
        pixels = int(np.prod(self.image))
        memory = (
            self.program
            + self.parameters
            + 5 * self.n["test"] * pixels
            + self.network.forward_bytes(_ATTACKED_AT_ONCE) * 2
        )
        return Needs(float(seconds), float(memory), 2_000.0 * images * len(options.by_norm))

    def _probing(self, work: ProbeWork) -> Needs:
        """Forward passes for the most part; of the ensemble, how many images hold out is not known: half of them."""
        options = work.probe
        beside = 0.0  # seconds that are no forward passes
        match options:
            case EnsembleSection():
                effort = EFFORTS[options.strength]
                steps = effort.margin_steps + effort.ce_steps + effort.targets * effort.targeted_steps
                each = _GRADIENT * (steps + effort.nearest_steps) + effort.queries
                passes = 0.5 * each * sum(map(len, options.by_norm.values())) * min(self.n["test"], options.n_images)
            case CorruptionsSection():
                passes = len(options.kinds) * len(options.severities) * min(self.n["test"], options.n_images)
                beside = _CORRUPTING * passes
            case FrequenciesSection():
                passes = 3 * len(options.cutoffs) * min(self.n["test"], options.n_images)
                beside = _FILTERING * passes
            case TuningSection():
                taps = work.taps if isinstance(work.taps, int) else len(work.taps or ())
                gratings = _FREQUENCIES_ASKED * options.orientations * options.phases
                passes = gratings + _GRADIENT * options.exciting_steps * options.exciting * taps
        return self._looking(passes * self.forward + beside)

    def _comparing(self, work: MaskingWork) -> Needs:
        images, networks = min(self.n["test"], work.masking.n_images), len(work.blur_sigmas)
        each = 2 * work.masking.queries + _GRADIENT * _MASKING_GRADIENTS
        return self._looking(networks * images * each * self.forward)

    def _looking(self, seconds: float) -> Needs:
        """Needs of a step that shows test images to a network, so many seconds long."""
        images = 5 * self.n["test"] * int(np.prod(self.image))
        memory = self.program + self.parameters + images + self.network.forward_bytes(_EVALUATED_AT_ONCE)
        return Needs(float(seconds + self.n["test"] * self.reading), float(memory), 50_000.0)

    def _reading_seconds(self) -> float:
        """Seconds to read an image: from two sizes, since opening a file takes the same for all of it."""

        def read(n: int) -> float:
            start = time.perf_counter()
            task_images(self.recipe.task.model_copy(update={"n_train": n}), "train")
            return time.perf_counter() - start

        few, many = 50, min(1050, max(100, self.n["train"]))
        read(few)
        return max(read(many) - read(few), 0.0) / (many - few)
