"""Accuracy under the corruptions of CIFAR-10-C, and the mean corruption error (Hendrycks & Dietterich 2019)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from neuroprior.modes import evaluating, like
from neuroprior.robustness.corruptions.kinds import (
    SEVERITIES,
    USUAL_CORRUPTIONS,
    CorruptionKind,
    check_kinds,
    corrupted_pixels,
    eight_bit,
)
from neuroprior.robustness.images import Images, Labels, checked_images, logits_of
from neuroprior.types import Float64, InputError


@dataclass(frozen=True, slots=True, eq=False)
class CorruptionCurve:
    """Accuracy (0 to 1) under each kind of corruption at each severity, over `n` images."""

    kinds: tuple[CorruptionKind, ...]
    severities: tuple[int, ...]
    accuracy: Float64[np.ndarray, "kind severity"]
    n: int

    def of_kinds(self) -> dict[CorruptionKind, float]:
        """mean_s accuracy: of each kind, over its severities."""
        return dict(zip(self.kinds, self.accuracy.mean(1).tolist(), strict=True))

    def mean_corruption_error(self, baseline: "CorruptionCurve | None" = None) -> float:
        """mean_c mean_s E(c, s), or, with a `baseline`, mean_c (sum_s E(c, s) / sum_s E_baseline(c, s)).

        E = 1 - accuracy. Over those of the 15 usual kinds that were measured, never the 4 extra ones; what is published
        is of all 15, at all 5 severities. Raises `InputError` where none was measured, where the baseline is of other
        kinds, severities or numbers of images, and where it makes no error.
        """
        usual = [kind for kind in self.kinds if kind in USUAL_CORRUPTIONS]
        if not usual:
            raise InputError("corruptions: none of the 15 usual kinds was measured, the mean error is of these alone")
        error = self._errors(usual)
        if baseline is None:
            return float(np.mean(error))
        missing = [kind for kind in usual if kind not in baseline.kinds]
        if missing or (baseline.severities, baseline.n) != (self.severities, self.n):
            lacks = f" without {', '.join(missing)}" if missing else ""
            raise InputError(
                f"corruptions: the baseline has {baseline.n} images, severities {list(baseline.severities)}{lacks}, "
                f"this curve has {self.n}, {list(self.severities)}; measure both alike"
            )
        theirs = baseline._errors(usual)
        if not bool((theirs > 0).all()):
            perfect = usual[int(theirs.argmin())]
            raise InputError(f"corruptions: the baseline makes no error under {perfect}; nothing to be divided by")
        return float(np.mean(error / theirs))

    def _errors(self, kinds: Sequence[CorruptionKind]) -> np.ndarray:
        rows = [self.kinds.index(kind) for kind in kinds]
        errors: np.ndarray = 1 - self.accuracy[rows].mean(1)
        return errors


def corruption_accuracy(
    model: nn.Module,
    images: Images,
    labels: Labels,
    *,
    kinds: Sequence[CorruptionKind] | CorruptionKind = USUAL_CORRUPTIONS,
    severities: Sequence[int] | int = SEVERITIES,
    seed: int = 0,
    batch_size: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> CorruptionCurve:
    """Accuracy on `corrupted(x, kind, severity, seed)` for each kind and severity.

    Images in [0, 1], gray or RGB. Every network meets the same corrupted images, and an image the same ones in any
    subset, batch or order. The model is evaluated in evaluation mode and left as it was. `progress`: called with how
    many images have been looked at, of all kinds and severities.
    Raises `InputError` for images or labels that do not fit, and for kinds or severities that there are not.
    """
    images, labels = checked_images("corruptions", images, labels)
    kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    severities = tuple(np.atleast_1d(severities).tolist())
    check_kinds(kinds, severities)
    pixels = eight_bit(images)
    native = like(model)
    right = np.zeros((len(kinds), len(severities)), dtype=np.int64)
    seen, total = 0, len(pixels) * right.size
    with torch.inference_mode(), evaluating(model):
        for start in range(0, len(pixels), batch_size):
            batch = pixels[start : start + batch_size]
            wanted = labels[start : start + batch_size].to(native.device)
            for row, column in np.ndindex(right.shape):
                shown = corrupted_pixels(batch, kinds[row], severities[column], seed).to(native)
                right[row, column] += int((logits_of("corruptions", model, shown).argmax(1) == wanted).sum())
                seen += len(batch)
                if progress is not None:
                    progress(seen, total)
    return CorruptionCurve(kinds, severities, right / len(pixels), len(pixels))
