"""Targets, and which taps teach each: what the regulariser is given for one target or for several."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from neuroprior.regularizer.schedule import Alpha, checked_alpha
from neuroprior.types import AnyTarget, FactoredTarget, InputError, SimilarityTarget

TapChoice: TypeAlias = int | str | Sequence[str]


@dataclass(frozen=True, slots=True)
class Group:
    """A target, and the taps that are compared with it: `part` of theta, `at` these places among all taps."""

    name: str
    alpha: Alpha
    at: tuple[int, ...]
    part: slice

    def weight(self, step: int) -> float:
        """Return alpha at this step."""
        return checked_alpha(self.alpha(step)) if callable(self.alpha) else float(self.alpha)


def by_target(
    target: AnyTarget | Mapping[str, AnyTarget],
    taps: TapChoice | Mapping[str, TapChoice],
    alpha: Alpha | Mapping[str, Alpha],
) -> tuple[dict[str, AnyTarget], dict[str, TapChoice], dict[str, Alpha]]:
    """Return targets, taps and alphas by the targets' names. Raises `InputError` where the names do not match."""
    targets = dict(target) if isinstance(target, Mapping) else {"": target}
    if not targets:
        raise InputError("regularizer: no target given; pass at least one")
    for one in targets.values():
        if not isinstance(one, SimilarityTarget | FactoredTarget):
            raise InputError(
                f"regularizer: a target is a {type(one).__name__}; pass a SimilarityTarget (neuroprior.load_target, "
                "target_from_twin, target_from_scan), not its matrix"
            )
    for what, value in (("taps", taps), ("alpha", alpha)):
        if isinstance(value, Mapping) and set(value) != set(targets):
            raise InputError(f"regularizer: {what} are of {', '.join(value)}, but the targets of {', '.join(targets)}")
    if len(targets) > 1 and not isinstance(taps, Mapping):
        raise InputError(
            f"regularizer: say which taps each target teaches: taps={{{', '.join(f'{n!r}: [...]' for n in targets)}}}"
        )
    choices = dict(taps) if isinstance(taps, Mapping) else dict.fromkeys(targets, taps)
    alphas = dict(alpha) if isinstance(alpha, Mapping) else dict.fromkeys(targets, alpha)
    for value in alphas.values():
        if not callable(value):
            checked_alpha(value)
    return targets, {name: choices[name] for name in targets}, {name: alphas[name] for name in targets}
