"""What a condition's name says: `BASE[@key=value[,key=value...]]`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_COMBINED = "adversarial+"


@dataclass(frozen=True, slots=True)
class ConditionName:
    """`neural_model@alpha=2` taken apart; `base` may be a combination, `adversarial+neural_model`."""

    base: str
    options: Mapping[str, str]

    @property
    def kind(self) -> str:
        """Return the base without `adversarial+`: what a combination is compared with."""
        return self.base.removeprefix(_COMBINED)

    @property
    def combined(self) -> bool:
        """Say whether adversarial training comes on top of another condition."""
        return self.base.startswith(_COMBINED)


def parsed(name: str) -> ConditionName:
    """Take a condition's name apart; a value may hold commas (`taps=stem,layer1`), but no `,key=`."""
    base, _, options = name.partition("@")
    pairs = [part.partition("=") for part in re.split(r",(?=\w+=)", options) if part]
    return ConditionName(base, {key: value for key, _, value in pairs})
