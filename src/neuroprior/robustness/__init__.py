"""Network -> measurements. Nothing here knows how a network was trained."""

from neuroprior.robustness.noise import Clip, NoiseCurve, draw_noise, noise_accuracy

__all__ = ["Clip", "NoiseCurve", "draw_noise", "noise_accuracy"]
