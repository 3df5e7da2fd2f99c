"""What each kind of step does: read the folders of the steps before it, write one folder. Settings in, files out."""

from collections.abc import Mapping
from pathlib import Path

from neuroprior.classifier import Checkpoint
from neuroprior.experiment.compute import torch_settled
from neuroprior.experiment.engine import Say
from neuroprior.experiment.simulated_twins import SimulatedTwinsTarget
from neuroprior.experiment.steps.attacking import attack_network
from neuroprior.experiment.steps.measuring import measure_network
from neuroprior.experiment.steps.probing import MASKING_FILE, UNITS_FILE, compare_networks, probe_network
from neuroprior.experiment.steps.settings import (
    ABSENT_FILE,
    STABILITY_FILE,
    AttackWork,
    ControlWork,
    Machine,
    MaskingWork,
    MeasureWork,
    ProbeWork,
    ScansWork,
    StabilityWork,
    TargetWork,
    TrainWork,
    TwinsWork,
    Work,
)
from neuroprior.experiment.steps.stability import measure_stability
from neuroprior.experiment.steps.targets import make_control, make_targets, taught_target
from neuroprior.experiment.steps.training import train_network
from neuroprior.experiment.steps.twins import fit_twins, simulate_mice, targets_of_twins
from neuroprior.experiment.store import CHECKPOINT

__all__ = [
    "ABSENT_FILE",
    "MASKING_FILE",
    "STABILITY_FILE",
    "UNITS_FILE",
    "AttackWork",
    "ControlWork",
    "Machine",
    "MaskingWork",
    "MeasureWork",
    "ProbeWork",
    "ScansWork",
    "StabilityWork",
    "TargetWork",
    "TrainWork",
    "TwinsWork",
    "Work",
    "do_work",
    "taught_target",
]


def do_work(
    work: Work,
    inputs: Mapping[str, Path],
    out: Path,
    say: Say,
    *,
    checkpoint_seconds: float = 30.0,
    tensorboard: bool = False,
) -> None:
    """Do a step: settings in, files out. How often a training keeps its state, and what it logs, changes no number."""
    with torch_settled(work.machine.threads):
        match work:
            case ScansWork():
                simulate_mice(work, out, say)
            case TwinsWork():
                fit_twins(work, inputs, out, say, Checkpoint(out / CHECKPOINT, checkpoint_seconds))
            case StabilityWork():
                measure_stability(work, inputs, out, say)
            case TargetWork(target=SimulatedTwinsTarget()):
                targets_of_twins(work, inputs, out, say)
            case TargetWork():
                make_targets(work, out, say)
            case ControlWork():
                make_control(work, inputs, out, say)
            case TrainWork():
                kept = Checkpoint(out / CHECKPOINT, checkpoint_seconds)
                train_network(work, inputs, out, say, kept, tensorboard=tensorboard)
            case MeasureWork():
                measure_network(work, inputs, out, say)
            case AttackWork():
                attack_network(work, inputs, out, say)
            case ProbeWork():
                probe_network(work, inputs, out, say)
            case MaskingWork():
                compare_networks(work, inputs, out, say)
