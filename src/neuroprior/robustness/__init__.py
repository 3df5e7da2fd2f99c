"""Network -> measurements. Nothing here knows how a network was trained."""

from neuroprior.robustness.noise import Clip, NoiseCurve, draw_noise, noise_accuracy
from neuroprior.robustness.pgd import LinfCurve, linf_accuracy, pgd_perturbation

__all__ = ["Clip", "LinfCurve", "NoiseCurve", "draw_noise", "linf_accuracy", "noise_accuracy", "pgd_perturbation"]
