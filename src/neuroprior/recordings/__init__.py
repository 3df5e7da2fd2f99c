"""Recordings: from files, or from a simulated mouse, to a checked `Scan`, its population and its similarity target."""

from neuroprior.recordings.formats import load_scan, save_scan
from neuroprior.recordings.noisy_trial import simulated_recording_target, single_trials
from neuroprior.recordings.photographs import PreparedStimuli, prepare_stimuli
from neuroprior.recordings.population import (
    population_from_scan,
    scan_with_neurons,
    target_from_scan,
    target_from_scans,
)
from neuroprior.recordings.simulate import SimulatedScan, simulate_scan
from neuroprior.recordings.stimuli import load_stimuli, packaged_photographs

__all__ = [
    "PreparedStimuli",
    "SimulatedScan",
    "load_scan",
    "load_stimuli",
    "packaged_photographs",
    "population_from_scan",
    "prepare_stimuli",
    "save_scan",
    "scan_with_neurons",
    "simulate_scan",
    "simulated_recording_target",
    "single_trials",
    "target_from_scan",
    "target_from_scans",
]
