"""Measure how alike a brain finds images, teach any network to agree, and prove what that did to its robustness."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuroprior.networks import (
        exciting_images_of_units,
        load_network,
        load_network_folder,
        target_from_network,
    )
    from neuroprior.recordings import (
        check_scan,
        load_scan,
        load_stimuli,
        packaged_photographs,
        plan_recording,
        prepare_stimuli,
        save_scan,
        scan_stability,
        simulate_scan,
        target_from_scan,
        target_from_scans,
    )
    from neuroprior.regularizer import (
        Exposure,
        Ramp,
        ResponseRegression,
        SimilarityRegularizer,
    )
    from neuroprior.robustness import (
        ROBUSTBENCH_RADII,
        Ledger,
        Victim,
        accuracy_under_attack,
        corruption_accuracy,
        linf_accuracy,
        masking_report,
        minimal_perturbations,
        noise_accuracy,
    )
    from neuroprior.similarity import (
        compare_targets,
        factor_target,
        load_matrix,
        lowpass_target,
        pixel_target,
        shuffle_target,
        target_from_matrix,
    )
    from neuroprior.twin import (
        FitSettings,
        TwinArchitecture,
        exciting_images,
        fit_twin,
        load_twin,
        save_twins,
        score_twin,
        simulate_from_twin,
        target_from_twin,
    )
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

__version__ = "0.1.0"

# Imported on first use: `from neuroprior import SimilarityRegularizer` needs torch, numpy and safetensors only.
_HOME = {
    "AttackRecord": "types",
    "Exposure": "regularizer",
    "FactoredTarget": "types",
    "FitSettings": "twin",
    "InputError": "types",
    "Ledger": "robustness",
    "NetworkCard": "types",
    "NeuronWeights": "types",
    "Population": "types",
    "ROBUSTBENCH_RADII": "robustness",
    "Ramp": "regularizer",
    "ResponseRegression": "regularizer",
    "Scan": "types",
    "SimilarityRegularizer": "regularizer",
    "SimilarityTarget": "types",
    "Stimuli": "types",
    "TwinArchitecture": "twin",
    "Victim": "robustness",
    "accuracy_under_attack": "robustness",
    "check_scan": "recordings",
    "compare_targets": "similarity",
    "corruption_accuracy": "robustness",
    "exciting_images": "twin",
    "exciting_images_of_units": "networks",
    "factor_target": "similarity",
    "fit_twin": "twin",
    "linf_accuracy": "robustness",
    "load_matrix": "similarity",
    "load_network": "networks",
    "load_network_folder": "networks",
    "load_scan": "recordings",
    "load_stimuli": "recordings",
    "load_target": "types",
    "load_twin": "twin",
    "lowpass_target": "similarity",
    "masking_report": "robustness",
    "minimal_perturbations": "robustness",
    "noise_accuracy": "robustness",
    "packaged_photographs": "recordings",
    "pixel_target": "similarity",
    "plan_recording": "recordings",
    "prepare_stimuli": "recordings",
    "save_scan": "recordings",
    "save_twins": "twin",
    "scan_stability": "recordings",
    "score_twin": "twin",
    "shuffle_target": "similarity",
    "simulate_from_twin": "twin",
    "simulate_scan": "recordings",
    "target_from_matrix": "similarity",
    "target_from_network": "networks",
    "target_from_scan": "recordings",
    "target_from_scans": "recordings",
    "target_from_twin": "twin",
}

__all__ = [
    "ROBUSTBENCH_RADII",
    "AttackRecord",
    "Exposure",
    "FactoredTarget",
    "FitSettings",
    "InputError",
    "Ledger",
    "NetworkCard",
    "NeuronWeights",
    "Population",
    "Ramp",
    "ResponseRegression",
    "Scan",
    "SimilarityRegularizer",
    "SimilarityTarget",
    "Stimuli",
    "TwinArchitecture",
    "Victim",
    "accuracy_under_attack",
    "check_scan",
    "compare_targets",
    "corruption_accuracy",
    "exciting_images",
    "exciting_images_of_units",
    "factor_target",
    "fit_twin",
    "linf_accuracy",
    "load_matrix",
    "load_network",
    "load_network_folder",
    "load_scan",
    "load_stimuli",
    "load_target",
    "load_twin",
    "lowpass_target",
    "masking_report",
    "minimal_perturbations",
    "noise_accuracy",
    "packaged_photographs",
    "pixel_target",
    "plan_recording",
    "prepare_stimuli",
    "save_scan",
    "save_twins",
    "scan_stability",
    "score_twin",
    "shuffle_target",
    "simulate_from_twin",
    "simulate_scan",
    "target_from_matrix",
    "target_from_network",
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
