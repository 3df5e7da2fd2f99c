"""What goes wrong silently in a training with a second loss, noticed."""

import warnings
from collections.abc import Sequence

import torch

from neuroprior.regularizer.loss import LARGEST_SIMILARITY

_NEARLY_ALL = 0.9  # of the pairs
_PATIENCE = 20  # steps with a gradient but without a change of theta, after which its absence is pointed out
_USER = 8  # the user's own line, beyond nn.Module's, the compiler's and the regulariser's


class Watch:
    """Says once what a user would want to know, and stops where going on is no use."""

    def __init__(self) -> None:
        self._theta_unmoved = 0
        self._saturation_said = False

    def theta(self, theta: torch.nn.Parameter, n_targets: int) -> None:
        """Warn once when theta gets gradients but no optimiser moves it."""
        if theta.grad is None or len(theta) == n_targets or self._theta_unmoved < 0:
            return
        if bool(theta.detach().abs().max() > 0):
            self._theta_unmoved = -1  # it moves: nothing to say, ever
            return
        self._theta_unmoved += 1
        if self._theta_unmoved >= _PATIENCE:
            self._theta_unmoved = -1
            warnings.warn(
                "theta, the mix of layers, gets gradients but never changes: is it missing from the optimiser? "
                "SGD([*model.parameters(), *reg.parameters()], ...)",
                UserWarning,
                stacklevel=_USER,
            )

    def __call__(self, health: torch.Tensor, names: Sequence[str], step: int, *, closely: bool) -> None:
        """Look at what `health_of` found of the taps `names`; this waits for a GPU.

        Raises `FloatingPointError`, naming step and tap, where a similarity is no longer finite, or 0 of all stimuli.
        `closely`: also where a layer tells no stimulus from another, and warns once when the network finds nearly all
        images the same: the clamped loss has no gradient there. (A few stimuli may happen to be the same.)
        """
        said = health.tolist()
        k = len(names)
        for finite, alive, differ, name in zip(said[:k], said[k : 2 * k], said[2 * k : 3 * k], names, strict=True):
            if not finite:
                raise _failed(name, "are no longer finite", step)
            if not alive or (closely and not differ):
                raise _failed(name, "are the same for all stimuli (zero variance)", step)
        if closely and max(said[3 * k :]) > _NEARLY_ALL and not self._saturation_said:
            self._saturation_said = True
            warnings.warn(
                "the network's similarity is +-1 for nearly all pairs of stimuli, where the loss has no gradient: its "
                "features have collapsed; lower the learning rate or alpha, or use batch norm",
                UserWarning,
                stacklevel=_USER,
            )


def health_of(
    features: Sequence[torch.Tensor], layers: Sequence[torch.Tensor], combined: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Return, of each tap, whether its S is finite, whether it is not 0, and whether its features differ between images
    (yes, where no features are given); then of each combined S, the share of pairs at the clamp. One tensor, so that
    one look is enough."""
    with torch.no_grad():
        own = [layer.diagonal() for layer in layers]
        finite = [torch.isfinite(s).all() for s in own]
        alive = [s.any() for s in own]
        differ = [(f != f[:1]).any() for f in features] or [torch.ones_like(flag) for flag in finite]
        # the diagonal always is at the clamp
        clamped = [((s.abs() >= LARGEST_SIMILARITY).sum() - len(s)) / (len(s) * (len(s) - 1)) for s in combined]
        return torch.stack([*(flag.float() for flag in (*finite, *alive, *differ)), *clamped])


def _failed(tap: str, what: str, step: int) -> FloatingPointError:
    return FloatingPointError(
        f"regularizer: the features of tap {tap!r} {what} at step {step}; lower the learning rate or alpha, "
        "and go on from the last state that was kept"
    )
