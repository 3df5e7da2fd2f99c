"""What goes wrong silently in a training with a second loss, noticed."""

import warnings
from collections.abc import Sequence

import torch

from neuroprior.regularizer.loss import LARGEST_SIMILARITY

_NEARLY_ALL = 0.9  # of the pairs
_PATIENCE = 20  # steps with a gradient but without a change of theta, after which its absence is pointed out
_USER = 7  # the user's own line, beyond nn.Module's, the compiler's and the regulariser's


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

    def saturation(self, similarity: torch.Tensor) -> None:
        """Warn once when the network finds nearly all images the same: the clamped loss has no gradient there."""
        if self._saturation_said:
            return
        n = len(similarity)
        clamped = int((similarity.detach().abs() >= LARGEST_SIMILARITY).sum()) - n  # the diagonal always is
        if clamped > _NEARLY_ALL * (n * n - n):
            self._saturation_said = True
            warnings.warn(
                "the network's similarity is +-1 for nearly all pairs of stimuli, where the loss has no gradient: its "
                "features have collapsed; lower the learning rate or alpha, or use batch norm",
                UserWarning,
                stacklevel=_USER,
            )

    def layers(self, names: Sequence[str], layers: Sequence[torch.Tensor], step: int) -> None:
        """Raise `FloatingPointError`, naming step and tap, where a similarity is no longer finite."""
        for name, similarity in zip(names, layers, strict=True):
            of_itself = similarity.detach().diagonal()
            if not bool(torch.isfinite(of_itself).all()):
                raise _failed(name, "are no longer finite", step)
            if not bool(of_itself.any()):
                raise _failed(name, "are the same for all stimuli (zero variance)", step)

    def features(self, names: Sequence[str], features: Sequence[torch.Tensor], step: int) -> None:
        """Raise `FloatingPointError`, naming step and tap, where a layer tells no stimulus from another any more."""
        for name, of_tap in zip(names, features, strict=True):
            if bool((of_tap == of_tap[:1]).all()):
                raise _failed(name, "are the same for all stimuli (zero variance)", step)


def _failed(tap: str, what: str, step: int) -> FloatingPointError:
    return FloatingPointError(
        f"regularizer: the features of tap {tap!r} {what} at step {step}; lower the learning rate or alpha, "
        "and go on from the last state that was kept"
    )
