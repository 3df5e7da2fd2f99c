"""`SimilarityRegularizer`: teach any network to find the same pairs of images alike as a brain does."""

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, get_args

import torch
from torch import nn

from neuroprior.modes import evaluating, like, running_statistics_kept, unwrapped
from neuroprior.regularizer.centred import at_places, channel_mean, layer_similarity, places_of
from neuroprior.regularizer.drawn import Drawn, on_device
from neuroprior.regularizer.gather import check_same_draw, gathered, own_share, world_size
from neuroprior.regularizer.groups import Group, TapChoice, by_target
from neuroprior.regularizer.loss import Mean, Pairs, Scale, combine_layers, similarity_loss
from neuroprior.regularizer.neural import NeuralSimilarity, common_stimuli
from neuroprior.regularizer.sampler import StimulusSampler
from neuroprior.regularizer.schedule import Alpha
from neuroprior.regularizer.taps import BatchNorm, Taps, evenly_spaced_stages
from neuroprior.regularizer.watch import Watch, health_of
from neuroprior.types import AnyTarget, Float, InputError, Stimuli

_KEPT = 0.9  # of the running mean at each step (code lineage)
_LOOKED_AT = 10  # calls: each so many-th is looked at closely, and on a GPU at all
_CHUNK = 128  # images a pass, where gradients are not needed


class SimilarityRegularizer(nn.Module):
    """alpha * L_similarity (Eq. 7-10) of `model` on `target`, a fresh draw of stimuli at each call.

        reg = SimilarityRegularizer(model, target, stimuli, taps=5, alpha=20.0)
        optimiser = SGD([*model.parameters(), *reg.parameters()], ...)
        loss = F.cross_entropy(model(x), y) + reg()

    The stimuli run through `model` in whatever mode and under whatever autocast it is, as floats in [0, 1]: gray, or
    gray in three channels where the model takes three. The similarity is float32 always.

    - `taps`: names of modules, or K for K evenly spaced stages. Hooks are there only during the call.
    - `alpha`: weight, >= 0, or a function of the step (`Ramp`). 0 computes nothing and returns 0.
    - `scale`: `printed` (Eq. 8) or `lineage` (4 times as much).
    - `mean`: f̄ of Eq. 9. `lineage`: per channel, running (0.9 old + 0.1 new, from 0, no gradient); `batch`: per
      feature, of the step's stimuli; `dataset`: per feature, of all stimuli, in evaluation mode without gradient,
      computed anew each time the stimuli have been gone through once.
    - `batch_norm`: `shared` lets the stimuli into the running statistics of batch norm, as in the lineage; `task` keeps
      them out, for stimuli that look unlike the task's images (evaluation would else normalise with a mixture of both).
    - `pairs`, `stimuli_per_step`: `disjoint` pairs, or `all` pairs of the step's stimuli (drawn without replacement).
    - `features_per_tap`: about so many features of a tap are compared, at one place or more, drawn anew in each call;
      S_ij is then off by 1 / sqrt(features) or a little more. Vectors without places are compared whole.
    - `every`: computed in each `every`-th call only, and then `every` times as heavy: the same on average.
    - `threshold`: S_neural becomes +1 above it, -1 below its negative, else 0 (Attias et al. 2024). `within`: only
      pairs whose S_neural lies in this range count.
    - `size`: what stimuli are resized to, for a model that takes one size; `preprocess`: what is done to them last.
    - `seed`: of the draws.

    Several targets at once (two brain areas, two groups of taps) are mappings with the same names:
    `SimilarityRegularizer(model, {"V1": v1, "LM": lm}, stimuli, {"V1": ["layer1"], "LM": ["layer3"]})`; the stimuli
    are those that all targets are of, `alpha` one for all or a mapping, gamma sums to 1 in each group.

    `parameters()` is theta alone, `gamma = softmax(theta)` (Eq. 10); `state_dict()` holds theta, the running means and
    the state of the draws. The model gains neither parameters nor buffers. A model in `DistributedDataParallel` or
    `torch.compile` is looked at inside, uncompiled; where processes train together, each computes its share of the
    step's stimuli, and the loss is that of all (call it in every process, and `backward` once, of the sum). With
    gradient checkpointing of your own (`use_reentrant=False`) around batch norm, `batch_norm="task"` is not possible:
    torch says so. The loss is differentiable once.

    Raises `InputError` for stimuli that are not the target's, alpha < 0, unknown taps or options, fewer than 2 stimuli
    a step, or a tap that gives all stimuli the same features; `FloatingPointError` naming step and tap when features
    are no longer finite.
    """

    theta: nn.Parameter

    def __init__(
        self,
        model: nn.Module,
        target: AnyTarget | Mapping[str, AnyTarget],
        stimuli: Stimuli,
        taps: TapChoice | Mapping[str, TapChoice] = 5,
        alpha: Alpha | Mapping[str, Alpha] = 20.0,
        *,
        scale: Scale = "printed",
        mean: Mean = "lineage",
        pairs: Pairs = "disjoint",
        batch_norm: BatchNorm = "shared",
        stimuli_per_step: int = 64,
        features_per_tap: int | None = None,
        every: int = 1,
        threshold: float | None = None,
        within: tuple[float | int, float | int] | None = None,
        size: tuple[int, int] | None = None,
        preprocess: Callable[[torch.Tensor], torch.Tensor] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        targets, choices, alphas = by_target(target, taps, alpha)
        for name, value, options in (
            ("scale", scale, Scale),
            ("mean", mean, Mean),
            ("pairs", pairs, Pairs),
            ("batch_norm", batch_norm, BatchNorm),
        ):
            if value not in get_args(options):
                raise InputError(f"regularizer: {name}={value!r} is not one of {', '.join(get_args(options))}")
        if every < 1:
            raise InputError(f"regularizer: every is {every}; it must be 1 (each call) or more")
        if features_per_tap is not None and features_per_tap < 1:
            raise InputError(f"regularizer: features_per_tap is {features_per_tap}; it must be 1 or more, or None: all")
        if threshold is not None and not 0 <= threshold < 1:
            raise InputError(f"regularizer: threshold is {threshold}; it must be in [0, 1)")
        if within is not None and not -1 <= within[0] < within[1] <= 1:
            raise InputError(f"regularizer: within is {within}; give (lowest, highest) similarity in [-1, 1]")
        if not isinstance(stimuli, Stimuli):
            raise InputError(
                f"regularizer: stimuli are a {type(stimuli).__name__}; pass the Stimuli that the target is of "
                "(neuroprior.load_stimuli, or Stimuli(ids, pixels))"
            )
        shown, rows = common_stimuli(targets, stimuli)
        self.scale: Scale = scale
        self.mean: Mean = mean
        self.pairs: Pairs = pairs
        self.batch_norm: BatchNorm = batch_norm
        self.every = every
        self.features_per_tap = features_per_tap
        self.within = within
        self._model = (unwrapped(model),)  # in a tuple: nn.Module must not see it as a child, or its weights were ours
        device = like(model).device
        self.sampler = StimulusSampler(
            shown, stimuli_per_step, size=size, preprocess=preprocess, seed=seed, device=device
        )
        if stimuli_per_step % world_size():
            raise InputError(
                f"regularizer: {world_size()} processes cannot share {stimuli_per_step} stimuli a step evenly; "
                "make stimuli_per_step a multiple of their number"
            )
        named = self._tried_taps(choices)
        self.taps = Taps(self._model[0], [*dict.fromkeys(name for names in named.values() for name in names)])
        self._groups: list[Group] = []
        self._neural = nn.ModuleList()
        start = 0
        for name, names in named.items():
            at = tuple(self.taps.names.index(tap) for tap in names)
            self._groups.append(Group(name, alphas[name], at, slice(start, start + len(at))))
            self._neural.append(NeuralSimilarity(targets[name], rows[name], threshold=threshold, device=device))
            start += len(at)
        self._places = self._count_places() if features_per_tap is not None else []
        if any(callable(alpha) or alpha > 0 for alpha in alphas.values()):  # else it only looks
            self.taps.check_alive(self._model[0], self.sampler.images(slice(0, 8), self._model[0]))
        self.theta = nn.Parameter(torch.zeros(start, device=device))
        self._unweighted: torch.Tensor | None = None
        self._means: list[torch.Tensor] = []
        self._calls = 0
        self._computed = 0
        self._computes = False  # whether the last call did
        self._last: list[tuple[list[torch.Tensor], torch.Tensor]] = []
        self._health = torch.zeros(0)
        self._watch = Watch()
        # Hooks that come and go, and random draws, are not for a compiler; a step that is compiled calls this as it is.
        self._loss_as_written = torch.compiler.disable(SimilarityRegularizer._loss)  # type: ignore[no-untyped-call]

    def forward(self) -> Float[torch.Tensor, ""]:
        """Draw stimuli, compare, return alpha * L_similarity (Eq. 7, 8)."""
        loss: torch.Tensor = self._loss_as_written(self)
        return loss

    def _loss(self) -> torch.Tensor:
        drawn = self.draw()
        if not drawn:
            return torch.zeros((), device=self.theta.device)
        loss = self.loss_of(on_device(drawn, self.theta.device))
        # asking a GPU at every step would hold it up
        if not loss.is_cuda or self._computed % _LOOKED_AT == 0:
            self.look()
        return loss

    def draw(self) -> Drawn:
        """Begin a call: draw its stimuli. Return all that differs from the last one's; empty where it computes nothing.

        With `loss_of` and `look`, a call in parts, for a step that is recorded and replayed.
        """
        step = self._calls
        self._calls += 1
        alphas = [group.weight(step) for group in self._groups]
        self._computes = step % self.every == 0 and any(alphas)
        if not self._computes:
            return {}
        self._watch.theta(self.theta, len(self._groups))
        drawn = self.sampler.draw()
        if self._computed == 0:
            check_same_draw(drawn, self.theta.device)
        if self.mean == "dataset" and self._computed % max(1, len(self.sampler) // self.sampler.per_step) == 0:
            self._keep_means(self._dataset_means())
        self._computed += 1
        given = self.sampler.given(own_share(drawn))
        for k, neural in enumerate(self._neural):
            assert isinstance(neural, NeuralSimilarity)
            given[f"target{k}"] = neural.given(drawn)
        for k, (places, channels) in enumerate(self._places):
            few = math.ceil(self.features_per_tap / channels)  # type: ignore[operator] # there are places only for some
            if few < places:
                given[f"places{k}"] = torch.randperm(places, generator=self.sampler.random)[:few]
        return {**given, "alpha": torch.tensor(alphas)}

    def loss_of(self, drawn: Drawn) -> Float[torch.Tensor, ""]:
        """Return alpha * L_similarity of what `draw` gave, taken to the device; nothing here waits for a GPU."""
        features = self._features(drawn)
        if self.mean == "lineage":
            self._update_running_means(features)
        means = [f.float().mean(0) for f in features] if self.mean == "batch" else self._means_like(features)
        if self.mean == "dataset":  # of all features: of these
            means = [self._at_places(drawn, k, mean[None])[0] for k, mean in enumerate(means)]
        layers = [layer_similarity(f, m) for f, m in zip(features, means, strict=True)]
        weighted: list[torch.Tensor] = []
        unweighted: list[torch.Tensor] = []
        mixed: list[torch.Tensor] = []
        self._last = []
        for k, (group, neural) in enumerate(zip(self._groups, self._neural, strict=True)):
            own = [layers[at] for at in group.at]
            combined = combine_layers(own, torch.softmax(self.theta[group.part], dim=0))
            target = neural(drawn[f"target{k}"], combined.device)
            loss = similarity_loss(combined, target, self.pairs, self.scale, self.within)
            weighted.append(drawn["alpha"][k] * loss)
            unweighted.append(loss.detach())
            mixed.append(combined.detach())
            self._last.append(([layer.detach() for layer in own], target))
        # on a processor each feature is read for it, so then only where it is looked at closely
        self._health = health_of(features if self._closely(mixed[0]) else (), layers, mixed)
        self._unweighted = torch.stack(unweighted).sum()
        return self.every * torch.stack(weighted).sum()

    def look(self) -> None:
        """End a call: raise or warn where something went wrong in it. Waits for a GPU."""
        if self._computes:
            self._watch(self._health, self.taps.names, self._calls, closely=self._closely(self._health))

    def _closely(self, found: torch.Tensor) -> bool:
        """Whether a call is looked at closely: on a GPU, where it is seldom looked at, each may be."""
        return found.is_cuda or self._computed % _LOOKED_AT == 0

    @property
    def unweighted(self) -> torch.Tensor | None:
        """L_similarity of the last call, before alpha and `every`, summed over targets; None where it computed none."""
        return self._unweighted if self._computes else None

    @property
    def alpha(self) -> float:
        """The weight of the next call; of the first target, where there are several."""
        return self._groups[0].weight(self._calls)

    @property
    def pairs_per_step(self) -> int:
        """How many pairs i < j one computed call compares."""
        n = self.sampler.per_step
        return n * (n - 1) // 2 if self.pairs == "all" else n // 2

    @property
    def tap_names(self) -> tuple[str, ...]:
        """What each weight of gamma belongs to: the taps, behind their target's name where there are several."""
        several = len(self._groups) > 1
        return tuple(
            f"{group.name}/{self.taps.names[at]}" if several else self.taps.names[at]
            for group in self._groups
            for at in group.at
        )

    @property
    def gamma(self) -> Float[torch.Tensor, " layer"]:
        """The layers' weights, softmax(theta): non-negative, summing to 1 for each target (Eq. 10)."""
        theta = self.theta.detach()
        return torch.cat([torch.softmax(theta[group.part], dim=0) for group in self._groups])

    def correlations(self) -> dict[str, float]:
        """Return the Pearson correlation of S_cnn and S_neural over the last call's pairs i < j, by tap (and `mixed`).

        Of few pairs, so noisy: for a log. Empty before the first call; waits for a GPU.
        """
        found: dict[str, float] = {}
        names = iter(self.tap_names)
        for group, (layers, target) in zip(self._groups, self._last, strict=bool(self._last)):
            i, j = torch.triu_indices(len(target), len(target), offset=1, device=target.device)
            gamma = torch.softmax(self.theta.detach()[group.part], dim=0)
            mixed = "mixed" if len(self._groups) == 1 else f"{group.name}/mixed"
            for name, layer in ((mixed, combine_layers(layers, gamma)), *((next(names), layer) for layer in layers)):
                found[name] = float(torch.corrcoef(torch.stack([layer[i, j], target[i, j]]))[0, 1])
        return found

    def similarity(
        self, images: Float[torch.Tensor, "image channel h w"], target: str | None = None
    ) -> Float[torch.Tensor, "image image"]:
        """S_cnn of `images` (floats in [0, 1]): Eq. 9 and 10 with this gamma, in evaluation mode, float32.

        The mean is over exactly these images, of the kind that `mean` names: per channel for `lineage`, per feature
        otherwise. So it can be asked of any images, and asked again gives the same. `target`: by which target's taps
        and gamma; the first where none is named.
        """
        group = next((g for g in self._groups if target in (None, g.name)), None)
        if group is None:
            raise InputError(f"similarity: no target {target!r}; there are: {', '.join(g.name for g in self._groups)}")
        return combine_layers(self.layer_similarities(images)[group.part], self.gamma[group.part])

    def layer_similarities(
        self, images: Float[torch.Tensor, "image channel h w"]
    ) -> list[Float[torch.Tensor, "image image"]]:
        """S of each of `tap_names` (Eq. 9), as `similarity` combines them."""
        model = self._model[0]
        with torch.no_grad(), evaluating(model):
            chunks = [self.taps.features(model, self.sampler.fitted(part)) for part in torch.split(images, _CHUNK)]
        features = [torch.cat(layer) for layer in zip(*chunks, strict=True)]
        layers = [
            layer_similarity(f, channel_mean(f) if self.mean == "lineage" else f.float().mean(0)) for f in features
        ]
        return [layers[at] for group in self._groups for at in group.at]

    def get_extra_state(self) -> dict[str, Any]:
        """What is not a parameter: running means and the counts of calls."""
        return {"means": self._means, "calls": self._calls, "computed": self._computed}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_extra_state` gave."""
        self._means = [mean.clone() for mean in state["means"]]  # it is ours, and changes in place
        self._calls, self._computed = state["calls"], state["computed"]

    def _features(self, drawn: Drawn) -> list[torch.Tensor]:
        """Return the features of the drawn stimuli at all taps; of all processes, where several train together."""
        model = self._model[0]
        unseen = running_statistics_kept(model) if self.batch_norm == "task" else nullcontext()
        with unseen:
            own = self.taps.features(model, self.sampler.shown(drawn, model))
        return [gathered(self._at_places(drawn, k, features)) for k, features in enumerate(own)]

    def _at_places(self, drawn: Drawn, k: int, features: torch.Tensor) -> torch.Tensor:
        """Return a tap's features at the places that were drawn; all, where none were."""
        chosen = drawn.get(f"places{k}")
        return features if chosen is None else at_places(features, chosen)

    def _count_places(self) -> list[tuple[int, int]]:
        """Return how many places each tap has, and how many features a place."""
        model = self._model[0]
        with torch.no_grad(), evaluating(model):
            caught = self.taps.features(model, self.sampler.images(slice(0, 2), model))
        return [places_of(features) for features in caught]

    def _tried_taps(self, choices: Mapping[str, TapChoice]) -> dict[str, list[str]]:
        """Find each target's taps, and run the network once: what cannot work is told now, not in the first step."""
        model = self._model[0]
        named: dict[str, list[str]] = {}

        def attempt(images: torch.Tensor) -> None:
            for group, choice in choices.items():
                given = [choice] if isinstance(choice, str) else choice
                names = evenly_spaced_stages(model, images, given) if isinstance(given, int) else list(given)
                with torch.no_grad(), evaluating(model):
                    Taps(model, names).check(model, images)
                named[group] = names

        self.sampler.fit(model, attempt)
        return named

    def _means_like(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        """Keep the means where the features are: model and regulariser may have been moved since."""
        self._means = [mean.to(f.device) for mean, f in zip(self._means, features, strict=bool(self._means))]
        return self._means

    def _update_running_means(self, features: list[torch.Tensor]) -> None:
        now = [channel_mean(f) for f in features]
        old = self._means_like(features) or [torch.zeros_like(m) for m in now]
        self._keep_means([_KEPT * before + (1 - _KEPT) * new for before, new in zip(old, now, strict=True)])

    def _keep_means(self, means: list[torch.Tensor]) -> None:
        """Take these means, in place where there are some: a recorded step knows where they lie."""
        if not self._means:
            self._means = means
        for kept, mean in zip(self._means, means, strict=True):
            kept.copy_(mean)

    def _dataset_means(self) -> list[torch.Tensor]:
        total: list[torch.Tensor] = []
        model = self._model[0]
        with torch.no_grad(), evaluating(model):
            for start in range(0, len(self.sampler), _CHUNK):
                caught = self.taps.features(model, self.sampler.images(slice(start, start + _CHUNK), model))
                sums = [f.double().sum(0) for f in caught]
                total = sums if not total else [t + s for t, s in zip(total, sums, strict=True)]
        return [(t / len(self.sampler)).float() for t in total]
