"""One look a condition, the same in every report: colour-blind safe, and told apart by line and marker too."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from neuroprior.experiment.results import ConditionCard


@dataclass(frozen=True, slots=True)
class Look:
    """How a condition is drawn: `color` as #rrggbb, `marker` and `line` in matplotlib's words, `filled` the marker."""

    color: str
    marker: str
    line: str | tuple[int, tuple[int, ...]]
    filled: bool = True

    @property
    def face(self) -> str:
        """Return the colour inside the marker."""
        return self.color if self.filled else "#ffffff"


# Okabe & Ito's eight, less their yellow (unreadable on white), and some of Tol's "muted".
LOOKS = {
    "none": Look("#222222", "o", "-"),
    "neural_model": Look("#0072B2", "s", "-"),
    "neural_data": Look("#56B4E9", "D", "--"),
    "user_matrix": Look("#9010E8", "p", "-"),
    "shuffle": Look("#D55E00", "^", "--"),
    "blur": Look("#009E73", "v", "-."),
    "vgg": Look("#CC79A7", "P", "-"),
    "pixel": Look("#E69F00", "X", ":"),
    "pixel_raw": Look("#7A5C3E", "8", "--"),
    "lowpass": Look("#999933", "<", "-."),
    "random_twin": Look("#882255", ">", "--"),
    "exposure": Look("#777777", "*", ":"),
    "spectrum": Look("#332288", "h", (0, (5, 1, 1, 1, 1, 1))),
    "regression": Look("#8C87FB", "d", "-."),
    "adversarial": Look("#860504", "H", "-"),
}

# For bases without a look of their own, in the order in which they come.
_FURTHER = (
    Look("#44AA99", "8", "-"),
    Look("#6699CC", "d", "--"),
    Look("#DD4477", "H", "-."),
)

_MARKERS = ("o", "^", "D", "v", "s", "P", "X", "<", ">", "h")
_STYLES: tuple[str | tuple[int, tuple[int, ...]], ...] = ((0, (6, 2)), (0, (1, 1)), (0, (4, 1, 1, 1)), (0, (2, 2)))


def looks_of(cards: Iterable[ConditionCard]) -> dict[str, Look]:
    """Give every condition, by name, its look: the fixed one of its base, else the next of a short cycle.

    A variant keeps its base's colour under markers and lines of its own, in the order in which variants come; with
    adversarial training on top, the marker is hollow.
    """
    looks: dict[str, Look] = {}
    own: dict[str, Look] = {}
    variants: Counter[tuple[str, bool]] = Counter()
    for card in cards:
        if card.base not in LOOKS and card.base not in own:
            own[card.base] = _FURTHER[len(own) % len(_FURTHER)]
        look = LOOKS.get(card.base) or own[card.base]
        on_top = card.adversarial and card.base != "adversarial"
        if on_top:
            look = replace(look, line=(0, (3, 1, 1, 1, 1, 1)), filled=False)
        if card.name not in (card.base, f"adversarial+{card.base}"):
            k = variants[card.base, on_top]
            variants[card.base, on_top] += 1
            others = [marker for marker in _MARKERS if marker != look.marker]
            look = replace(look, marker=others[k % len(others)], line=_STYLES[k % len(_STYLES)])
        looks[card.name] = look
    return looks
