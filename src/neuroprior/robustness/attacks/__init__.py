"""Ways to fool a network: each a frozen dataclass of its settings, called with an `Attempt`."""

from neuroprior.robustness.attacks.apgd import APGD
from neuroprior.robustness.attacks.attempt import Attempt
from neuroprior.robustness.attacks.boundary import Boundary
from neuroprior.robustness.attacks.brendel_bethge import BrendelBethge
from neuroprior.robustness.attacks.carlini_wagner import CarliniWagner
from neuroprior.robustness.attacks.ddn import DDN
from neuroprior.robustness.attacks.fmn import FMN
from neuroprior.robustness.attacks.geometry import Norm
from neuroprior.robustness.attacks.jsma import JSMA
from neuroprior.robustness.attacks.pgd import PGD, AdamPGD
from neuroprior.robustness.attacks.registry import ATTACKS, Attack, AttackName, chosen
from neuroprior.robustness.attacks.sigma_zero import SigmaZero
from neuroprior.robustness.attacks.sparse_fool import SparseFool

__all__ = [
    "APGD",
    "ATTACKS",
    "DDN",
    "FMN",
    "JSMA",
    "PGD",
    "AdamPGD",
    "Attack",
    "AttackName",
    "Attempt",
    "Boundary",
    "BrendelBethge",
    "CarliniWagner",
    "Norm",
    "SigmaZero",
    "SparseFool",
    "chosen",
]
