"""What a run will cost, before anything of it runs: time from short trials here, memory and disk by counting.

Time: a training step, a forward pass, the twin's pass over an image and the reading of images are each done a few
times at small size, and multiplied by how often the recipe does them. Memory: the tensors that a training step keeps
for its backward pass are counted on torch's meta device, which computes nothing; parameters, data and the program come
on top.
"""

import copy
import heapq
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from neuroprior.classifier import ResNet
from neuroprior.experiment.compute import torch_settled
from neuroprior.experiment.engine import Graph
from neuroprior.experiment.inputs import count_images, every_stimulus_of, fit_of, stimuli_of, task_images, twin_of
from neuroprior.experiment.recipe import Recipe
from neuroprior.experiment.sections import (
    ComputeSection,
    CorruptionsSection,
    EnsembleSection,
    FittedTwinsTarget,
    FrequenciesSection,
    SimulatedMouseTarget,
    TuningSection,
    TwinTarget,
)
from neuroprior.experiment.simulated_twins import SimulatedMiceSection, SimulatedTwinsTarget
from neuroprior.experiment.steps.settings import (
    AttackWork,
    ControlWork,
    MaskingWork,
    MeasureWork,
    ProbeWork,
    ScansWork,
    TargetWork,
    TrainWork,
    TwinsWork,
)
from neuroprior.experiment.steps.training import new_regularizer
from neuroprior.experiment.store import Step, memory_mb
from neuroprior.experiment.twins_forecast import few_scans, fitting_seconds, images_tried, looks
from neuroprior.modes import evaluating
from neuroprior.networks import VGG_LAYER, load_vgg19, population_from_network
from neuroprior.recordings import simulate_scan
from neuroprior.robustness import chosen
from neuroprior.robustness.radius import EFFORTS
from neuroprior.similarity import centered_cosine, spectrum_target
from neuroprior.sources import data_path
from neuroprior.twin import predict_denoised, predict_population
from neuroprior.types import SimilarityTarget

_MB = 2**20
_REPEATS = 3
_TRIAL_SECONDS = 1.0  # a training step longer than this is tried with fewer images, at two sizes, and extrapolated
_EVALUATED_AT_ONCE = 256  # images a forward pass, as `noise_accuracy` has it
_ATTACKED_AT_ONCE = 64
_GRADIENT = 3  # forward passes that a gradient for the images costs, its own included
_SPENT = 0.3  # of the gradients that settings may cost, where each starts from what earlier ones found
_CORRUPTING, _FILTERING = 3e-4, 5e-5  # seconds an image of 32x32 takes beside the network, on average over kinds
_FREQUENCIES_ASKED = 11  # as `unit_tuning` has it
_MASKING_GRADIENTS = 2500  # an image: steps, restarts, the ensemble and the smallest perturbations, as measured
_TWIN_IMAGES, _TWIN_MAPS = 32, 8  # images that pass a twin's core together; copies of its maps that a step holds
_CONVOLUTIONS_BESIDE = 3  # of a layer's output, in a forward pass that keeps nothing: input, output, the shortcut


@dataclass(frozen=True, slots=True)
class Cost:
    """What a step is expected to take. `memory_mb`: at its peak, the program included; `disk_mb`: what it leaves."""

    step: Step
    seconds: float
    memory_mb: float
    disk_mb: float
    done: bool


@dataclass(frozen=True, slots=True)
class Forecast:
    """The graph with its cost. `seconds`: from start to end, of what is not done yet. `compute` is settled."""

    costs: tuple[Cost, ...]
    compute: ComputeSection
    seconds: float

    @property
    def workers(self) -> int:
        """How many steps run at a time."""
        return int(self.compute.workers)

    @property
    def memory_mb(self) -> float:
        """The largest steps that may run at the same time, together."""
        largest = sorted((cost.memory_mb for cost in self.costs if not cost.done), reverse=True)
        return math.fsum(largest[: self.workers])

    @property
    def disk_mb(self) -> float:
        """What the steps that are not done will leave."""
        return math.fsum(cost.disk_mb for cost in self.costs if not cost.done)

    def groups(self) -> list[list[Cost]]:
        """The steps of each kind and condition together, in the order of the plan: seeds cost alike."""
        grouped: dict[tuple[str, str], list[Cost]] = {}
        for cost in self.costs:
            work = cost.step.work
            of = str(getattr(work, "condition", getattr(work, "control", "")))
            grouped.setdefault((cost.step.kind, of), []).append(cost)
        return list(grouped.values())


@dataclass(frozen=True, slots=True)
class AssumedGPUs:
    """GPUs that are not here: how many, and 10^12 operations a second (2 a multiply-add) that each is taken to do.

    What a network's passes take here is scaled by the ratio of the rates; targets and reading stay as they are here.
    """

    count: int
    teraflops: float


def forecast(
    recipe: Recipe, steps: Sequence[Step], done: Callable[[Step], bool], *, assumed: AssumedGPUs | None = None
) -> Forecast:
    """Predict the cost of each step of a recipe whose `compute` is settled, here or on GPUs that are assumed."""
    compute = recipe.compute
    assert isinstance(compute.workers, int) and isinstance(compute.threads, int)  # noqa: PT018 - settled
    with torch_settled(compute.threads):
        trial = _Trial(recipe)
        costs = []
        for step in steps:
            needs = trial.needs(step)
            seconds = needs.seconds
            if assumed is not None and isinstance(step.work, _OF_NETWORKS):
                seconds *= trial.rate(training=isinstance(step.work, TrainWork)) / (1e12 * assumed.teraflops)
            costs.append(Cost(step, seconds, needs.memory / _MB, needs.disk / _MB, done(step)))
    if assumed is not None:
        compute = compute.model_copy(update={"device": "cuda", "workers": assumed.count})
    assert isinstance(compute.workers, int)
    return Forecast(tuple(costs), compute, _duration(costs, compute.workers))


_OF_NETWORKS = (TrainWork, MeasureWork, AttackWork, ProbeWork, MaskingWork)
"""Steps whose time is a classifier's passes."""


@dataclass(frozen=True, slots=True)
class _Needs:
    """Seconds, bytes of memory at the peak, bytes left on disk."""

    seconds: float
    memory: float
    disk: float


class _Trial:
    """A recipe's sizes, and the speeds measured for it; each kind of step is worked out once."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.device = recipe.compute.device
        few = task_images(recipe.task.model_copy(update={"n_train": 20, "n_test": 20}), "train")
        self.image = few.pixels.shape[1:]
        self.n = {"train": count_images(recipe.task, "train"), "test": count_images(recipe.task, "test")}
        self.stimuli, self.tier = stimuli_of(recipe.stimuli, recipe.target)
        self.stimulus = self.stimuli.pixels.shape[1:]
        self.network = ResNet(
            recipe.network.architecture,
            width=recipe.network.width,
            classes=len(few.classes),
            channels=self.image[0],
        ).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.parameters = 4 * sum(p.numel() for p in self.network.parameters())
        self.program = (memory_mb("VmRSS") or 0) * _MB
        self.reading = self._reading_seconds()
        self.forward = self._forward_seconds()
        self._known: dict[object, _Needs] = {}

    def needs(self, step: Step) -> _Needs:
        """Return what a step needs; steps of a kind that differ in condition or seed alone need the same."""
        work = step.work
        match work:
            case TargetWork() | ScansWork():
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
                    self._known[kind] = self._target()
                case ScansWork():
                    self._known[kind] = self._simulating(work.mice)
                case TwinsWork():
                    self._known[kind] = self._fitting(work)
                case ControlWork():
                    self._known[kind] = self._control(work)
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

    @cache  # noqa: B019 - lives as long as the forecast
    def rate(self, *, training: bool) -> float:
        """Operations a second, 2 a multiply-add, of this machine: of a training step, or of a forward pass."""
        with FlopCounterMode(display=False) as counter:
            self._on_meta().eval()(torch.empty(1, *self.image, device="meta"))
        forward = counter.get_total_flops()
        if not training:
            return float(forward / self.forward)
        # The backward pass is two more: for the layer's input, and for its weights.
        return float(3 * forward * self.recipe.training.batch_size / self._step_seconds(0))

    def _training(self, work: TrainWork) -> _Needs:
        settings, stimuli = self.recipe.training, self._stimuli(work)
        validation = max(1, round(settings.validation_fraction * self.n["train"]))
        steps = (self.n["train"] - validation) // settings.batch_size * settings.epochs
        plain = self._step_seconds(0)
        beside = self._step_seconds(stimuli) - plain if stimuli else 0.0
        seconds = steps * (plain + beside / self._every(work)) + settings.epochs * validation * self.forward
        if work.adversarial is not None:  # each ascent is a forward and a backward pass, as training's own is
            seconds += steps * work.adversarial.steps * plain
        seconds += self.n["train"] * self.reading
        padded = (self.image[1] + 8) * (self.image[2] + 8) * self.image[0]
        pixels = int(np.prod(self.image))
        # Padding is done in floats, once, before the first step; what stays is bytes.
        loading = self.n["train"] * (2 * pixels + 4 * pixels + 5 * padded)
        stepping = self.n["train"] * (2 * pixels + padded) + self._kept_bytes(stimuli)
        matrix = 4 * self._n_trained() ** 2 if stimuli else 0
        memory = self.program + 4 * self.parameters + matrix + max(loading, stepping)
        return _Needs(seconds, float(memory), float(self.parameters))

    def _every(self, work: TrainWork) -> int:
        return work.regularizer.every if work.regularizer is not None else 1

    def _stimuli(self, work: TrainWork) -> int:
        """How many stimuli a step sees."""
        if work.second is None:
            return 0
        return (work.regularizer or self.recipe.regularizer).stimuli_per_step

    def _measuring(self) -> _Needs:
        n, levels = self.n["test"], len(self.recipe.noise.sigmas)
        heldout = int(np.count_nonzero(self.tier == "oracle"))
        area = np.prod(self.stimulus) / np.prod(self.image[1:])
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
        taps = 4 * heldout * sum(self._tap_sizes())
        memory = self.program + self.parameters + images + max(self._forward_bytes(batch), taps)
        return _Needs(float(seconds), float(memory), 50_000.0)

    def _attacking(self) -> _Needs:
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
            self.program + self.parameters + 5 * self.n["test"] * pixels + self._forward_bytes(_ATTACKED_AT_ONCE) * 2
        )
        return _Needs(float(seconds), float(memory), 2_000.0 * images * len(options.by_norm))

    def _probing(self, work: ProbeWork) -> _Needs:
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

    def _comparing(self, work: MaskingWork) -> _Needs:
        images, networks = min(self.n["test"], work.masking.n_images), len(work.blur_sigmas)
        each = 2 * work.masking.queries + _GRADIENT * _MASKING_GRADIENTS
        return self._looking(networks * images * each * self.forward)

    def _looking(self, seconds: float) -> _Needs:
        """Needs of a step that shows test images to a network, so many seconds long."""
        images = 5 * self.n["test"] * int(np.prod(self.image))
        memory = self.program + self.parameters + images + self._forward_bytes(_EVALUATED_AT_ONCE)
        return _Needs(float(seconds + self.n["test"] * self.reading), float(memory), 50_000.0)

    def _control(self, work: ControlWork) -> _Needs:
        """Return what a control's target needs: what the networks behind it take, and the comparison of images."""
        n, trained = len(self.stimuli), self._n_trained()
        few = self.stimuli.select(self.stimuli.ids[: min(48, n)])
        features, looking = int(np.prod(self.stimulus)), 0.0
        match work.control:
            case "vgg":
                network = load_vgg19(data_path(str(work.vgg)))
                seen = population_from_network(network, VGG_LAYER, few)
                features = seen.mean.shape[1]
                looking = trained / len(few) * _median(lambda: population_from_network(network, VGG_LAYER, few))
            case "random_twin" | "simulated_data" | "responses":
                made = self._target()
                times = 1.0
                if work.control == "simulated_data":  # the twin looks at every image, and at trials as gaze shifts them
                    times += looks(trained, n - trained, repeats=10) / n
                return _Needs(times * made.seconds, made.memory, 4.0 * trained * trained)
            case "spectrum":
                some = np.random.default_rng(0).standard_normal((min(200, trained), 50)).astype(np.float32)
                target = SimilarityTarget(
                    centered_cosine(some), self.stimuli.ids[: len(some)], self.stimuli.digest, "user"
                )
                # Rotations one after another, each over whole rows: measured, between linear and quadratic in N.
                looking = (trained / len(some)) ** 1.5 * _median(lambda: spectrum_target(target, 0), repeats=1)
        comparing = self._comparing_seconds(features)
        memory = self.program + 2 * 4 * trained * features + 3 * 4 * trained**2
        return _Needs(looking + comparing + 1.0, float(memory), float(4 * trained**2))

    def _comparing_seconds(self, features: int) -> float:
        trained = self._n_trained()
        block = np.random.default_rng(0).standard_normal((min(512, trained), features)).astype(np.float32)
        return (trained / len(block)) ** 2 * _median(lambda: centered_cosine(block))

    def _target(self) -> _Needs:
        n, trained = len(self.stimuli), self._n_trained()
        neurons, looking, scans = 1000, 0.0, 1
        if isinstance(self.recipe.target, TwinTarget):
            twin = twin_of(self.recipe.target)
            neurons = twin.n_neurons
            few = self.stimuli.select(self.stimuli.ids[: min(48, n)])
            predict_population(twin, few)
            looking = n / len(few) * _median(lambda: predict_population(twin, few))
        elif isinstance(self.recipe.target, FittedTwinsTarget):
            _, twins = fit_of(self.recipe.target)
            few, scans = self.stimuli.select(self.stimuli.ids[: min(48, n)]), len(twins)
            neurons = predict_denoised(twins[0], few).mean.shape[1]
            seen = len(every_stimulus_of(self.recipe.stimuli, self.recipe.target)[0])
            looking = scans * seen / len(few) * _median(lambda: predict_denoised(twins[0], few))
        elif isinstance(self.recipe.target, SimulatedMouseTarget):
            target = self.recipe.target
            neurons = target.n_neurons
            chosen = np.concatenate([self.stimuli.ids[self.tier == tier][:20] for tier in ("train", "oracle")])
            few, oracle = self.stimuli.select(chosen), chosen[-20:]
            seconds = _median(
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
        return _Needs(looking + comparing + 1.0, float(memory), float(matrices + compressed))

    def _simulating(self, mice: SimulatedMiceSection) -> _Needs:
        n, trained = len(self.stimuli), self._n_trained()
        trials = mice.n_scans * (trained + mice.n_repeats * (n - trained))
        few_scans(self.stimuli, self.tier, mice, 20)  # the first starts the threads of NumPy's products, for a second
        _, a_look = few_scans(self.stimuli, self.tier, mice, 200)
        looking = mice.n_scans * looks(trained, n - trained, mice.n_repeats) * a_look
        comparing = 2 * mice.n_scans * self._comparing_seconds(mice.n_neurons)
        kept = 4 * mice.n_neurons * (trials + mice.n_scans * n)
        matrices = 4 * mice.n_scans * n * n
        memory = self.program + 2 * kept + 3 * matrices
        return _Needs(looking + comparing + 1.0, float(memory), float(kept + matrices))

    def _fitting(self, work: TwinsWork) -> _Needs:
        assert isinstance(self.recipe.target, SimulatedTwinsTarget)  # no other target plans such steps
        mice, n, trained = self.recipe.target.mice, len(self.stimuli), self._n_trained()
        few, _ = few_scans(self.stimuli, self.tier, mice, images_tried(work.settings))
        fitting = fitting_seconds(few, trained, work.architecture, work.settings)
        comparing = (1 + mice.n_scans) * self._comparing_seconds(mice.n_neurons)
        height, width = work.architecture.map_size((self.stimulus[0], self.stimulus[1]))
        maps = 4 * _TWIN_IMAGES * work.architecture.channels * work.architecture.n_layers * height * width
        responses = 4 * mice.n_scans * mice.n_neurons * (trained + mice.n_repeats * (n - trained))
        memory = self.program + 3 * responses + _TWIN_MAPS * maps + 4 * (2 + mice.n_scans) * trained**2
        return _Needs(fitting + comparing + 1.0, float(memory), float(4 * trained**2))

    def _n_trained(self) -> int:
        return int(np.count_nonzero(self.tier == "train"))

    @cache  # noqa: B019 - lives as long as the forecast
    def _step_seconds(self, stimuli: int) -> float:
        """Seconds of a training step: tried as it is, or where that is long, extrapolated from two smaller ones."""
        batch = self.recipe.training.batch_size
        sizes = [part for part in (8, 4, 1) if batch // part >= 2 and (not stimuli or stimuli // part >= 2)]
        small, large = sizes[0], sizes[min(1, len(sizes) - 1)]
        quick = self._try_step(batch // small, stimuli // small)
        if quick * small <= _TRIAL_SECONDS or small == large:
            return self._try_step(batch, stimuli)
        slow = self._try_step(batch // large, stimuli // large)
        slope = (slow - quick) / (1 / large - 1 / small)  # seconds = fixed part + slope * part of a batch
        return slow + slope * (1 - 1 / large)

    def _try_step(self, images: int, stimuli: int) -> float:
        network = self.network.train()
        regularizer = None
        if stimuli:
            shown = self.stimuli.select(self.stimuli.ids[: max(stimuli, 2)])
            eye = np.eye(len(shown), dtype=np.float32)
            options = self.recipe.regularizer.model_copy(update={"stimuli_per_step": len(shown), "every": 1})
            target = SimilarityTarget(eye, shown.ids, shown.digest, "user")
            regularizer = new_regularizer(options, network, target, shown, seed=0)
        parameters = [*network.parameters(), *(regularizer.parameters() if regularizer is not None else ())]
        optimizer = torch.optim.SGD(parameters, 1e-6, momentum=0.9)
        batch = torch.rand(images, *self.image, device=self.device)
        labels = torch.zeros(images, dtype=torch.long, device=self.device)

        def step() -> None:
            with torch.autocast(self.device, torch.bfloat16, enabled=self.recipe.compute.precision == "bfloat16"):
                loss = F.cross_entropy(network(batch), labels)
                loss = loss if regularizer is None else loss + regularizer()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            float(loss.detach())  # waits for a GPU to finish

        step()
        return _median(step)

    def _reading_seconds(self) -> float:
        """Seconds to read an image: from two sizes, since opening a file takes the same for all of it."""

        def read(n: int) -> float:
            start = time.perf_counter()
            task_images(self.recipe.task.model_copy(update={"n_train": n}), "train")
            return time.perf_counter() - start

        few, many = 50, min(1050, max(100, self.n["train"]))
        read(few)
        return max(read(many) - read(few), 0.0) / (many - few)

    def _forward_seconds(self) -> float:
        """Seconds of a forward pass, an image."""
        batch = torch.rand(32, *self.image, device=self.device)
        with torch.inference_mode(), evaluating(self.network):
            self.network(batch)
            return _median(lambda: float(self.network(batch).sum())) / len(batch)

    def _kept_bytes(self, stimuli: int) -> float:
        """Bytes that a step keeps for its backward pass, with as much again as its largest map takes thrice."""
        seen: dict[int, int] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            seen[storage._cdata] = storage.nbytes()
            return tensor

        network = self._on_meta()
        batch = self.recipe.training.batch_size
        shapes = [(batch, *self.image)]
        if stimuli:
            shapes.append((stimuli, self.image[0], *self.stimulus))
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            kept = [network(torch.empty(shape, device="meta")) for shape in shapes]
        half: float = 0.5 if self.recipe.compute.precision == "bfloat16" else 1.0
        largest = max(4 * self.recipe.network.width * shape[0] * shape[2] * shape[3] for shape in shapes)
        del kept
        return half * float(sum(seen.values()) + _CONVOLUTIONS_BESIDE * largest)

    def _forward_bytes(self, images: int) -> float:
        return _CONVOLUTIONS_BESIDE * 4.0 * images * self.recipe.network.width * float(np.prod(self.image[1:]))

    def _tap_sizes(self) -> list[int]:
        """Values a stimulus at each of the network's stages."""
        sizes = []
        x = torch.empty(1, self.image[0], *self.stimulus, device="meta")
        network = self._on_meta()
        for stage in ResNet.stages:
            x = getattr(network, stage)(x)
            sizes.append(x.numel())
        return sizes

    def _on_meta(self) -> nn.Module:
        network: nn.Module = copy.deepcopy(self.network).to("meta")
        return network.train()


def _median(what: Callable[[], object], repeats: int = _REPEATS) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        what()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _duration(costs: Sequence[Cost], workers: int) -> float:
    """Play the engine: `workers` take ready steps, longest first; return when the last one ends."""
    todo = Graph([cost.step for cost in costs], {cost.step.key for cost in costs if cost.done})
    seconds = {cost.step.key: cost.seconds for cost in costs}
    running: list[tuple[float, str]] = []
    now = 0.0
    while todo.ready or running:
        while todo.ready and len(running) < workers:
            key = todo.next().key
            heapq.heappush(running, (now + seconds[key], key))
        now, ended = heapq.heappop(running)
        todo.finish(todo.by_key[ended])
    return now
