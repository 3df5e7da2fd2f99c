"""Training: scans in, twins out."""

from neuroprior.twin.fit.fitting import FitDivergedError, FittedTwins, fit_twin
from neuroprior.twin.fit.progress import FitProgress
from neuroprior.twin.fit.settings import FitSettings
from neuroprior.twin.fit.so_far import FitEpoch

__all__ = ["FitDivergedError", "FitEpoch", "FitProgress", "FitSettings", "FittedTwins", "fit_twin"]
