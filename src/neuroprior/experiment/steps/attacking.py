"""How little it takes to fool a trained network."""

import math
from collections.abc import Mapping
from pathlib import Path

import torch

from neuroprior.experiment.engine import Say
from neuroprior.experiment.inputs import task_images
from neuroprior.experiment.steps.measuring import trained_network
from neuroprior.experiment.steps.settings import AttackWork, row
from neuroprior.experiment.store import LEDGERS
from neuroprior.files import write_json
from neuroprior.robustness import Ledger, minimal_perturbations


def attack_network(work: AttackWork, inputs: Mapping[str, Path], out: Path, say: Say) -> None:
    """Write `attacks.parquet`, every attempt a row, and of each norm the median and the counts to `metrics.json`."""
    options = work.perturbations
    images = task_images(work.task, "test")
    network = trained_network(work, images, inputs)
    some = images.rows(slice(0, options.n_images))
    (out / LEDGERS).mkdir(exist_ok=True)
    norms, done = options.by_norm, 0.0
    ledger = Ledger.of_records(())
    for norm, attacks in norms.items():
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
            progress=lambda part, said, norm=norm, done=done: say(f"{norm} {said}", done + part / len(norms)),  # type: ignore[misc]
        )
        done += 1 / len(norms)
    ledger.save(out / "attacks.parquet")
    write_json(
        out / "metrics.json",
        [
            row(work, f"{what}_{line.norm}", float(value), n)
            for line in ledger.withstood()
            for sound in [line.n - line.quarantined]
            for what, value, n in (
                ("median", line.median, sound),
                ("median_of_right", line.median_of_right, sound - line.already_wrong),
                ("mean", line.mean, sound - line.not_found),
                ("already_wrong", line.already_wrong, line.n),
                ("not_found", line.not_found, line.n),
                ("quarantined", line.quarantined, line.n),
                ("gradients", line.gradients, line.n),
            )
            if not math.isnan(value)  # of no sample at all
        ],
    )


def attacked_name(condition: str, seed: int) -> str:
    """What the ledger's column `model` says."""
    return f"{condition} seed {seed}"
