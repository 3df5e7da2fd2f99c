"""What the second losses share that mix no layers and compare no similarities."""

import torch
from torch import nn

from neuroprior.modes import like, unwrapped
from neuroprior.regularizer.drawn import Drawn, on_device
from neuroprior.types import Float


class Unmixed(nn.Module):
    """A second loss without gamma. Its state is the count of its calls, beside what its modules hold."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model = (unwrapped(model),)  # in a tuple: nn.Module must not see it as a child
        self._calls = 0

    def forward(self) -> Float[torch.Tensor, ""]:
        """Draw, compute and look, in one call."""
        drawn = self.draw()
        device = like(self._model[0]).device
        if not drawn:
            return torch.zeros((), device=device)
        loss = self.loss_of(on_device(drawn, device))
        self.look()
        return loss

    def draw(self) -> Drawn:
        """Begin a call: return all that differs from the last one's; empty where it computes nothing."""
        raise NotImplementedError

    def loss_of(self, drawn: Drawn) -> Float[torch.Tensor, ""]:
        """Return the loss of what `draw` gave, taken to the device; nothing here waits for a GPU."""
        raise NotImplementedError

    def look(self) -> None:
        """End a call: raise where something went wrong in it."""

    @property
    def unweighted(self) -> torch.Tensor | None:
        """None: nothing is compared."""
        return None

    @property
    def tap_names(self) -> tuple[str, ...]:
        """None: no layers are mixed."""
        return ()

    @property
    def gamma(self) -> Float[torch.Tensor, " layer"]:
        """Empty: no layers are mixed."""
        return torch.zeros(0)

    def correlations(self) -> dict[str, float]:
        """No similarities are compared."""
        return {}

    def get_extra_state(self) -> dict[str, int]:
        """The count of calls."""
        return {"calls": self._calls}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Restore what `get_extra_state` gave."""
        self._calls = state["calls"]
