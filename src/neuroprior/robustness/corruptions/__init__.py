"""The corruptions of CIFAR-10-C: images -> corrupted images, and a network's accuracy on them."""

from neuroprior.robustness.corruptions.accuracy import CorruptionCurve, corruption_accuracy
from neuroprior.robustness.corruptions.kinds import (
    EXTRA_CORRUPTIONS,
    SEVERITIES,
    USUAL_CORRUPTIONS,
    CorruptionKind,
    corrupted,
)

__all__ = [
    "EXTRA_CORRUPTIONS",
    "SEVERITIES",
    "USUAL_CORRUPTIONS",
    "CorruptionCurve",
    "CorruptionKind",
    "corrupted",
    "corruption_accuracy",
]
