"""Network -> measurements. Nothing here knows how a network was trained."""

from neuroprior.robustness.attacks import (
    ATTACKS,
    DDN,
    PGD,
    AdamPGD,
    Attack,
    AttackName,
    Attempt,
    BrendelBethge,
    CarliniWagner,
    Norm,
    chosen,
)
from neuroprior.robustness.audit import Audit, audit
from neuroprior.robustness.fixed_radius import LinfCurve, linf_accuracy, pgd_perturbation
from neuroprior.robustness.ledger import Ledger, Withstood
from neuroprior.robustness.noise import Clip, NoiseCurve, NoiseKind, draw_noise, noise_accuracy
from neuroprior.robustness.search import Cost, minimal_perturbations, search_cost
from neuroprior.robustness.victim import Outputs, Victim

__all__ = [
    "ATTACKS",
    "DDN",
    "PGD",
    "AdamPGD",
    "Attack",
    "AttackName",
    "Attempt",
    "Audit",
    "BrendelBethge",
    "CarliniWagner",
    "Clip",
    "Cost",
    "Ledger",
    "LinfCurve",
    "NoiseCurve",
    "NoiseKind",
    "Norm",
    "Outputs",
    "Victim",
    "Withstood",
    "audit",
    "chosen",
    "draw_noise",
    "linf_accuracy",
    "minimal_perturbations",
    "noise_accuracy",
    "pgd_perturbation",
    "search_cost",
]
