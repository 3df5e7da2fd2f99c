"""One network, trained under one condition."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from neuroprior.classifier import (
    Checkpoint,
    Classification,
    EpisodeLoss,
    EpochLog,
    FewShotTask,
    GaussianBlur,
    JsonLines,
    LabelledImages,
    Perturb,
    ResNet,
    SecondLoss,
    Several,
    Task,
    TensorBoard,
    TrainingLog,
    as_written,
    class_means_head,
    train,
)
from neuroprior.experiment.engine import Say
from neuroprior.experiment.inputs import task_images
from neuroprior.experiment.sections import RampSection, RegularizerSection
from neuroprior.experiment.steps.settings import AttackWork, Json, MeasureWork, ProbeWork, TrainWork, row, work_digest
from neuroprior.experiment.steps.targets import load_responses, main_target, taught_target
from neuroprior.experiment.store import LOG, TENSORBOARD
from neuroprior.files import write_json
from neuroprior.recordings import load_stimuli
from neuroprior.regularizer import Alpha, Exposure, Ramp, ResponseRegression, SimilarityRegularizer
from neuroprior.robustness import pgd_perturbation
from neuroprior.types import NetworkCard, SimilarityTarget, Stimuli


def train_network(
    work: TrainWork,
    inputs: Mapping[str, Path],
    out: Path,
    say: Say,
    checkpoint: Checkpoint | None = None,
    *,
    tensorboard: bool = False,
) -> None:
    """Write `weights.safetensors`, `card.json` (with the layer mix), `metrics.json` and the log."""
    from safetensors.torch import save_file

    say("reading images", 0.0)
    images = task_images(work.task, "train")
    network = new_network(work, images)
    task = _task(work)
    kept = len(images) - max(1, round(work.training.validation_fraction * len(images)))
    steps = kept // task.batch_size * work.training.epochs
    second = second_loss(work, network, inputs, steps)

    def on_epoch(log: EpochLog) -> None:
        say(f"epoch {log.epoch} of {work.training.epochs}", log.epoch / work.training.epochs)

    if checkpoint is not None and checkpoint.path.exists():
        say("going on from its checkpoint", 0.0)
    logs: list[TrainingLog] = [JsonLines(out / LOG)]
    if tensorboard:
        logs.append(TensorBoard(out / TENSORBOARD))
    history = train(
        network,
        images,
        work.training,
        seed=work.seed,
        regularizer=second,
        task=task,
        perturb=_perturb(work),
        precision=work.machine.precision,
        on_epoch=on_epoch,
        log=Several(logs),
        checkpoint=checkpoint,
        tape=as_written if work.machine.device == "cuda" and not work.machine.cuda_graphs else None,
    )
    if work.objective.kind == "few_shot":
        class_means_head(network, images)
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, out / "weights.safetensors")
    taps = second.tap_names if second is not None else ()
    best = min(history, key=lambda log: log.validation_loss)
    mix = dict(zip(taps, second.gamma.tolist(), strict=True)) if second is not None else {}
    scores = {"validation_loss": best.validation_loss, "validation_accuracy": best.validation_accuracy}
    card = NetworkCard(
        work.condition, work.seed, work_digest(work), {**scores, **{f"gamma.{k}": v for k, v in mix.items()}}
    )
    (out / "card.json").write_text(card.to_json() + "\n", encoding="utf-8")
    write_json(out / "metrics.json", training_rows(work, history, taps))


def new_network(work: TrainWork | MeasureWork | AttackWork | ProbeWork, images: LabelledImages) -> ResNet:
    """Return the condition's network as the seed draws it: all conditions of a seed begin with the same weights."""
    torch.manual_seed(work.seed)
    front = None if work.blur_sigma is None else GaussianBlur(work.blur_sigma)
    network = ResNet(
        work.network.architecture,
        width=work.network.width,
        classes=len(images.classes),
        channels=images.pixels.shape[1],
        front=front,
        checkpointing=work.network.checkpointing,
    )
    return network.to(work.machine.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def second_loss(work: TrainWork, network: ResNet, inputs: Mapping[str, Path], steps: int) -> SecondLoss | None:
    """Return the condition's second loss, if it has one; `steps`: of the whole training."""
    if work.second is None:
        return None
    stimuli = load_stimuli(inputs["target"] / "stimuli.npz")
    match work.second:
        case "exposure":
            assert work.regularizer is not None  # the plan gives it
            return Exposure(
                network,
                stimuli.select(main_target(inputs["target"]).image_ids),
                work.regularizer.taps,
                batch_norm=work.regularizer.batch_norm,
                stimuli_per_step=work.regularizer.stimuli_per_step,
                every=work.regularizer.every,
                seed=work.seed,
            )
        case "regression":
            assert work.regression is not None
            options = work.regression
            return ResponseRegression(
                network,
                load_responses(inputs["control"]),
                stimuli,
                options.tap,
                options.alpha,
                grid=options.grid,
                stimuli_per_step=options.stimuli_per_step,
                neurons_per_step=options.neurons_per_step,
                seed=work.seed,
            )
        case "similarity":
            assert work.regularizer is not None and work.target is not None  # noqa: PT018
            target = taught_target(
                work.target,
                shuffled=work.shuffled,
                seed=work.seed,
                made=inputs["target"],
                control=inputs.get("control"),
            )
            return new_regularizer(work.regularizer, network, target, stimuli, seed=work.seed, steps=steps)


def new_regularizer(
    options: RegularizerSection,
    network: ResNet,
    target: SimilarityTarget,
    stimuli: Stimuli,
    *,
    seed: int,
    steps: int = 1,
) -> SimilarityRegularizer:
    """Return the regulariser that a recipe's options ask for; `steps`: of the whole training, for a ramp of alpha."""
    return SimilarityRegularizer(
        network,
        target,
        stimuli,
        taps=options.taps,
        alpha=_alpha(options, steps),
        scale=options.scale,
        mean=options.mean,
        pairs=options.pairs,
        batch_norm=options.batch_norm,
        stimuli_per_step=options.stimuli_per_step,
        every=options.every,
        features_per_tap=options.features_per_tap,
        threshold=options.threshold,
        within=options.within,
        seed=seed,
    )


def _alpha(options: RegularizerSection, steps: int) -> Alpha:
    alpha = options.alpha
    if isinstance(alpha, RampSection):
        return Ramp(alpha.start, alpha.end, max(1, round(alpha.over * steps)), alpha.shape)
    return alpha


def _task(work: TrainWork) -> Task:
    o = work.objective
    if o.kind == "few_shot":
        return FewShotTask(EpisodeLoss(o.ways, o.shots, o.queries))
    return Classification(work.training.batch_size)


def _perturb(work: TrainWork) -> Perturb | None:
    options = work.adversarial
    if options is None:
        return None
    return lambda network, images, labels, noise: pgd_perturbation(
        network, images, labels, epsilon=options.epsilon, steps=options.steps, start=noise
    )


def training_rows(work: TrainWork, history: list[EpochLog], taps: tuple[str, ...]) -> list[Json]:
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
            if np.isfinite(value):  # a condition without a second loss has none
                rows.append(row(work, metric, value, n, x=float(log.epoch)))
        for name, gamma in zip(taps, log.gamma, strict=True):
            rows.append(row(work, "gamma", gamma, log.n_pairs, x=float(log.epoch), tap=name))
    return rows
