"""What a recipe names, read: stimuli, images, twins, recordings, matrices; and the check that it all fits together."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import torch

from neuroprior.classifier import (
    GaussianBlur,
    LabelledImages,
    ResNet,
    check_image_folder,
    check_parquet_images,
    count_cifar_binary,
    count_image_folder,
    count_parquet_images,
    load_cifar_binary,
    load_image_folder,
    load_packaged_digits,
    load_parquet_images,
)
from neuroprior.classifier.augmentation import Augmentation
from neuroprior.experiment.conditions import condition_named
from neuroprior.experiment.recipe import Recipe
from neuroprior.experiment.sections import (
    FittedTwinsTarget,
    MatrixTarget,
    ScansTarget,
    StimuliSection,
    Target,
    TaskSection,
    TwinTarget,
)
from neuroprior.experiment.simulated_twins import SimulatedTwinsTarget
from neuroprior.networks import load_vgg19
from neuroprior.recordings import load_scan, load_stimuli, packaged_photographs, scan_with_neurons, target_from_scans
from neuroprior.regularizer import Taps, evenly_spaced_stages
from neuroprior.similarity import load_matrix, lowpass_target, neuron_rows, select_neurons
from neuroprior.sources import data_path, how_to_get
from neuroprior.twin import Denoiser, Twin, check_size, load_fit, load_twin, target_from_twin
from neuroprior.twin.fit.digest import scan_digest
from neuroprior.types import InputError, Population, Scan, SimilarityTarget, Stimuli, Tier

TIERS: tuple[Tier, Tier] = ("train", "oracle")
_QUERIES = 15  # of each class, in a few-shot episode that measures transfer
_PARTS: tuple[Literal["train"], Literal["test"]] = ("train", "test")
_TRIED = 8  # images that fitted twins predict to see whether they can


def paths_of(recipe: Recipe) -> Iterator[str]:
    """Give all files and folders that a recipe names, as it names them."""
    yield from stimuli_paths(recipe)
    tasks = [recipe.task, *([recipe.transfer.task] if recipe.transfer is not None else [])]
    yield from (path for task in tasks for part in _PARTS if (path := task.path(part)) is not None)
    if recipe.controls.vgg is not None and any(condition_named(c).target == "vgg" for c in recipe.conditions):
        yield recipe.controls.vgg


def stimuli_paths(recipe: Recipe) -> Iterator[str]:
    """Give those that the target is made of."""
    if recipe.stimuli.path is not None:
        yield recipe.stimuli.path
    match recipe.target:
        case TwinTarget(path=path, neurons=rule):
            yield path
            yield from _files_of(rule)
        case ScansTarget(paths=paths, neurons=rule):
            yield from paths
            yield from _files_of(rule)
        case FittedTwinsTarget(paths=paths, twins=twins):
            yield from paths
            yield from _weights_of(twins)
        case MatrixTarget(path=path, ids=ids):
            yield from (path, ids)


def _weights_of(fit: str) -> list[str]:
    """Return the files of a fit's folder that its predictions rest on: not its log, its page or its history."""
    found = sorted(file.relative_to(data_path(fit)).as_posix() for file in data_path(fit).rglob("twin.safetensors"))
    if found and "twin.safetensors" not in found:
        found.append("fit.json")  # of a crossfit: which images each fold left out, and nothing more
    return [str(PurePosixPath(fit) / name) for name in found] or [fit]


def _files_of(rule: str | None) -> list[str]:
    """Return the file of neuron indices that a rule names, if it names one."""
    return [] if rule is None or rule.startswith(("top-v:", "random:")) else [rule]


def chosen_neurons(population: Population, rule: str | None) -> Population:
    """Return the part of the neurons that a recipe asks for."""
    return population if rule is None else select_neurons(population, _placed(rule))


def chosen_rows(twin: Twin, rule: str | None) -> np.ndarray | None:
    """Return which of a ready-made twin's neurons, all weighted alike, a recipe asks for; None for all."""
    return None if rule is None else neuron_rows(np.ones(twin.n_neurons, dtype=np.float32), _placed(rule))


def chosen_part(scan: Scan, rule: str | None) -> Scan:
    """Return the scan with the part of its neurons that a recipe asks for."""
    return scan if rule is None else scan_with_neurons(scan, _placed(rule))


def _placed(rule: str) -> str:
    return str(data_path(rule)) if _files_of(rule) else rule


def require(path: str) -> Path:
    """Return where a recipe's file or folder lies. Raises `InputError`, saying how to get it, where it is not there."""
    place = data_path(path)
    if not place.exists():
        if Path(path).exists():
            raise InputError(
                f"{place}: no such file, but the current folder has one; name it as {Path(path).resolve()}, "
                "since a recipe's paths start from the data folder"
            )
        how = how_to_get(path)
        found = f"{how}, " if how is not None else ""
        raise InputError(f"{place}: no such file; {found}put it there, or name the data folder in NEUROPRIOR_DATA")
    return place


def check_inputs(recipe: Recipe) -> None:
    """Raise `InputError` for what would only fail hours later: open every file, and try what must fit together."""
    stimuli, target, task, regularizer = recipe.stimuli, recipe.target, recipe.task, recipe.regularizer
    for path in paths_of(recipe):
        require(path)
    shown, tier = stimuli_of(stimuli, target)
    n_train = int(np.count_nonzero(tier == "train"))
    match target:
        case TwinTarget():
            twin = twin_of(target)
            check_size(twin, shown)
            if target.neurons is not None:
                weights = np.ones(twin.n_neurons, np.float32) if twin.weights is None else twin.weights
                neuron_rows(weights, _placed(target.neurons))
        case ScansTarget():
            _check_scans(scans_of(target))
        case FittedTwinsTarget():
            scans, twins = fit_of(target)
            _check_scans(scans)
            tried = shown.select(shown.ids[:_TRIED])
            target_from_twin(twins, tried, weighting=target.weighting, v_power=target.v_power)
        case SimulatedTwinsTarget():
            for variant in target.variants:
                architecture, _ = target.fitting(variant)
                architecture.map_size((shown.pixels.shape[1], shown.pixels.shape[2]))
        case MatrixTarget():
            known = matrix_of(target, stimuli).image_ids
            n_train = int(np.count_nonzero(np.isin(shown.ids[tier == "train"], known)))
    conditions = [condition_named(name) for name in recipe.conditions]
    settings = [recipe.settings(condition) for condition in conditions]
    for section in (part for own in settings for part in (own.regularizer, own.regression) if part is not None):
        if section.stimuli_per_step > n_train:
            raise InputError(
                f"regularizer.stimuli_per_step is {section.stimuli_per_step}, but there are {n_train} training "
                f"stimuli; set it to {n_train} or fewer"
            )
    if any(condition.target == "vgg" for condition in conditions):
        load_vgg19(data_path(str(recipe.controls.vgg)))
    for own in settings:
        if own.lowpass_sigma is not None:
            lowpass_target(shown.select(shown.ids[:3]), sigma=own.lowpass_sigma)
    for named, n in ((task.path("train"), task.n_train), (task.path("test"), task.n_test)):
        if named is not None and task.source == "parquet":
            check_parquet_images(data_path(named), n=n)
        if named is not None and task.source == "image_folder":
            check_image_folder(data_path(named), n=n, size=task.size)
    n_images = count_images(task, "train")
    held_out = max(1, round(recipe.training.validation_fraction * n_images))
    if n_images - held_out < recipe.training.batch_size:
        raise InputError(
            f"training.batch_size is {recipe.training.batch_size}, but {n_images} training images less {held_out} for "
            "validation do not fill one batch; lower it"
        )
    few = task.model_copy(update={"n_train": 20, "n_test": 20})
    train, test = task_images(few, "train"), task_images(few, "test")
    if (train.pixels.shape[1:], train.classes) != (test.pixels.shape[1:], test.classes):
        raise InputError(
            f"task: training images are {train.pixels.shape[1:]} of {len(train.classes)} classes, test images "
            f"{test.pixels.shape[1:]} of {len(test.classes)}; name two parts of one data set, with the same classes"
        )
    Augmentation(torch.from_numpy(train.pixels), recipe.training.augmentation)
    _check_episodes(recipe, len(train.classes), held_out, train.pixels.shape[1])
    channels = train.pixels.shape[1]
    one_of_each = torch.from_numpy(train.pixels[:1]).float(), torch.zeros(1, channels, *shown.pixels.shape[1:])
    for own in settings:
        if own.blur_sigma is not None:
            for image in one_of_each:
                GaussianBlur(own.blur_sigma)(image)
    model = ResNet(recipe.network.architecture, width=recipe.network.width, channels=channels)
    for taps in {regularizer.taps, *(own.regularizer.taps for own in settings if own.regularizer is not None)}:
        if isinstance(taps, int):
            evenly_spaced_stages(model, one_of_each[1], taps)
        else:
            Taps(model, taps)
    for tap in {own.regression.tap for own in settings if own.regression is not None}:
        if isinstance(tap, int):
            evenly_spaced_stages(model, one_of_each[1], tap)
        else:
            Taps(model, [tap])


def _check_scans(scans: list[Scan]) -> None:
    for one in TIERS:
        target_from_scans(scans, one)


def _check_episodes(recipe: Recipe, n_classes: int, n_held_out: int, channels: int) -> None:
    """Raise `InputError` where episodes, of the task or of the transfer, would lack classes, images or channels."""
    o, t = recipe.objective, recipe.transfer
    # As many of each class as can be expected; the draw itself may still be uneven, and then says so.
    if o.kind == "few_shot" and (o.ways > n_classes or n_held_out < n_classes * (o.shots + o.queries)):
        raise InputError(
            f"objective: episodes of {o.ways} ways, {o.shots} shots and {o.queries} queries, but there are {n_classes} "
            f"classes and {n_held_out} held-out images; raise training.validation_fraction, or lower these"
        )
    if t is not None:
        few = t.task.model_copy(update={"n_train": 20, "n_test": 20})
        others = [task_images(few, part) for part in _PARTS]
        n = count_images(t.task, "test")
        if t.ways > len(others[1].classes) or n < len(others[1].classes) * (max(t.shots) + _QUERIES):
            raise InputError(
                f"transfer: {t.ways} ways and {max(t.shots)} shots + {_QUERIES} queries of each class, but there are "
                f"{len(others[1].classes)} classes and {n} test images; raise transfer.task.n_test, or lower these"
            )
        if any(images.pixels.shape[1] != channels for images in others):
            raise InputError(
                f"transfer.task.color: the network takes {channels} channels; give the other data set the same color"
            )


def twin_of(target: TwinTarget) -> Twin:
    """Return the twin that a recipe names."""
    return load_twin(data_path(target.path), scan=target.scan, neutral_behavior=target.neutral_behavior)


def scans_of(target: ScansTarget | FittedTwinsTarget) -> list[Scan]:
    """Return the recordings that a recipe names."""
    rule = target.neurons if isinstance(target, ScansTarget) else None
    return [chosen_part(load_scan(data_path(path)), rule) for path in target.paths]


def fit_of(target: FittedTwinsTarget) -> tuple[list[Scan], list[Denoiser]]:
    """Return the recordings that a recipe names, and the twin of each, by name.

    Raises `InputError` for two recordings of one name, and where one has no twin, or that of its name was fitted to
    another recording.
    """
    place, scans = data_path(target.twins), scans_of(target)
    fit = load_fit(place)
    twins = {twin.name: twin for twin in fit.twins}
    fitted_to = fit.said[0].get("scans", {})
    names = [scan.name for scan in scans]
    for path, scan in zip(target.paths, scans, strict=True):
        if names.count(scan.name) > 1:
            raise InputError(f"{path}: another of target.paths is called {scan.name!r} too; twins are found by name")
        if scan.name not in twins:
            raise InputError(
                f"{place}: no twin of scan {scan.name!r} ({path}); it holds {', '.join(twins)}. Leave the scan out, or "
                "fit twins to all of target.paths"
            )
        if fitted_to.get(scan.name) != scan_digest(scan):
            raise InputError(
                f"{place}: its twin of scan {scan.name!r} was fitted to another recording than {path}; fit it again"
            )
    return scans, [twins[name] for name in names]


def matrix_of(target: MatrixTarget, section: StimuliSection) -> SimilarityTarget:
    """Return the matrix that a recipe names; it may hold stimuli that `n_train` leaves out."""
    stimuli, _ = every_stimulus_of(section, target)
    return load_matrix(data_path(target.path), data_path(target.ids), stimuli)


def stimuli_of(section: StimuliSection, target: Target | None = None) -> tuple[Stimuli, np.ndarray]:
    """Return the stimuli of a recipe, training ones first, and each one's tier.

    `target`: needed where its scans bring the stimuli.
    """
    if section.path is not None:
        tiers = {name: load_stimuli(data_path(section.path), tier=name) for name in TIERS}
    elif isinstance(target, ScansTarget | FittedTwinsTarget) and section.source == "scans":
        scan = load_scan(data_path(target.paths[0]))  # the others show the same images, or are refused
        tiers = {
            name: scan.stimuli.select(scan.stimuli.ids[np.unique(scan.trial_image[scan.tier == name])])
            for name in TIERS
        }
    else:
        tiers = {name: packaged_photographs(name) for name in TIERS}
    if section.n_train is not None:
        tiers["train"] = tiers["train"].select(tiers["train"].ids[: section.n_train])
    stimuli = Stimuli(
        np.concatenate([part.ids for part in tiers.values()]),
        np.concatenate([part.pixels for part in tiers.values()]),
    )
    return stimuli, np.repeat(list(tiers), [len(part) for part in tiers.values()])


def shown_stimuli(section: StimuliSection) -> tuple[Stimuli, np.ndarray]:
    """Return the stimuli in the order of their file, as `scan simulate` shows them, and the ids of the oracle ones."""
    stimuli, tier = stimuli_of(section)
    every = packaged_photographs() if section.path is None else load_stimuli(data_path(section.path))
    oracle = stimuli.ids[tier == "oracle"]
    return every.select(every.ids[np.isin(every.ids, stimuli.ids)]), oracle


def every_stimulus_of(section: StimuliSection, target: Target) -> tuple[Stimuli, np.ndarray]:
    """As `stimuli_of`, with the training stimuli that `n_train` leaves out."""
    return stimuli_of(section.model_copy(update={"n_train": None}), target)


def task_images(task: TaskSection, part: Literal["train", "test"]) -> LabelledImages:
    """Return `n_train` or `n_test` images of that part of the task: a file's first, or as many of every class."""
    n = task.n_train if part == "train" else task.n_test
    path = task.path(part)
    match task.source:
        case "parquet":
            return load_parquet_images(data_path(str(path)), task.color, n)
        case "cifar_binary":
            return load_cifar_binary(data_path(str(path)), part, task.color, n)
        case "image_folder":
            return load_image_folder(data_path(str(path)), task.color, n, task.size)
        case "digits":
            digits = load_packaged_digits(task.color)[0 if part == "train" else 1]
            # They are sorted by class: the first n would be of one class, every k-th are of all.
            rows = np.linspace(0, len(digits) - 1, min(n or len(digits), len(digits))).astype(np.int64)
            return digits.rows(rows)


def count_images(task: TaskSection, part: Literal["train", "test"]) -> int:
    """Return how many images that part of the task has, without reading them."""
    wanted = task.n_train if part == "train" else task.n_test
    path = data_path(str(task.path(part)))
    match task.source:
        case "parquet":
            held = count_parquet_images(path)
        case "cifar_binary":
            held = count_cifar_binary(path, part)
        case "image_folder":
            held = count_image_folder(path)
        case "digits":
            held = len(load_packaged_digits()[0 if part == "train" else 1])
    return min(wanted or held, held)
