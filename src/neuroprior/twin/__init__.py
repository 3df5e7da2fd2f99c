"""The digital twin: a predictive model of recorded neurons, used to denoise their responses."""

from neuroprior.twin.model import EncodingModel, Twin
from neuroprior.twin.predict import check_size, predict_population, target_details, target_from_twin
from neuroprior.twin.pretrained import load_twin
from neuroprior.twin.simulated import simulate_from_twin
from neuroprior.twin.untrained import untrained_twin

__all__ = [
    "EncodingModel",
    "Twin",
    "check_size",
    "load_twin",
    "predict_population",
    "simulate_from_twin",
    "target_details",
    "target_from_twin",
    "untrained_twin",
]
