"""One look a condition, the same in every report: colour-blind safe, and told apart by line and marker too."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Look:
    """How a condition is drawn: `color` as #rrggbb, `marker` and `line` in matplotlib's words."""

    color: str
    marker: str
    line: str | tuple[int, tuple[int, ...]]


# Okabe & Ito's eight, less their yellow (unreadable on white), and four of Tol's "muted".
LOOKS = {
    "none": Look("#222222", "o", "-"),
    "neural_model": Look("#0072B2", "s", "-"),
    "neural_data": Look("#56B4E9", "D", "--"),
    "shuffle": Look("#D55E00", "^", "--"),
    "blur": Look("#009E73", "v", "-."),
    "vgg": Look("#CC79A7", "P", "-"),
    "pixel": Look("#E69F00", "X", ":"),
    "lowpass": Look("#999933", "<", "-."),
    "random_twin": Look("#882255", ">", "--"),
    "exposure": Look("#777777", "*", ":"),
    "spectrum": Look("#332288", "h", (0, (5, 1, 1, 1, 1, 1))),
}

# For conditions that a recipe names itself, in the order in which they come.
_FURTHER = (
    Look("#AA4499", "p", "-"),
    Look("#117733", "d", "--"),
    Look("#661100", "H", "-."),
    Look("#6699CC", "8", ":"),
)


def looks_of(names: Iterable[str]) -> dict[str, Look]:
    """Give every condition its look: the fixed one where the name has one, else the next of a short cycle."""
    looks: dict[str, Look] = {}
    unnamed = 0
    for name in names:
        if name in LOOKS:
            looks[name] = LOOKS[name]
        else:
            looks[name] = _FURTHER[unnamed % len(_FURTHER)]
            unnamed += 1
    return looks
