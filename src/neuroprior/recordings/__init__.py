"""Recordings: from files, or from a simulated mouse, to a checked `Scan`, its population and its similarity target."""

from neuroprior.recordings.alignment import CLEAR, LAGS
from neuroprior.recordings.check import ScanCheck, check_scan
from neuroprior.recordings.formats import SCAN_FORMATS, ScanFormat, load_scan, save_scan
from neuroprior.recordings.photographs import PreparedStimuli, prepare_stimuli
from neuroprior.recordings.pilot import RecordingPlan, plan_recording
from neuroprior.recordings.population import (
    population_from_scan,
    scan_with_neurons,
    target_from_scan,
    target_from_scans,
)
from neuroprior.recordings.simulate import (
    STILL,
    Behaviour,
    Noise,
    Rates,
    SimulatedScan,
    Truth,
    Viewing,
    load_truth,
    save_truth,
    sessions,
    simulate_from_rates,
    simulate_scan,
)
from neuroprior.recordings.stability import ScanStability, growth_with_repeats, scan_stability
from neuroprior.recordings.stability_file import load_stability, save_stability
from neuroprior.recordings.stimuli import load_stimuli, packaged_photographs

__all__ = [
    "CLEAR",
    "LAGS",
    "SCAN_FORMATS",
    "STILL",
    "Behaviour",
    "Noise",
    "PreparedStimuli",
    "Rates",
    "RecordingPlan",
    "ScanCheck",
    "ScanFormat",
    "ScanStability",
    "SimulatedScan",
    "Truth",
    "Viewing",
    "check_scan",
    "growth_with_repeats",
    "load_scan",
    "load_stability",
    "load_stimuli",
    "load_truth",
    "packaged_photographs",
    "plan_recording",
    "population_from_scan",
    "prepare_stimuli",
    "save_scan",
    "save_stability",
    "save_truth",
    "scan_stability",
    "scan_with_neurons",
    "sessions",
    "simulate_from_rates",
    "simulate_scan",
    "target_from_scan",
    "target_from_scans",
]
