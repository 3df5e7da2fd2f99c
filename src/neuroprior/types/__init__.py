"""The values that flow from stage to stage: frozen, checked when made, and free of any other module of the package.

`image_ids` travel with every array, so nothing is ever aligned by position.
"""

from typing import Literal

from neuroprior.types.arrays import Bool, Float, Float32, Float64, InputError, Int64, Shaped, UInt8
from neuroprior.types.recordings import NeuronWeights, Population, ResponseSource, Scan, Stimuli, Tier
from neuroprior.types.records import AttackRecord, AttackStatus, NetworkCard
from neuroprior.types.targets import AnyTarget, Details, FactoredTarget, SimilarityTarget, TargetSource, load_target

__all__ = [
    "AnyTarget",
    "AttackRecord",
    "AttackStatus",
    "Bool",
    "Details",
    "FactoredTarget",
    "Float",
    "Float32",
    "Float64",
    "InputError",
    "Int64",
    "NetworkCard",
    "NeuronWeights",
    "Population",
    "Precision",
    "ResponseSource",
    "Scan",
    "Shaped",
    "SimilarityTarget",
    "Stimuli",
    "TargetSource",
    "Tier",
    "UInt8",
    "Weighting",
    "load_target",
]

Precision = Literal["float32", "bfloat16"]
"""What a network's layers are computed in; similarities are float32 always."""

Weighting = Literal["snr-v", "snr", "v", "none"]
"""What a twin's neurons count by in a similarity: w v (Eq. 1, 6), w alone, v alone, or all alike."""
