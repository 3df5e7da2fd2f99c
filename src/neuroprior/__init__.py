"""Measure how alike a brain finds images, teach any network to agree, and prove what that did to its robustness."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuroprior.recordings import (
        load_scan,
        load_stimuli,
        packaged_photographs,
        prepare_stimuli,
        save_scan,
        simulate_scan,
        target_from_scan,
        target_from_scans,
    )
    from neuroprior.regularizer import SimilarityRegularizer
    from neuroprior.robustness import linf_accuracy, noise_accuracy
    from neuroprior.similarity import load_matrix
    from neuroprior.twin import load_twin, target_from_twin
    from neuroprior.types import (
        AttackRecord,
        FactoredTarget,
        InputError,
        NetworkCard,
        NeuronWeights,
        Population,
        Scan,
        SimilarityTarget,
        Stimuli,
        load_target,
    )

__version__ = "0.0.1"

# Imported on first use: `from neuroprior import SimilarityRegularizer` needs torch, numpy and safetensors only.
_HOME = {
    "AttackRecord": "types",
    "FactoredTarget": "types",
    "InputError": "types",
    "NetworkCard": "types",
    "NeuronWeights": "types",
    "Population": "types",
    "Scan": "types",
    "SimilarityRegularizer": "regularizer",
    "SimilarityTarget": "types",
    "Stimuli": "types",
    "linf_accuracy": "robustness",
    "load_matrix": "similarity",
    "load_scan": "recordings",
    "load_stimuli": "recordings",
    "load_target": "types",
    "load_twin": "twin",
    "noise_accuracy": "robustness",
    "packaged_photographs": "recordings",
    "prepare_stimuli": "recordings",
    "save_scan": "recordings",
    "simulate_scan": "recordings",
    "target_from_scan": "recordings",
    "target_from_scans": "recordings",
    "target_from_twin": "twin",
}

__all__ = [
    "AttackRecord",
    "FactoredTarget",
    "InputError",
    "NetworkCard",
    "NeuronWeights",
    "Population",
    "Scan",
    "SimilarityRegularizer",
    "SimilarityTarget",
    "Stimuli",
    "linf_accuracy",
    "load_matrix",
    "load_scan",
    "load_stimuli",
    "load_target",
    "load_twin",
    "noise_accuracy",
    "packaged_photographs",
    "prepare_stimuli",
    "save_scan",
    "simulate_scan",
    "target_from_scan",
    "target_from_scans",
    "target_from_twin",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'neuroprior' has no attribute {name!r}")
    value = getattr(import_module(f"neuroprior.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
