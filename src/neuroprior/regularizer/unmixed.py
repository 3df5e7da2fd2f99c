"""What the second losses share that mix no layers and compare no similarities."""

import torch
from torch import nn

from neuroprior.types import Float


class Unmixed(nn.Module):
    """A second loss without gamma. Its state is the count of its calls, beside what its modules hold."""

    def __init__(self) -> None:
        super().__init__()
        self._calls = 0

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
