"""What each kind of step does: read the folders of the steps before it, write one folder. Settings in, files out."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neuroprior.classifier import (
    Checkpoint,
    Color,
    EpochLog,
    GaussianBlur,
    LabelledImages,
    ResNet,
    TrainingSettings,
    train,
)
from neuroprior.experiment.compute import torch_settled
from neuroprior.experiment.conditions import CONDITIONS
from neuroprior.experiment.engine import Say
from neuroprior.experiment.inputs import TIERS, as_color, matrix_of, scans_of, stimuli_of, task_images, twin_of
from neuroprior.experiment.recipe import (
    MADE,
    MatrixTarget,
    NetworkSection,
    NoiseSection,
    RegularizerSection,
    RobustnessSection,
    ScansTarget,
    Section,
    SimulatedMouseTarget,
    StimuliSection,
    Target,
    TaskSection,
    TwinTarget,
)
from neuroprior.experiment.store import CHECKPOINT
from neuroprior.files import write_json
from neuroprior.recordings import load_stimuli, simulate_scan, target_from_scan, target_from_scans
from neuroprior.regularizer import SimilarityRegularizer
from neuroprior.regularizer.loss import Mean
from neuroprior.robustness import linf_accuracy, noise_accuracy
from neuroprior.similarity import shuffle_target, target_from_population
from neuroprior.twin import predict_population, target_details
from neuroprior.types import NetworkCard, Population, Precision, SimilarityTarget, Stimuli

_EXAMPLES = 3  # test images kept with each measurement, for the report's noise example


class Machine(Section):
    """Where a step runs; part of its key, since it decides the last bits of every number."""

    device: str
    precision: Precision
    threads: int


class TargetWork(Section):
    """Make the similarity targets: training stimuli, and held-out (oracle) ones that are never trained on."""

    stimuli: StimuliSection
    target: Target
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
    """Measure one trained network: accuracy under noise and attack, similarity to the brain on held-out stimuli."""

    condition: str
    seed: int
    task: TaskSection
    network: NetworkSection
    taps: int | tuple[str, ...]
    mean: Mean
    blur_sigma: float | None
    noise: NoiseSection
    robustness: RobustnessSection
    machine: Machine


def do_work(
    work: TargetWork | TrainWork | MeasureWork,
    inputs: Mapping[str, Path],
    out: Path,
    say: Say,
    *,
    checkpoint_seconds: float = 30.0,
) -> None:
    """Do a step: settings in, files out. How often a training keeps its state changes none of them."""
    with torch_settled(work.machine.threads):
        match work:
            case TargetWork():
                make_targets(work, out, say)
            case TrainWork():
                train_network(work, inputs, out, say, Checkpoint(out / CHECKPOINT, checkpoint_seconds))
            case MeasureWork():
                measure_network(work, inputs, out, say)


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
            say("the twin looks at the stimuli", 0.0)
            twin = twin_of(work.target)
            population = predict_population(
                twin, stimuli, progress=lambda done, of: say("the twin looks at the stimuli", 0.9 * done / of)
            )
            from_population(population, target_details(twin, stimuli))
        case SimulatedMouseTarget():
            say("simulating a mouse", 0.0)
            mouse = simulate_scan(
                stimuli,
                shown["oracle"].ids,
                n_neurons=work.target.n_neurons,
                n_repeats=work.target.n_repeats,
                seed=work.target.seed,
            )
            target_from_scan(mouse.scan, tier="train").save(out / "data.safetensors")
            weights = "true signal-to-noise ratios (Eq. 1)"
            from_population(mouse.truth, {"population": "simulated mouse, noise-free rates", "weights": weights})
        case ScansTarget():
            say("reading recordings", 0.0)
            scans = scans_of(work.target)
            say(f"similarity over {len(scans)} scans", 0.5)
            target_from_scans(scans, "train").select(shown["train"]).save(out / "data.safetensors")
            target_from_scans(scans, "oracle").save(out / "heldout.safetensors")
        case MatrixTarget():
            say("reading the matrix", 0.0)
            whole = matrix_of(work.target, work.stimuli)
            for name, part in (("user", shown["train"]), ("heldout", shown["oracle"])):
                known = part.select(part.ids[np.isin(part.ids, whole.image_ids)])
                if name == "user" or len(known) > 2:
                    whole.select(known).save(out / f"{name}.safetensors")
    np.savez_compressed(out / "stimuli.npz", images=stimuli.pixels, names=stimuli.ids, tier=tier)


def train_network(
    work: TrainWork, inputs: Mapping[str, Path], out: Path, say: Say, checkpoint: Checkpoint | None = None
) -> None:
    """Write `weights.safetensors`, `card.json` (with the layer mix) and `metrics.json`."""
    from safetensors.torch import save_file

    say("reading images", 0.0)
    images = task_images(work.task, "train")
    network = new_network(work, images)
    regularizer = None
    if work.regularizer is not None:
        target = condition_target(inputs["target"], work.condition, work.seed)
        stimuli = load_stimuli(inputs["target"] / "stimuli.npz")
        regularizer = new_regularizer(work.regularizer, network, target, stimuli, color=work.task.color, seed=work.seed)

    def on_epoch(log: EpochLog) -> None:
        say(f"epoch {log.epoch} of {work.training.epochs}", log.epoch / work.training.epochs)

    if checkpoint is not None and checkpoint.path.exists():
        say("going on from its checkpoint", 0.0)
    history = train(
        network,
        images,
        work.training,
        seed=work.seed,
        regularizer=regularizer,
        precision=work.machine.precision,
        on_epoch=on_epoch,
        checkpoint=checkpoint,
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
    """Write `metrics.json`: accuracy under noise and attack, correlation of S_cnn and S_neural on held-out stimuli."""
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
    rows += attack_rows(work, network, images, say)
    rows += similarity_rows(work, network, inputs)
    write_json(out / "metrics.json", rows)
    shown = images.rows(np.unique(images.labels, return_index=True)[1][:_EXAMPLES])  # one of each of the first classes
    names = np.array([images.classes[label] for label in shown.labels])
    np.savez_compressed(out / "examples.npz", images=shown.pixels, labels=names, classes=np.array(images.classes))


def attack_rows(work: MeasureWork, network: ResNet, images: LabelledImages, say: Say) -> list[dict[str, Any]]:
    """Accuracy under an Linf attack at each radius that the recipe asks for."""
    options = work.robustness
    if not options.radii:
        return []
    some = images.rows(slice(0, options.n_images))
    left = linf_accuracy(
        network,
        torch.from_numpy(some.pixels).float() / 255,
        torch.from_numpy(some.labels),
        options.radii,
        steps=options.steps,
        restarts=options.restarts,
        seed=options.seed,
        progress=lambda done, of: say("attack", done / of),
    )
    return [
        row(work, "linf_accuracy", float(value), left.n, x=radius)
        for radius, value in zip(left.radii, left.accuracy, strict=True)
    ]


def similarity_rows(work: MeasureWork, network: ResNet, inputs: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Pearson correlation of S_cnn and S_neural over held-out pairs i < j: per tap, and mixed as training left gamma.

    A network trained without a regulariser has no gamma: the mix is then uniform, as every training starts. No rows
    where the target holds no held-out images.
    """
    if not (inputs["target"] / "heldout.safetensors").exists():
        return []
    heldout = SimilarityTarget.load(inputs["target"] / "heldout.safetensors")
    stimuli = load_stimuli(inputs["target"] / "stimuli.npz").select(heldout.image_ids)
    pairs = np.triu_indices(len(heldout), k=1)
    neural = heldout.matrix[pairs].astype(np.float64)
    if not neural.std() > 0:
        return []  # all held-out pairs equally alike: nothing to correlate with
    options = RegularizerSection(taps=work.taps, mean=work.mean, alpha=0.0, stimuli_per_step=2)
    probe = new_regularizer(options, network, heldout, stimuli, color=work.task.color, seed=work.seed)
    scores = json.loads((inputs["network"] / "card.json").read_text())["scores"]
    names = probe.taps.names
    gamma = np.array([scores.get(f"gamma.{name}", 1 / len(names)) for name in names])
    images = torch.from_numpy(stimuli.pixels.copy())[:, None].float().to(work.machine.device) / 255
    layers = [layer.cpu().numpy() for layer in probe.layer_similarities(images)]

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


def new_regularizer(
    options: RegularizerSection,
    network: ResNet,
    target: SimilarityTarget,
    stimuli: Stimuli,
    *,
    color: Color,
    seed: int,
) -> SimilarityRegularizer:
    """Return the regulariser that a recipe's options ask for; a colour network sees gray stimuli in all channels."""
    return SimilarityRegularizer(
        network,
        target,
        stimuli,
        taps=options.taps,
        alpha=options.alpha,
        scale=options.scale,
        mean=options.mean,
        pairs=options.pairs,
        batch_norm=options.batch_norm,
        stimuli_per_step=options.stimuli_per_step,
        preprocess=as_color if color == "rgb" else None,
        seed=seed,
    )


def condition_target(folder: Path, condition: str, seed: int) -> SimilarityTarget:
    """Return the target that a condition trains on, from the folder of the target step."""
    wanted = CONDITIONS[condition].target
    names = [made[0] for made in MADE.values()] if wanted == "main" else [wanted]
    target = SimilarityTarget.load(next(p for name in names if (p := folder / f"{name}.safetensors").exists()))
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
