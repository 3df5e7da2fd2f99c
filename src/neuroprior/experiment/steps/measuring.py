"""What a trained network is like: under noise, under attack, on other data, and beside the brain."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from neuroprior.classifier import (
    LabelledImages,
    ResNet,
    core_features,
    few_shot_accuracy,
    linear_probe_accuracy,
)
from neuroprior.experiment.engine import Say
from neuroprior.experiment.inputs import task_images
from neuroprior.experiment.sections import RegularizerSection
from neuroprior.experiment.steps.settings import AttackWork, Json, MeasureWork, ProbeWork, row
from neuroprior.experiment.steps.training import new_network, new_regularizer
from neuroprior.files import write_json
from neuroprior.recordings import load_stimuli
from neuroprior.robustness import linf_accuracy, noise_accuracy
from neuroprior.types import SimilarityTarget

_EXAMPLES = 3  # test images kept with each measurement, for the report's noise example


def measure_network(work: MeasureWork, inputs: Mapping[str, Path], out: Path, say: Say) -> None:
    """Write `metrics.json`: accuracy under noise and attack, transfer, correlation of S_cnn and S_neural."""
    images = task_images(work.task, "test")
    network = trained_network(work, images, inputs)
    rows = noise_rows(work, network, images, say)
    rows += attack_rows(work, network, images, say)
    rows += transfer_rows(work, network, say)
    rows += similarity_rows(work, network, inputs)
    write_json(out / "metrics.json", rows)
    shown = images.rows(np.unique(images.labels, return_index=True)[1][:_EXAMPLES])  # one of each of the first classes
    names = np.array([images.classes[label] for label in shown.labels])
    np.savez_compressed(out / "examples.npz", images=shown.pixels, labels=names, classes=np.array(images.classes))


def trained_network(
    work: MeasureWork | AttackWork | ProbeWork, images: LabelledImages, inputs: Mapping[str, Path]
) -> ResNet:
    """Return the network that the training step left, in evaluation mode."""
    from safetensors.torch import load_file

    network = new_network(work, images)
    network.load_state_dict(load_file(inputs["network"] / "weights.safetensors", device=work.machine.device))
    return network.eval()


def first_images(images: LabelledImages, n: int) -> LabelledImages:
    """The first n; of images that lie class by class, n evenly spread over them."""
    labels = images.labels
    if (np.diff(labels) >= 0).all():
        return images.rows(np.unique(np.linspace(0, len(labels) - 1, min(n, len(labels))).astype(int)))
    return images.rows(slice(0, n))


def noise_rows(work: MeasureWork, network: ResNet, images: LabelledImages, say: Say) -> list[Json]:
    """Accuracy at each level of each kind of noise."""
    rows = []
    for kind in work.noise.kinds:
        curve = noise_accuracy(
            network,
            torch.from_numpy(images.pixels).float() / 255,
            torch.from_numpy(images.labels),
            work.noise.sigmas,
            kind=kind,
            clip=work.noise.clip,
            seed=work.noise.seed,
            precision=work.machine.precision,
            progress=lambda done, of: say("noise", done / of),
        )
        metric = "noise_accuracy" if kind == "gaussian" else f"{kind}_noise_accuracy"
        rows += [
            row(work, metric, float(value), curve.n, x=sigma)
            for sigma, value in zip(curve.sigmas, curve.accuracy, strict=True)
        ]
    return rows


def attack_rows(work: MeasureWork, network: ResNet, images: LabelledImages, say: Say) -> list[Json]:
    """Accuracy under an Linf attack at each radius that the recipe asks for."""
    options = work.robustness
    if not options.radii:
        return []
    some = first_images(images, options.n_images)
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


def transfer_rows(work: MeasureWork, network: ResNet, say: Say) -> list[Json]:
    """Few-shot accuracy of the core on another data set's test images, and a linear probe from its training images."""
    options = work.transfer
    if options is None:
        return []
    say("transfer", 0.0)
    test = task_images(options.task, "test")
    features, labels = core_features(network, test.pixels), test.labels.astype(np.int64)
    rows = []
    for shots in options.shots:
        left = few_shot_accuracy(
            features, labels, ways=options.ways, shots=shots, episodes=options.episodes, seed=options.seed
        )
        rows.append(row(work, "few_shot_accuracy", left.accuracy, left.n_episodes, x=float(shots)))
    if options.linear_probe:
        say("linear probe", 0.5)
        train = task_images(options.task, "train")
        reached = linear_probe_accuracy(
            core_features(network, train.pixels), train.labels.astype(np.int64), features, labels
        )
        rows.append(row(work, "linear_probe_accuracy", reached, len(labels)))
    return rows


def similarity_rows(work: MeasureWork, network: ResNet, inputs: Mapping[str, Path]) -> list[Json]:
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
    probe = new_regularizer(options, network, heldout, stimuli, seed=work.seed)
    scores = json.loads((inputs["network"] / "card.json").read_text(encoding="utf-8"))["scores"]
    names = probe.taps.names
    gamma = np.array([scores.get(f"gamma.{name}", 1 / len(names)) for name in names])
    images = torch.from_numpy(stimuli.pixels.copy())[:, None].float().to(work.machine.device) / 255
    layers = [layer.cpu().numpy() for layer in probe.layer_similarities(images)]

    mixed = np.einsum("kij,k->ij", np.stack(layers), gamma)
    compared = [(None, mixed[pairs]), *((name, layer[pairs]) for name, layer in zip(names, layers, strict=True))]
    return [
        row(work, "similarity_correlation", float(np.corrcoef(similarity, neural)[0, 1]), len(neural), tap=name)
        for name, similarity in compared
        if similarity.std() > 0  # not of a tap that has collapsed
    ]
