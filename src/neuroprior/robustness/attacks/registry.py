"""Which attacks there are, by name, and the settings each is run with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, get_args, runtime_checkable

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
from neuroprior.robustness.attacks.sigma_zero import SigmaZero
from neuroprior.robustness.attacks.sparse_fool import SparseFool
from neuroprior.types import InputError

AttackName: TypeAlias = str
"""A name in `ATTACKS`."""


@runtime_checkable
class Attack(Protocol):
    """An attack with one setting: it asks the `Attempt` it is given, which keeps what is found."""

    @property
    def name(self) -> str:
        """As the ledger and recipes name it."""
        ...

    @property
    def norms(self) -> tuple[Norm, ...]:
        """The norms that it can minimise."""
        ...

    @property
    def setting(self) -> str:
        """As the ledger names it."""
        ...

    @property
    def most_gradients(self) -> int:
        """What a sample costs at worst."""
        ...

    def __call__(self, attempt: Attempt) -> None:
        """Run it on every sample of the batch."""
        ...


@dataclass(frozen=True, slots=True)
class Grid:
    """The settings of one attack: `quick` where each may start from what earlier ones found, `exhaustive` the paper's.

    Only of PGD and Brendel & Bethge does the paper print a grid: the others' are ours.
    """

    quick: tuple[Attack, ...]
    exhaustive: tuple[Attack, ...]


_PAPER_STEPS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_PAPER_ITERATIONS = (10, 30, 50, 100, 200)
_APGD_LOSSES: tuple[Literal["margin", "ce", "dlr"], ...] = ("margin", "ce", "dlr")
_PAPER_RATES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)

ATTACKS: dict[str, Grid] = {
    "pgd": Grid(
        (PGD(0.1, 30), PGD(0.025, 100)),
        tuple(PGD(step, steps) for step in _PAPER_STEPS for steps in _PAPER_ITERATIONS),
    ),
    "adam_pgd": Grid(
        (AdamPGD(0.1, 30),),
        tuple(AdamPGD(step, steps) for step in _PAPER_STEPS[3:] for steps in _PAPER_ITERATIONS),
    ),
    "cw": Grid(
        (CarliniWagner(),),
        tuple(CarliniWagner(9, 1000, pace) for pace in (0.03, 0.1, 0.3)),
    ),
    "ddn": Grid(
        (DDN(100),),
        tuple(DDN(steps, gamma) for steps in (100, 300, 1000) for gamma in (0.01, 0.05)),
    ),
    "brendel_bethge": Grid(
        (BrendelBethge(1e-3, 100), BrendelBethge(1e-4, 100)),
        tuple(BrendelBethge(rate, 1000, patience=1000) for rate in _PAPER_RATES),
    ),
    "jsma": Grid(
        (JSMA(),),
        tuple(JSMA(theta, 9) for theta in (0.1, 0.3, 1.0)),
    ),
    "sparse_fool": Grid(
        (SparseFool(1.0),),
        tuple(SparseFool(lambda_, 50, 50) for lambda_ in (1.0, 2.0, 3.0)),
    ),
    "fmn": Grid(
        (FMN(100),),
        tuple(FMN(steps, alpha) for steps in (100, 300, 1000) for alpha in (0.3, 1.0, 3.0)),
    ),
    "sigma_zero": Grid(
        (SigmaZero(200),),
        tuple(SigmaZero(steps, eta) for steps in (100, 300, 1000) for eta in (0.3, 1.0)),
    ),
    "apgd": Grid(
        (APGD(50),),
        tuple(APGD(steps, loss) for steps in (50, 100) for loss in _APGD_LOSSES),
    ),
    "boundary": Grid(
        (Boundary(2000),),
        tuple(Boundary(queries) for queries in (2000, 10_000)),
    ),
}


def chosen(attacks: Sequence[str | Attack], norm: str, *, exhaustive: bool) -> tuple[Attack, ...]:
    """The attacks with their settings, in the order asked for; `InputError` for one unknown or of another norm."""
    if norm not in get_args(Norm):
        raise InputError(f"norm {norm!r} is not one of {', '.join(get_args(Norm))}; mend the name")
    settings: list[Attack] = []
    for asked in [attacks] if isinstance(attacks, str) else attacks:
        if isinstance(asked, str):
            grid = ATTACKS.get(asked)
            if grid is None:
                raise InputError(f"attack {asked!r} is not one of {', '.join(ATTACKS)}; mend the name")
            settings += grid.exhaustive if exhaustive else grid.quick
        else:
            settings.append(asked)
    for attack in settings:
        if norm not in attack.norms:
            fit = [name for name, grid in ATTACKS.items() if norm in grid.quick[0].norms]
            raise InputError(
                f"attack {attack.name}: minimises {' and '.join(attack.norms)}, not {norm}; "
                f"for {norm} there are {', '.join(fit) or 'none'}"
            )
    if not settings:
        raise InputError("attacks: none given; name at least one")
    return tuple(settings)
