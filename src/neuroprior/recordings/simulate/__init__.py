"""A simulated mouse: cells that look at images through behaviour and noise, with every neuron's reliability known."""

from neuroprior.recordings.simulate.behaviour import STILL, Behaviour
from neuroprior.recordings.simulate.noise import Noise
from neuroprior.recordings.simulate.scan import (
    Rates,
    SimulatedScan,
    Viewing,
    sessions,
    simulate_from_rates,
    simulate_scan,
)
from neuroprior.recordings.simulate.truth import Truth, load_truth, save_truth

__all__ = [
    "STILL",
    "Behaviour",
    "Noise",
    "Rates",
    "SimulatedScan",
    "Truth",
    "Viewing",
    "load_truth",
    "save_truth",
    "sessions",
    "simulate_from_rates",
    "simulate_scan",
]
