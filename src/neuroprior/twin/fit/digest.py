"""What a fit is a function of: digests of scans, and of a fit to them."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from neuroprior.twin.architecture import TwinArchitecture
from neuroprior.twin.fit.settings import FitSettings
from neuroprior.types import Scan

__all__ = ["fit_digest", "scan_digest"]


def fit_digest(
    scans: Sequence[str], architecture: TwinArchitecture, settings: FitSettings, leave_out: Sequence[str]
) -> str:
    """SHA-256 of all that a fit is a function of: a checkpoint of another one is not gone on from.

    `scans`: the digest of each (`scan_digest`).
    """
    said = {
        "architecture": asdict(architecture),
        "settings": asdict(settings),
        "leave_out": sorted(leave_out),
        "scans": list(scans),
    }
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def scan_digest(scan: Scan) -> str:
    """SHA-256 of a scan's images, trials, responses and behaviour."""
    sha = hashlib.sha256(f"{scan.name} {scan.stimuli.digest} {scan.responses.shape}".encode())
    sha.update(np.ascontiguousarray(scan.trial_image).data)
    for start in range(0, len(scan.responses), 256):
        sha.update(np.ascontiguousarray(scan.responses[start : start + 256]).data)
    for part in (scan.behavior, scan.pupil_center, scan.neuron_xyz):
        sha.update(b"none" if part is None else np.ascontiguousarray(part).data)
    sha.update(" ".join(scan.tier.tolist()).encode())
    return sha.hexdigest()
