"""The digital twin: a predictive model of recorded neurons, used to denoise their responses."""

from neuroprior.twin.architecture import TwinArchitecture
from neuroprior.twin.evaluate import TwinScores, score_twin
from neuroprior.twin.exciting import exciting_images
from neuroprior.twin.fit import FitEpoch, FitProgress, FitSettings, FittedTwins, fit_twin
from neuroprior.twin.model import EncodingModel, Twin
from neuroprior.twin.predict import check_size, predict_population, target_details, target_from_twin
from neuroprior.twin.pretrained import load_twin
from neuroprior.twin.simulated import simulate_from_twin
from neuroprior.twin.untrained import untrained_twin

__all__ = [
    "EncodingModel",
    "FitEpoch",
    "FitProgress",
    "FitSettings",
    "FittedTwins",
    "Twin",
    "TwinArchitecture",
    "TwinScores",
    "check_size",
    "exciting_images",
    "fit_twin",
    "load_twin",
    "predict_population",
    "score_twin",
    "simulate_from_twin",
    "target_details",
    "target_from_twin",
    "untrained_twin",
]
