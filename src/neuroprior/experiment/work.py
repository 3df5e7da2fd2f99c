"""What each kind of step does: read the folders of the steps before it, write one folder. Settings in, files out."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neuroprior.classifier import (
    GaussianBlur,
    LabelledImages,
    Precision,
    ResNet,
    TrainingSettings,
    check_parquet_images,
    load_packaged_digits,
    load_parquet_images,
    train,
)
from neuroprior.classifier.training import Augmentation, EpochLog
from neuroprior.experiment.conditions import CONDITIONS
from neuroprior.experiment.recipe import (
    NetworkSection,
    NoiseSection,
    Recipe,
    RegularizerSection,
    Section,
    SimulatedMouseTarget,
    StimuliSection,
    TaskSection,
    TwinTarget,
    data_path,
)
from neuroprior.experiment.store import write_json
from neuroprior.recordings import load_stimuli, packaged_photographs, simulate_scan, target_from_scan
from neuroprior.regularizer import SimilarityRegularizer, Taps, evenly_spaced_stages
from neuroprior.regularizer.loss import Mean
from neuroprior.robustness import noise_accuracy
from neuroprior.similarity import shuffle_target, target_from_population
from neuroprior.twin import Twin, check_size, load_twin, predict_population, target_details
from neuroprior.types import InputError, NetworkCard, SimilarityTarget, Stimuli, Tier

TIERS: tuple[Tier, Tier] = ("train", "oracle")

Say = Callable[[str, float], None]
"""Report progress: what is going on, and the part of the step that is done (0 to 1)."""

_EXAMPLES = 3  # test images kept with each measurement, for the report's noise example


class Machine(Section):
    """Where a step runs; part of its key, since it decides the last bits of every number."""

    device: str
    precision: Precision
    threads: int


class TargetWork(Section):
    """Make the similarity targets: training stimuli, and held-out (oracle) ones that are never trained on."""

    stimuli: StimuliSection
    target: TwinTarget | SimulatedMouseTarget
    machine: Machine


class TrainWork(Section):
    """Train one network under one condition."""

    condition: str
    seed: int
    task: TaskSection
    network: NetworkSection
    training: TrainingSettings
    regularizer: RegularizerSection | None
    blur_sigma: float | None
    machine: Machine


class MeasureWork(Section):
    """Measure one trained network: accuracy under noise, similarity to the brain on held-out stimuli."""

    condition: str
    seed: int
    task: TaskSection
    network: NetworkSection
    taps: int | tuple[str, ...]
    mean: Mean
    blur_sigma: float | None
    noise: NoiseSection
    machine: Machine


def make_targets(work: TargetWork, inputs: Mapping[str, Path], out: Path, say: Say) -> None:
    """Write `model.safetensors`, `heldout.safetensors`, `stimuli.npz`; for a simulated mouse `data.safetensors` too."""
    stimuli, tier = stimuli_of(work.stimuli)
    shown = {name: stimuli.select(stimuli.ids[tier == name]) for name in TIERS}
    if isinstance(work.target, TwinTarget):
        say("the twin looks at the stimuli", 0.0)
        twin = twin_of(work.target)
        population = predict_population(
            twin, stimuli, progress=lambda done, of: say("the twin looks at the stimuli", 0.9 * done / of)
        )
        details: Mapping[str, Any] = target_details(twin, stimuli)
    else:
        say("simulating a mouse", 0.0)
        mouse = simulate_scan(
            stimuli,
            shown["oracle"].ids,
            n_neurons=work.target.n_neurons,
            n_repeats=work.target.n_repeats,
            seed=work.target.seed,
        )
        target_from_scan(mouse.scan, tier="train").save(out / "data.safetensors")
        population = mouse.truth
        details = {
            "population": "simulated mouse, noise-free rates",
            "weights": "true signal-to-noise ratios (Eq. 1)",
        }
    for name, tier_stimuli in (("model", shown["train"]), ("heldout", shown["oracle"])):
        say(f"similarity of {len(tier_stimuli)} images", 0.9)
        part = population.select(tier_stimuli.ids)
        target_from_population(part, tier_stimuli, details=details).save(out / f"{name}.safetensors")
    np.savez_compressed(out / "stimuli.npz", images=stimuli.pixels, names=stimuli.ids, tier=tier)


def train_network(work: TrainWork, inputs: Mapping[str, Path], out: Path, say: Say) -> None:
    """Write `weights.safetensors`, `card.json` (with the layer mix) and `metrics.json`."""
    from safetensors.torch import save_file

    say("reading images", 0.0)
    images = task_images(work.task, "train")
    network = new_network(work, images)
    regularizer = None
    options = work.regularizer
    if options is not None:
        target = condition_target(inputs["target"], work.condition, work.seed)
        regularizer = SimilarityRegularizer(
            network,
            target,
            load_stimuli(inputs["target"] / "stimuli.npz"),
            taps=options.taps if isinstance(options.taps, int) else list(options.taps),
            alpha=options.alpha,
            scale=options.scale,
            mean=options.mean,
            pairs=options.pairs,
            batch_norm=options.batch_norm,
            stimuli_per_step=options.stimuli_per_step,
            seed=work.seed,
        )

    def on_epoch(log: EpochLog) -> None:
        say(f"epoch {log.epoch} of {work.training.epochs}", log.epoch / work.training.epochs)

    history = train(
        network,
        images,
        work.training,
        seed=work.seed,
        regularizer=regularizer,
        precision=work.machine.precision,
        on_epoch=on_epoch,
    )
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, out / "weights.safetensors")
    taps = regularizer.taps.names if regularizer is not None else ()
    best = min(history, key=lambda log: log.validation_loss)
    mix = dict(zip(taps, regularizer.gamma.tolist(), strict=True)) if regularizer is not None else {}
    scores = {"validation_loss": best.validation_loss, "validation_accuracy": best.validation_accuracy}
    card = NetworkCard(
        work.condition, work.seed, work_digest(work), {**scores, **{f"gamma.{k}": v for k, v in mix.items()}}
    )
    (out / "card.json").write_text(card.to_json() + "\n")
    write_json(out / "metrics.json", training_rows(work, history, taps))


def measure_network(work: MeasureWork, inputs: Mapping[str, Path], out: Path, say: Say) -> None:
    """Write `metrics.json`: the noise curve, and the correlation of S_cnn and S_neural on held-out stimuli."""
    from safetensors.torch import load_file

    images = task_images(work.task, "test")
    network = new_network(work, images)
    network.load_state_dict(load_file(inputs["network"] / "weights.safetensors", device=work.machine.device))
    network.eval()
    curve = noise_accuracy(
        network,
        torch.from_numpy(images.pixels).float() / 255,
        torch.from_numpy(images.labels),
        work.noise.sigmas,
        clip=work.noise.clip,
        seed=work.noise.seed,
        progress=lambda done, of: say("noise", done / of),
    )
    rows = [
        row(work, "noise_accuracy", float(value), curve.n, x=sigma)
        for sigma, value in zip(curve.sigmas, curve.accuracy, strict=True)
    ]
    rows += similarity_rows(work, network, inputs)
    write_json(out / "metrics.json", rows)
    shown = images.rows(np.unique(images.labels, return_index=True)[1][:_EXAMPLES])  # one of each of the first classes
    names = np.array([images.classes[label] for label in shown.labels])
    np.savez_compressed(out / "examples.npz", images=shown.pixels, labels=names, classes=np.array(images.classes))


def similarity_rows(work: MeasureWork, network: ResNet, inputs: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Pearson correlation of S_cnn and S_neural over held-out pairs i < j: per tap, and mixed as training left gamma.

    A network trained without a regulariser has no gamma: the mix is then uniform, as every training starts.
    """
    heldout = SimilarityTarget.load(inputs["target"] / "heldout.safetensors")
    stimuli = load_stimuli(inputs["target"] / "stimuli.npz").select(heldout.image_ids)
    taps = work.taps if isinstance(work.taps, int) else list(work.taps)
    probe = SimilarityRegularizer(network, heldout, stimuli, taps, alpha=0.0, mean=work.mean, stimuli_per_step=2)
    scores = json.loads((inputs["network"] / "card.json").read_text())["scores"]
    names = probe.taps.names
    gamma = np.array([scores.get(f"gamma.{name}", 1 / len(names)) for name in names])
    images = torch.from_numpy(stimuli.pixels.copy())[:, None].float().to(work.machine.device) / 255
    layers = [layer.cpu().numpy() for layer in probe.layer_similarities(images)]
    pairs = np.triu_indices(len(heldout), k=1)
    neural = heldout.matrix[pairs].astype(np.float64)

    def correlation(similarity: np.ndarray) -> float:
        return float(np.corrcoef(similarity[pairs], neural)[0, 1])

    mixed = np.einsum("kij,k->ij", np.stack(layers), gamma)
    n = len(neural)
    return [
        row(work, "similarity_correlation", correlation(mixed), n),
        *(
            row(work, "similarity_correlation", correlation(layer), n, tap=name)
            for name, layer in zip(names, layers, strict=True)
        ),
    ]


def check_inputs(recipe: Recipe) -> None:
    """Raise `InputError` for what would only fail hours later: open every file, and try what must fit together."""
    stimuli, target, task, regularizer = recipe.stimuli, recipe.target, recipe.task, recipe.regularizer
    for path in (stimuli.path, getattr(target, "path", None), task.train, task.test):
        if path is not None and not data_path(path).is_file():
            raise InputError(
                f"{data_path(path)}: no such file; put it there, or name the data folder in NEUROPRIOR_DATA"
            )
    shown, tier = stimuli_of(stimuli)
    n_train = int(np.count_nonzero(tier == "train"))
    if regularizer.stimuli_per_step > n_train:
        raise InputError(
            f"regularizer.stimuli_per_step is {regularizer.stimuli_per_step}, but there are {n_train} training stimuli"
        )
    if isinstance(target, TwinTarget):
        check_size(twin_of(target), shown)
    for path, n in ((task.train, task.n_train), (task.test, task.n_test)):
        if path is not None:
            check_parquet_images(data_path(path), n=n)
    train, test = (task_images(task.model_copy(update={"n_train": 20, "n_test": 20}), p) for p in ("train", "test"))
    if (train.pixels.shape[1:], len(train.classes)) != (test.pixels.shape[1:], len(test.classes)):
        raise InputError(
            f"task: training images are {train.pixels.shape[1:]} of {len(train.classes)} classes, test images "
            f"{test.pixels.shape[1:]} of {len(test.classes)}; name two files of one data set"
        )
    Augmentation(torch.from_numpy(train.pixels), recipe.training.augmentation)
    one_of_each = torch.from_numpy(train.pixels[:1]).float(), torch.zeros(1, 1, *shown.pixels.shape[1:])
    if any(CONDITIONS[name].blurred for name in recipe.conditions):
        for image in one_of_each:
            GaussianBlur(recipe.blur_sigma)(image)
    model = ResNet(recipe.network.architecture, width=recipe.network.width)
    if isinstance(regularizer.taps, int):
        evenly_spaced_stages(model, one_of_each[1], regularizer.taps)
    else:
        Taps(model, regularizer.taps)


def twin_of(target: TwinTarget) -> Twin:
    """Return the twin that a recipe names."""
    return load_twin(data_path(target.path), scan=target.scan, neutral_behavior=target.neutral_behavior)


def stimuli_of(section: StimuliSection) -> tuple[Stimuli, np.ndarray]:
    """Return the stimuli of a recipe, training ones first, and each one's tier."""
    if section.path is None:
        tiers = {name: packaged_photographs(name) for name in TIERS}
    else:
        tiers = {name: load_stimuli(data_path(section.path), tier=name) for name in TIERS}
    if section.n_train is not None:
        tiers["train"] = tiers["train"].select(tiers["train"].ids[: section.n_train])
    stimuli = Stimuli(
        np.concatenate([part.ids for part in tiers.values()]),
        np.concatenate([part.pixels for part in tiers.values()]),
    )
    return stimuli, np.repeat(list(tiers), [len(part) for part in tiers.values()])


def task_images(task: TaskSection, part: str) -> LabelledImages:
    """Return `n_train` or `n_test` images of that part of the task: a file's first, or digits of every class alike."""
    path, n = (task.train, task.n_train) if part == "train" else (task.test, task.n_test)
    if path is not None:
        return load_parquet_images(data_path(path), n=n)
    digits = load_packaged_digits()[0 if part == "train" else 1]
    # They are sorted by class: the first n would be of one class, every k-th are of all.
    return digits if n is None else digits.rows(np.linspace(0, len(digits) - 1, min(n, len(digits))).astype(np.int64))


def new_network(work: TrainWork | MeasureWork, images: LabelledImages) -> ResNet:
    """Return the condition's network as the seed draws it: all conditions of a seed begin with the same weights."""
    torch.manual_seed(work.seed)
    front = None if work.blur_sigma is None else GaussianBlur(work.blur_sigma)
    network = ResNet(
        work.network.architecture,
        width=work.network.width,
        classes=len(images.classes),
        channels=images.pixels.shape[1],
        front=front,
    )
    return network.to(work.machine.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def condition_target(folder: Path, condition: str, seed: int) -> SimilarityTarget:
    """Return the target that a condition trains on, from the folder of the target step."""
    target = SimilarityTarget.load(folder / f"{CONDITIONS[condition].target}.safetensors")
    return shuffle_target(target, seed) if CONDITIONS[condition].shuffled else target


def training_rows(work: TrainWork, history: list[EpochLog], taps: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return one row a number and epoch."""
    rows = []
    for log in history:
        for metric, n in (
            ("task_loss", log.n_images),
            ("similarity_loss", log.n_pairs),
            ("validation_loss", log.n_validation),
            ("validation_accuracy", log.n_validation),
        ):
            value = asdict(log)[metric]
            if np.isfinite(value):  # a condition without a regulariser has no similarity loss
                rows.append(row(work, metric, value, n, x=float(log.epoch)))
        for name, gamma in zip(taps, log.gamma, strict=True):
            rows.append(row(work, "gamma", gamma, log.n_pairs, x=float(log.epoch), tap=name))
    return rows


def row(
    work: TrainWork | MeasureWork, metric: str, value: float, n: int, x: float | None = None, tap: str | None = None
) -> dict[str, Any]:
    """One row of `metrics.parquet`."""
    return {
        "condition": work.condition,
        "seed": work.seed,
        "metric": metric,
        "tap": tap,
        "x": x,
        "value": value,
        "n": n,
    }


def work_digest(work: Section) -> str:
    """SHA-256 of the settings."""
    return hashlib.sha256(work.model_dump_json().encode()).hexdigest()
