"""What else a trained network is asked: attacks at a radius, corruptions, frequencies, units, masked gradients."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch

from neuroprior.classifier import LabelledImages, ResNet
from neuroprior.experiment.engine import Say
from neuroprior.experiment.inputs import task_images
from neuroprior.experiment.sections import CorruptionsSection, EnsembleSection, FrequenciesSection, TuningSection
from neuroprior.experiment.steps.measuring import first_images, trained_network
from neuroprior.experiment.steps.settings import Json, MaskingWork, ProbeWork, row
from neuroprior.files import write_json
from neuroprior.networks import Tuning, exciting_images_of_units, unit_tuning
from neuroprior.regularizer import evenly_spaced_stages
from neuroprior.robustness import (
    USUAL_CORRUPTIONS,
    accuracy_under_attack,
    corruption_accuracy,
    filter_accuracy,
    hybrid_preference,
    masking_report,
)

UNITS_FILE = "units.npz"
MASKING_FILE = "masking.json"


def probe_network(work: ProbeWork, inputs: Mapping[str, Path], out: Path, say: Say) -> None:
    """Write `metrics.json`; of tuning also `units.npz`, some units' most exciting images."""
    images = task_images(work.task, "test")
    network = trained_network(work, images, inputs)
    match work.probe:
        case EnsembleSection():
            rows = _ensemble_rows(work, work.probe, network, images, say)
        case CorruptionsSection():
            rows = _corruption_rows(work, work.probe, network, images, say)
        case FrequenciesSection():
            rows = _frequency_rows(work, work.probe, network, images, say)
        case TuningSection():
            rows = _tuning_rows(work, work.probe, network, images, out, say)
    write_json(out / "metrics.json", rows)


def _ensemble_rows(
    work: ProbeWork, options: EnsembleSection, network: ResNet, images: LabelledImages, say: Say
) -> list[Json]:
    """Accuracy left at each radius, and what did not hold when it was checked again."""
    x, y = _some(images, options.n_images)
    rows = []
    for norm, radii in options.by_norm.items():
        left = accuracy_under_attack(
            network,
            x,
            y,
            radii,
            norm=norm,
            strength=options.strength,
            seed=options.seed,
            progress=lambda part, said, norm=norm: say(f"{norm} {said}", part),  # type: ignore[misc]
        )
        for one in left.at:
            rows.append(row(work, f"attacked_accuracy_{norm}", one.accuracy, one.n, x=one.radius))
            rows.append(row(work, f"attacked_already_wrong_{norm}", float(one.already_wrong), one.n, x=one.radius))
            rows.append(row(work, f"attacked_failed_checks_{norm}", float(one.failed_checks), one.n, x=one.radius))
    return rows


def _corruption_rows(
    work: ProbeWork, options: CorruptionsSection, network: ResNet, images: LabelledImages, say: Say
) -> list[Json]:
    """Accuracy for each kind at each severity, and the mean error over the usual kinds."""
    x, y = _some(images, options.n_images)
    curve = corruption_accuracy(
        network,
        x,
        y,
        kinds=options.kinds,
        severities=options.severities,
        seed=options.seed,
        progress=lambda done, of: say("corruptions", done / of),
    )
    rows = [
        row(work, f"corruption.{kind}", float(curve.accuracy[k, s]), curve.n, x=float(severity))
        for k, kind in enumerate(curve.kinds)
        for s, severity in enumerate(curve.severities)
    ]
    if set(USUAL_CORRUPTIONS) <= set(curve.kinds):
        rows.append(row(work, "mean_corruption_error", curve.mean_corruption_error(), curve.n))
    return rows


def _frequency_rows(
    work: ProbeWork, options: FrequenciesSection, network: ResNet, images: LabelledImages, say: Say
) -> list[Json]:
    """Accuracy on each band, and which half of hybrid images is named."""
    x, y = _some(images, options.n_images)
    rows = []
    for keep in ("low", "high"):
        curve = filter_accuracy(network, x, y, options.cutoffs, keep=keep)
        rows += [
            row(work, f"{keep}_pass_accuracy", float(value), curve.n, x=cutoff)
            for cutoff, value in zip(curve.cutoffs, curve.accuracy, strict=True)
        ]
    say("hybrids", 0.6)
    if len(np.unique(y.numpy())) < 2:
        return rows
    named = hybrid_preference(network, x, y, options.cutoffs, of=options.hybrids_of, seed=options.seed)
    if not named.n:
        return rows
    for part, shares in (("low", named.low), ("high", named.high)):
        rows += [
            row(work, f"hybrid_{part}", float(value), named.n, x=cutoff)
            for cutoff, value in zip(named.cutoffs, shares, strict=True)
        ]
    if not math.isnan(named.crossover):
        rows.append(row(work, "hybrid_crossover", named.crossover, named.n))
    return rows


def _tuning_rows(
    work: ProbeWork, options: TuningSection, network: ResNet, images: LabelledImages, out: Path, say: Say
) -> list[Json]:
    """Medians and shares of each tap's units."""
    size = tuple(images.pixels.shape[1:])
    assert work.taps is not None  # the plan gives it
    shown = torch.zeros(1, *size, device=work.machine.device)
    layers = evenly_spaced_stages(network, shown, work.taps) if isinstance(work.taps, int) else list(work.taps)
    tuning = unit_tuning(
        network,
        layers,
        size,
        orientations=options.orientations,
        phases=options.phases,
        contrast=options.contrast,
        units=options.units,
        progress=lambda done, of: say("gratings", 0.5 * done / of),
    )
    _write_exciting(network, tuning, size, options, out, say)
    rows = []
    for layer in tuning.layers():
        numbers = {
            "preferred_frequency": layer.frequency,
            "low_pass_units": layer.low_pass,
            "orientation_selectivity": layer.selectivity,
            "simple_units": layer.simple,
        }
        rows += [
            row(work, metric, value, layer.responsive, tap=layer.layer)
            for metric, value in numbers.items()
            if not math.isnan(value)
        ]
        rows.append(row(work, "responsive_units", layer.responsive / layer.units, layer.units, tap=layer.layer))
    return rows


def _write_exciting(
    network: ResNet, tuning: Tuning, size: tuple[int, ...], options: TuningSection, out: Path, say: Say
) -> None:
    """Write `units.npz`: of each tap, evenly among its responsive units, the image that excites each of them most."""
    layers, channels, pictures = list[str](), list[int](), list[np.ndarray]()
    names = list(dict.fromkeys(tuning.layer.tolist()))
    for k, name in enumerate(names if options.exciting else ()):
        own = tuning.channel[(tuning.layer == name) & tuning.responsive]
        chosen = own[np.unique(np.linspace(0, len(own) - 1, min(options.exciting, len(own))).astype(int))]
        if not len(chosen):
            continue
        found = exciting_images_of_units(
            network,
            name,
            chosen.tolist(),
            size,  # type: ignore[arg-type]
            steps=options.exciting_steps,
            progress=lambda done, of, k=k: say("exciting images", 0.5 + 0.5 * (k + done / of) / len(names)),  # type: ignore[misc]
        )
        layers += [name] * len(chosen)
        channels += chosen.tolist()
        pictures.append(found.images)
    images = np.concatenate(pictures) if pictures else np.zeros((0, *size), np.float32)
    np.savez_compressed(
        out / UNITS_FILE, layer=np.array(layers, dtype=str), channel=np.array(channels, dtype=np.int64), images=images
    )


def compare_networks(work: MaskingWork, inputs: Mapping[str, Path], out: Path, say: Say) -> None:
    """Write `masking.json`, what was measured of each network and the verdict in words, and both medians as metrics."""
    options = work.masking
    images = task_images(work.task, "test")
    views = {
        name: ProbeWork(
            condition=name,
            seed=work.seed,
            task=work.task,
            network=work.network,
            blur_sigma=sigma,
            probe=EnsembleSection(),
            machine=work.machine,
        )
        for name, sigma in work.blur_sigmas
    }
    networks = {name: trained_network(view, images, {"network": inputs[name]}) for name, view in views.items()}
    x, y = _some(images, options.n_images)
    found = masking_report(
        networks,
        x,
        y,
        norm=options.norm,
        radius=options.radius,
        queries=options.queries,
        seed=options.seed,
        progress=partial(_tell, say),
    )
    told, rows = [], []
    for one in found:
        told.append({**asdict(one), "masked": one.masked, "verdict": one.verdict})
        rows += [
            row(views[one.model], f"{what}_median_{one.norm}", value, one.right)
            for what, value in (("white_box", one.white_box_median), ("decision_based", one.decision_median))
            if not math.isnan(value)
        ]
    write_json(out / MASKING_FILE, told)
    write_json(out / "metrics.json", rows)


def _tell(say: Say, part: float, said: str) -> None:
    say(said, part)


def _some(images: LabelledImages, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    some = first_images(images, n)
    return torch.from_numpy(some.pixels).float() / 255, torch.from_numpy(some.labels)
