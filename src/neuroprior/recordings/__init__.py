"""Recordings: from files, or from a simulated mouse, to a checked `Scan`, its population and its similarity target."""

from neuroprior.recordings.population import population_from_scan, target_from_scan
from neuroprior.recordings.simulate import SimulatedScan, simulate_scan
from neuroprior.recordings.stimuli import load_stimuli, packaged_photographs

__all__ = [
    "SimulatedScan",
    "load_stimuli",
    "packaged_photographs",
    "population_from_scan",
    "simulate_scan",
    "target_from_scan",
]
