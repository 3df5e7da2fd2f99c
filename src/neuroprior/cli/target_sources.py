"""The sources that `neuroprior target build` makes a target of."""

import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import neuroprior as npr
from neuroprior.cli.options import Tier, Weighting
from neuroprior.cli.progress import Progress

if TYPE_CHECKING:
    from neuroprior.types import AnyTarget, Details, Population, Precision, Scan, SimilarityTarget, Stimuli


@dataclass(frozen=True, slots=True)
class Kind:
    """A target as a matrix, or factored."""

    factored: bool
    tolerance: float
    max_rank: int | None

    def of_population(self, population: "Population", stimuli: "Stimuli", details: "Details") -> "AnyTarget":
        """Compare a population's images (Eq. 2)."""
        from neuroprior.similarity import factor_population, target_from_population

        if not self.factored:
            return target_from_population(population, stimuli, details=details)
        return factor_population(population, stimuli, tolerance=self.tolerance, max_rank=self.max_rank, details=details)

    def of_target(self, target: "SimilarityTarget") -> "AnyTarget":
        """Factor a matrix, or leave it as it is."""
        from neuroprior.similarity import factor_target

        if not self.factored:
            return target
        return factor_target(target, tolerance=self.tolerance, max_rank=self.max_rank)

    def mean(self, targets: list["AnyTarget"]) -> "AnyTarget":
        """Return the mean of targets of this kind."""
        from neuroprior.similarity import average_factored, average_targets

        if not self.factored:
            return average_targets([target for target in targets if isinstance(target, npr.SimilarityTarget)])
        parts = [target for target in targets if isinstance(target, npr.FactoredTarget)]
        return average_factored(parts, tolerance=self.tolerance, max_rank=self.max_rank)


class Weighing(TypedDict):
    """How a twin's neurons are predicted, and what each counts."""

    weighting: Weighting | None
    v_power: float
    precision: "Precision"


def target_of_twins(
    files: list[Path], shown: "Stimuli", how: Weighing, neurons: str | None, kind: Kind, progress: Progress
) -> "AnyTarget":
    """Return the target of twins' predictions; of several, the mean over them."""
    from neuroprior.similarity import select_neurons
    from neuroprior.twin import load_denoisers, mean_details, predict_denoised, target_details

    twins = [twin for file in files for twin in load_denoisers(file)]
    targets = []
    for twin in twins:
        said = partial(_tell, progress, f"twin {twin.name}", "predicting")
        population = predict_denoised(twin, shown, **how, progress=said)
        details = {**target_details(twin, shown, **how), **_chosen(neurons)}
        if neurons is not None:
            population = select_neurons(population, neurons)
        targets.append(kind.of_population(population, shown, details))
    if len(targets) == 1:
        return targets[0]
    mean = kind.mean(targets)
    return replace(mean, details={**mean.details, **mean_details(twins, targets)})


def target_of_scans(
    files: list[Path], scans: list["Scan"], tier: Tier, neurons: str | None, intersection: bool
) -> "SimilarityTarget":
    """Return the target of recordings, the mean over scans; warn of those that are not sound."""
    from neuroprior.recordings import check_scan, scan_with_neurons, target_from_scans

    for file, scan in zip(files, scans, strict=True):
        faults = check_scan(scan).faults
        if faults:
            more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
            print(f"warning: {file}: {faults[0]}{more}; see `neuroprior scan check`", file=sys.stderr)
    if neurons is not None:
        scans = [scan_with_neurons(scan, neurons) for scan in scans]
    made = target_from_scans(scans, tier=tier, missing="intersection" if intersection else "error")
    return replace(made, details={**made.details, **_chosen(neurons)})


def _chosen(neurons: str | None) -> "Details":
    return {} if neurons is None else {"neurons_chosen": neurons}


def target_of_network(
    spec: str,
    weights: Path | None,
    layer: str,
    size: tuple[int, int] | None,
    shown: "Stimuli",
    kind: Kind,
    progress: Progress,
) -> "AnyTarget":
    """Return the target of a network's layer; `size`: (height, width) that it takes, where the stimuli have another."""
    from neuroprior.networks import load_network, network_details, population_from_network

    network = load_network(spec, weights=weights)
    population = population_from_network(
        network, layer, shown, size=size, progress=partial(_tell, progress, "network", "computing features")
    )
    held = {} if weights is None else {"weights_file": weights.name}
    return kind.of_population(population, shown, {**network_details(network, spec, layer, population, size), **held})


def target_of_vgg(file: Path, shown: "Stimuli", kind: Kind, progress: Progress) -> "AnyTarget":
    """Return the target of VGG-19's conv3_1."""
    from neuroprior.networks import VGG_LAYER, load_vgg19, population_from_network, vgg_details

    network = load_vgg19(file)
    population = population_from_network(
        network, VGG_LAYER, shown, progress=partial(_tell, progress, "vgg", "computing features")
    )
    return kind.of_population(population, shown, vgg_details(network))


def _tell(progress: Progress, label: str, what: str, done: int, of: int) -> None:
    progress.update(label, what, done / of)
