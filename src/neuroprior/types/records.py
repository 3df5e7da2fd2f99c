"""What was trained and what was measured on it, as it is kept."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class NetworkCard:
    """What a trained network was; saved as `card.json` beside its weights.

    `recipe_digest`: SHA-256 of the part of the recipe that made this network (recipes may share networks).
    """

    condition: str
    seed: int
    recipe_digest: str
    scores: Mapping[str, float]

    def to_json(self) -> str:
        """Serialise with sorted keys, so equal cards are equal bytes."""
        return json.dumps(asdict(self), indent=2, sort_keys=True)


AttackStatus = Literal[
    "right", "already_wrong", "quarantined", "found", "not_found", "no_better", "unverified", "unsound"
]
"""Of the clean image: `right`, `already_wrong`, or `quarantined`, where the network gives something not finite. Of an
attempt: `found`; `not_found`; `no_better`, nothing nearer than earlier ones on this sample; `unverified`, what was
found did not hold when it was checked again; `unsound`, it ended where the network gave something not finite."""


@dataclass(frozen=True, slots=True)
class AttackRecord:
    """One attempt to fool `model` on `sample`: the smallest perturbation found with one attack setting.

    `distance` is 0 for an image that was already wrong and inf where nothing was found; `verified` says that the
    adversarial was checked again: finite, in [0, 1], prediction differs at another batch size, norm recomputed in
    float64. `image`: digest of the sample's pixels and label. `alone`: nothing was known of other attempts, so
    that what was found is its own. `trace`: (forwards, gradients, distance) each time that
    the attempt came nearer, counted from its own beginning. `adversarial`: the values
    of the misclassified image, where it was to be kept and no other attempt came nearer.
    """

    model: str
    sample: str
    attack: str
    setting: str
    repetition: int
    norm: Literal["l0", "l1", "l2", "linf"]
    distance: float
    forwards: int
    gradients: int
    verified: bool
    status: AttackStatus = "found"
    image: str = ""
    alone: bool = True
    trace: tuple[tuple[int, int, float], ...] = ()
    adversarial: tuple[float, ...] | None = None
