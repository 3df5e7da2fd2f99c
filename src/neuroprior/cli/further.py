"""What `neuroprior robustness` measures beside smallest perturbations: radii, corruptions, masked gradients."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import neuroprior as npr
from neuroprior.cli.progress import Progress
from neuroprior.cli.tables import print_table

if TYPE_CHECKING:
    import torch
    from torch import nn

    from neuroprior.robustness import CorruptionCurve, Masking, RadiusAccuracy, Victim

_WITH_RADII = ("linf", "l2", "l1")


def radii_of(given: str | None, norms: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """`linf:0.0078,l2:0.5`, or `0.002,0.004` where one norm is asked: radii by norm. Raises `InputError` for others."""
    found: dict[str, tuple[float, ...]] = {}
    usual = [norm for norm in norms if norm in _WITH_RADII]
    for part in given.split(",") if given is not None else ():
        norm, colon, value = part.strip().rpartition(":")
        if not colon and len(usual) == 1:
            norm = usual[0]
        try:
            radius = float(value)
        except ValueError:
            radius = math.nan
        if norm not in _WITH_RADII or not 0 < radius < math.inf:
            raise npr.InputError(f"--radii {part}: give NORM:RADIUS, e.g. linf:0.0078, of {', '.join(_WITH_RADII)}")
        found[norm] = (*found.get(norm, ()), radius)
    return found


@dataclass(frozen=True, slots=True)
class Further:
    """What is asked; none, None or False where it is not."""

    radii: Mapping[str, tuple[float, ...]]
    strength: Literal["quick", "standard"]
    corruptions: bool
    masking: float | None
    seed: int

    def check(self, norms: Sequence[str], images: "torch.Tensor") -> None:
        """Raise `InputError` for what cannot be asked, before anything is measured."""
        if self.corruptions:
            from neuroprior.robustness import corrupted

            corrupted(images[:1], "brightness", 1, 0)  # its own words, for images that are too small
        if self.masking is not None and not set(norms) & {"linf", "l2"}:
            raise npr.InputError("--masking: is asked in linf or l2; add --norm linf or l2")
        if self.masking is not None and not self.masking > 0:
            raise npr.InputError(f"--masking {self.masking:g}: give a radius above 0, e.g. 0.008")

    def measure(
        self,
        name: str,
        network: "nn.Module",
        victim: "Victim",
        images: "torch.Tensor",
        labels: "torch.Tensor",
        norms: Sequence[str],
    ) -> "Measured":
        """Measure what is asked of a network, one after the other; `victim`: the same one, as attacks see it."""
        from neuroprior.robustness import accuracy_under_attack, corruption_accuracy, masking_report

        under_attack, curve, masks = [], None, None
        with Progress() as progress:
            for norm, radii in self.radii.items():
                left = accuracy_under_attack(
                    victim,
                    images,
                    labels,
                    radii,
                    norm=norm,  # type: ignore[arg-type]
                    seed=self.seed,
                    strength=self.strength,
                    progress=lambda part, _, norm=norm: progress.update(f"radii {norm}", "attacking", part),  # type: ignore[misc]
                )
                under_attack.append(left)
            if self.corruptions:
                curve = corruption_accuracy(
                    network,
                    images,
                    labels,
                    seed=self.seed,
                    batch_size=victim.batch_size,
                    progress=lambda done, of: progress.update("corruptions", "measuring", done / of),
                )
            if self.masking is not None:
                (masks,) = masking_report(
                    {name: victim},
                    images,
                    labels,
                    norm="linf" if "linf" in norms else "l2",
                    radius=self.masking,
                    seed=self.seed,
                    progress=lambda part, _: progress.update("masking", "comparing attacks", part),
                )
        return Measured(tuple(under_attack), curve, masks)


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """What came out; None where it was not asked."""

    under_attack: tuple["RadiusAccuracy", ...]
    corruptions: "CorruptionCurve | None"
    masking: "Masking | None"

    def show(self) -> None:
        """Print tables."""
        for found in self.under_attack:
            print()
            header = (
                f"radius in {found.norm}",
                "images",
                "wrong already",
                "fooled",
                "failed checks",
                "accuracy",
            )
            rows = [
                (
                    f"{one.radius:.4g}",
                    str(one.n),
                    str(one.already_wrong),
                    ", ".join(f"{stage} {count}" for stage, count in one.fooled if count) or "-",
                    str(one.failed_checks),
                    f"{100 * one.accuracy:.1f} %",
                )
                for one in found.at
            ]
            print_table(header, rows)
        if self.corruptions is not None:
            print()
            kinds = [(str(kind), f"{100 * right:.1f} %") for kind, right in self.corruptions.of_kinds().items()]
            print_table(("corruption", f"accuracy of {self.corruptions.n}, mean over severities"), kinds)
            print(f"Mean corruption error: {100 * self.corruptions.mean_corruption_error():.1f} %.")
        if self.masking is not None:
            print()
            asked = f"{self.masking.norm}, radius {self.masking.radius:.4g}, {self.masking.n} images"
            print(f"{self.masking.model} ({asked}): {self.masking.verdict}")

    def as_json(self) -> dict[str, Any]:
        """As `--json` has it: null where it was not asked, and for what is infinite."""
        curve, masks = self.corruptions, self.masking
        return {
            "under_attack": [finite(asdict(found)) for found in self.under_attack] or None,
            "corruptions": None
            if curve is None
            else {
                "severities": list(curve.severities),
                "accuracy": dict(zip(curve.kinds, curve.accuracy.tolist(), strict=True)),
                "mean_corruption_error": curve.mean_corruption_error(),
                "n": curve.n,
            },
            "masking": None
            if masks is None
            else finite({**asdict(masks), "masked": masks.masked, "verdict": masks.verdict}),
        }


def finite(value: Any) -> Any:
    """The same with None, JSON's null, for numbers that are not finite."""
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
