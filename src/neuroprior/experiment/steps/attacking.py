"""How little it takes to fool a trained network."""

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch

from neuroprior.experiment.engine import Say
from neuroprior.experiment.inputs import task_images
from neuroprior.experiment.steps.measuring import first_images, trained_network
from neuroprior.experiment.steps.settings import AttackWork, Json, row
from neuroprior.experiment.store import LEDGERS
from neuroprior.files import write_json
from neuroprior.robustness import Ledger, Withstood, minimal_perturbations, radial_spectrum


def attack_network(work: AttackWork, inputs: Mapping[str, Path], out: Path, say: Say) -> None:
    """Write `attacks.parquet`, every attempt a row, and of each norm the median and the counts to `metrics.json`."""
    options = work.perturbations
    images = task_images(work.task, "test")
    network = trained_network(work, images, inputs)
    some = first_images(images, options.n_images)
    (out / LEDGERS).mkdir(exist_ok=True)
    norms = options.by_norm
    ledger = Ledger.of_records(())
    for k, (norm, attacks) in enumerate(norms.items()):
        ledger += minimal_perturbations(
            network,
            torch.from_numpy(some.pixels).float() / 255,
            torch.from_numpy(some.labels),
            attacks=attacks,
            norm=norm,
            repetitions=options.repetitions,
            exhaustive=options.exhaustive,
            seed=options.seed,
            max_gradients=options.max_gradients,
            name=attacked_name(work.condition, work.seed),
            ledger=out / LEDGERS / f"{norm}.parquet",
            keep_adversarials=True,
            progress=partial(_tell, say, norm, k, len(norms)),
        )
    ledger.without_adversarials().save(out / "attacks.parquet")
    rows = [found for line in ledger.withstood() for found in _rows(work, line)]
    shown = some.pixels.astype(np.float32) / 255
    rows += [found for norm in norms for found in _spectrum_rows(work, ledger.of(norm=norm), norm, shown)]
    write_json(out / "metrics.json", rows)


def _tell(say: Say, norm: str, k: int, of: int, part: float, said: str) -> None:
    say(f"{norm} {said}", (k + part) / of)


def _rows(work: AttackWork, line: Withstood) -> list[Json]:
    """One network's numbers in one norm, each with how many images are behind it; none that no image is behind."""
    sound = line.n - line.quarantined
    numbers = (
        ("median", line.median, sound),
        ("median_of_right", line.median_of_right, sound - line.already_wrong),
        ("mean", line.mean, sound - line.not_found),
        ("already_wrong", line.already_wrong, line.n),
        ("not_found", line.not_found, line.n),
        ("quarantined", line.quarantined, line.n),
        ("gradients", line.gradients, line.n),
    )
    return [row(work, f"{what}_{line.norm}", float(value), n) for what, value, n in numbers if not math.isnan(value)]


def _spectrum_rows(work: AttackWork, ledger: Ledger, norm: str, images: np.ndarray) -> list[Json]:
    """The radial spectrum of the smallest perturbations: the share of their power in each ring; none of none."""
    delta = ledger.perturbations(images)
    if not np.isfinite(delta).all((1, 2, 3)).any() or not np.nan_to_num(delta).any():
        return []
    found = radial_spectrum(delta)
    rows = [
        row(work, f"perturbation_spectrum_{norm}", float(share), found.n, x=float(radius))
        for radius, share in zip(found.cycles_per_image, found.share, strict=True)
    ]
    return [*rows, row(work, f"perturbation_half_power_{norm}", found.half_power, found.n)]


def attacked_name(condition: str, seed: int) -> str:
    """What the ledger's column `model` says."""
    return f"{condition} seed {seed}"
