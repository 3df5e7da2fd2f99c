"""The digital twin: a predictive model of recorded neurons, used to denoise their responses."""

from neuroprior.twin.architecture import TwinArchitecture
from neuroprior.twin.denoise import (
    CrossfitTwin,
    Denoiser,
    fit_crossfit,
    mean_details,
    predict_denoised,
    score_denoiser,
    target_details,
    target_from_twin,
)
from neuroprior.twin.evaluate import TwinScores, score_twin
from neuroprior.twin.exciting import exciting_images
from neuroprior.twin.fit import FitDivergedError, FitEpoch, FitProgress, FitSettings, FittedTwins, fit_twin
from neuroprior.twin.folder import FitFolder, fit_in_folder, load_denoisers, load_fit
from neuroprior.twin.model import EncodingModel, Twin
from neuroprior.twin.predict import check_size, predict_population
from neuroprior.twin.pretrained import load_twin
from neuroprior.twin.program import ProgramConditions, twin_program
from neuroprior.twin.saved import load_twins, save_twins
from neuroprior.twin.sensorium_file import save_sensorium
from neuroprior.twin.simulated import simulate_from_twin
from neuroprior.twin.untrained import untrained_twin

__all__ = [
    "CrossfitTwin",
    "Denoiser",
    "EncodingModel",
    "FitDivergedError",
    "FitEpoch",
    "FitFolder",
    "FitProgress",
    "FitSettings",
    "FittedTwins",
    "ProgramConditions",
    "Twin",
    "TwinArchitecture",
    "TwinScores",
    "check_size",
    "exciting_images",
    "fit_crossfit",
    "fit_in_folder",
    "fit_twin",
    "load_denoisers",
    "load_fit",
    "load_twin",
    "load_twins",
    "mean_details",
    "predict_denoised",
    "predict_population",
    "save_sensorium",
    "save_twins",
    "score_denoiser",
    "score_twin",
    "simulate_from_twin",
    "target_details",
    "target_from_twin",
    "twin_program",
    "untrained_twin",
]
