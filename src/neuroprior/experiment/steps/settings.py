"""What goes into each kind of step, and nothing else: it is the step's key."""

import hashlib
from typing import Any, Literal

from neuroprior.classifier import TrainingSettings
from neuroprior.experiment.conditions import Control, Second
from neuroprior.experiment.section import Section
from neuroprior.experiment.sections import (
    AdversarialSection,
    CorruptionsSection,
    EnsembleSection,
    FrequenciesSection,
    MaskingSection,
    NetworkSection,
    NoiseSection,
    ObjectiveSection,
    PerturbationsSection,
    RegressionSection,
    RegularizerSection,
    RobustnessSection,
    StimuliSection,
    Target,
    TaskSection,
    TransferSection,
    TuningSection,
)
from neuroprior.experiment.simulated_twins import SimulatedMiceSection
from neuroprior.regularizer.loss import Mean
from neuroprior.twin import FitSettings, TwinArchitecture
from neuroprior.types import Precision

Json = dict[str, Any]


class Machine(Section):
    """Where a step runs; part of its key, since it decides the last bits of every number."""

    device: str
    precision: Precision
    threads: int
    cuda_graphs: bool = True


class ScansWork(Section):
    """Simulate scans of the recipe's stimuli, and say how near what they recorded is to the truth."""

    stimuli: StimuliSection
    mice: SimulatedMiceSection
    machine: Machine


class TwinsWork(Section):
    """Fit one variant of twins to the simulated scans; `condition`: the one that is taught what they predict."""

    condition: str
    architecture: TwinArchitecture
    settings: FitSettings
    machine: Machine


class StabilityWork(Section):
    """Say how stable the recordings behind the target are, and how near to them models and controls come.

    `lowpass_sigma`: of the blurred pixels beside them; `vgg`, `random_twin` (a seed): None where no condition has them.
    """

    stimuli: StimuliSection
    target: Target
    lowpass_sigma: float
    vgg: str | None = None
    random_twin: int | None = None
    machine: Machine


class TargetWork(Section):
    """Make the similarity targets: training stimuli, and held-out (oracle) ones that are never trained on."""

    stimuli: StimuliSection
    target: Target
    machine: Machine


class ControlWork(Section):
    """Make one control's target for the same training stimuli, or the responses that are regressed to.

    `target`: the recipe's, where the control is made of it. `sigma`: of the blur before `lowpass` is compared.
    """

    control: Control
    target: Target | None = None
    threshold: float | None = None
    sigma: float | None = None
    vgg: str | None = None
    seed: int = 0
    machine: Machine


class TrainWork(Section):
    """Train one network under one condition. `target`: which file of the target step, or of the control's, is taught.

    The sections are the condition's own; None where it has no such part.
    """

    condition: str
    seed: int
    task: TaskSection
    network: NetworkSection
    training: TrainingSettings
    objective: ObjectiveSection
    second: Second | None
    target: str | None
    shuffled: bool
    regularizer: RegularizerSection | None
    regression: RegressionSection | None
    adversarial: AdversarialSection | None
    blur_sigma: float | None
    machine: Machine


class MeasureWork(Section):
    """Measure one trained network: accuracy under noise and attack, transfer, similarity on held-out stimuli."""

    condition: str
    seed: int
    task: TaskSection
    network: NetworkSection
    taps: int | tuple[str, ...]
    mean: Mean
    blur_sigma: float | None
    noise: NoiseSection
    robustness: RobustnessSection
    transfer: TransferSection | None
    machine: Machine


class AttackWork(Section):
    """Search for minimal perturbations of one trained network."""

    condition: str
    seed: int
    task: TaskSection
    network: NetworkSection
    blur_sigma: float | None
    perturbations: PerturbationsSection
    machine: Machine


class ProbeWork(Section):
    """Ask one trained network one of these; `taps`: the layers whose units are asked."""

    condition: str
    seed: int
    task: TaskSection
    network: NetworkSection
    blur_sigma: float | None
    probe: EnsembleSection | CorruptionsSection | FrequenciesSection | TuningSection
    taps: int | tuple[str, ...] | None = None
    machine: Machine


class MaskingWork(Section):
    """Compare the networks of one seed; `blur_sigmas`: each condition's, in the order of the recipe."""

    seed: int
    task: TaskSection
    network: NetworkSection
    blur_sigmas: tuple[tuple[str, float | None], ...]
    masking: MaskingSection
    machine: Machine


Work = (
    ScansWork
    | TwinsWork
    | StabilityWork
    | TargetWork
    | ControlWork
    | TrainWork
    | MeasureWork
    | AttackWork
    | ProbeWork
    | MaskingWork
)
STABILITY_FILE, ABSENT_FILE = "stability.npz", "absent.json"
"""What a stability step leaves: one or the other."""
TARGET_FILE: Literal["target.safetensors"] = "target.safetensors"
"""What a control step leaves, unless it is `responses`; and a step of twins."""


def work_digest(work: Section) -> str:
    """SHA-256 of the settings."""
    return hashlib.sha256(work.model_dump_json().encode()).hexdigest()


def row(
    work: TrainWork | MeasureWork | AttackWork | ProbeWork,
    metric: str,
    value: float,
    n: int,
    x: float | None = None,
    tap: str | None = None,
) -> Json:
    """One row of `metrics.parquet`."""
    return metric_row(work.condition, work.seed, metric, value, n, x, tap)


def metric_row(
    condition: str, seed: int, metric: str, value: float, n: int, x: float | None = None, tap: str | None = None
) -> Json:
    """As `row`, of a step that is of no network."""
    return {"condition": condition, "seed": seed, "metric": metric, "tap": tap, "x": x, "value": value, "n": n}
