"""Ways to fool a network: each a frozen dataclass of its settings, called with an `Attempt`."""

from neuroprior.robustness.attacks.attempt import Attempt
from neuroprior.robustness.attacks.brendel_bethge import BrendelBethge
from neuroprior.robustness.attacks.carlini_wagner import CarliniWagner
from neuroprior.robustness.attacks.ddn import DDN
from neuroprior.robustness.attacks.geometry import Norm
from neuroprior.robustness.attacks.pgd import PGD, AdamPGD
from neuroprior.robustness.attacks.registry import ATTACKS, Attack, AttackName, chosen

__all__ = [
    "ATTACKS",
    "DDN",
    "PGD",
    "AdamPGD",
    "Attack",
    "AttackName",
    "Attempt",
    "BrendelBethge",
    "CarliniWagner",
    "Norm",
    "chosen",
]
