"""Which stimuli a step shows to the network, and how the network takes them."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from neuroprior.modes import like
from neuroprior.regularizer.drawn import Drawn
from neuroprior.types import Float, InputError, Int64, Stimuli

HELD_BYTES = 256 * 2**20
"""Arrays up to this size are copied to the network's device; larger ones stay where they are, on disk if mapped."""

_PERMUTED = 1 << 16  # up to so many stimuli are permuted whole to draw from; of more, single ones are drawn


class StimulusSampler(nn.Module):
    """Draws stimuli without replacement within a step, and gives them as floats in [0, 1] as the network wants them.

    `size`: height and width that the stimuli are resized to (bilinear, antialiased), for networks that take one size
    only. `preprocess`: what is done to them last. `channels`: gray is repeated so often (found by `fit`). Its state is
    that of the draws. Raises `InputError` for a step of fewer than 2 stimuli, or of more than there are.
    """

    def __init__(
        self,
        stimuli: Stimuli,
        per_step: int,
        *,
        size: tuple[int, int] | None = None,
        preprocess: Callable[[torch.Tensor], torch.Tensor] | None = None,
        seed: int = 0,
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        if not 2 <= per_step <= len(stimuli):
            raise InputError(
                f"regularizer: stimuli_per_step is {per_step}; it must be from 2 to {len(stimuli)}, all there are"
            )
        self.per_step = per_step
        self.channels = 1
        self.size = size
        self.preprocess = preprocess
        self._stimuli = stimuli
        self.random = torch.Generator().manual_seed(seed)
        held = stimuli.pixels.nbytes <= HELD_BYTES
        # A buffer moves with `.to(device)`; it is not saved, since it is the user's own; a copy, since that is frozen.
        self._pixels: torch.Tensor | None
        self.register_buffer(
            "_pixels", torch.from_numpy(stimuli.pixels.copy()).to(device) if held else None, persistent=False
        )

    def __len__(self) -> int:
        return len(self._stimuli)

    def draw(self) -> Int64[torch.Tensor, " stimulus"]:
        """Return the rows of the next step's stimuli. On the CPU, so that a seed means the same on every device."""
        n = len(self)
        if n <= _PERMUTED or 2 * self.per_step > n:
            return torch.randperm(n, generator=self.random)[: self.per_step]
        drawn: dict[int, None] = {}
        while len(drawn) < self.per_step:
            drawn.update(dict.fromkeys(torch.randint(n, (self.per_step,), generator=self.random).tolist()))
        return torch.tensor(list(drawn)[: self.per_step])

    def given(self, rows: Int64[torch.Tensor, " some"]) -> Drawn:
        """Return what the device needs of these rows (of `draw`): the rows, or the pixels where it holds none."""
        if self._pixels is not None:
            return {"stimuli": rows}
        return {"pixels": torch.from_numpy(np.array(self._stimuli.pixels[rows.numpy()]))}

    def shown(self, given: Drawn, model: nn.Module) -> Float[torch.Tensor, "stimulus channel h w"]:
        """Return the stimuli that were `given`, taken to the device, as the model wants them."""
        pixels = given["pixels"] if self._pixels is None else self._pixels[given["stimuli"].to(self._pixels.device)]
        return self._prepared(pixels, model)

    def images(self, rows: slice, model: nn.Module) -> Float[torch.Tensor, "stimulus channel h w"]:
        """Return the stimuli of a range of rows, as the model wants them."""
        held = self._pixels
        return self._prepared(
            torch.from_numpy(np.array(self._stimuli.pixels[rows])) if held is None else held[rows], model
        )

    def _prepared(self, pixels: torch.Tensor, model: nn.Module) -> torch.Tensor:
        """On the model's device and in its type."""
        works_in = like(model)
        return self.fitted((pixels.to(works_in.device)[:, None].float() / 255).to(works_in.dtype))

    def fitted(self, images: Float[torch.Tensor, "image channel h w"]) -> Float[torch.Tensor, "image c y x"]:
        """Return images in [0, 1] in the size and channels that the network takes, preprocessed."""
        if self.size is not None:
            images = F.interpolate(images, self.size, mode="bilinear", antialias=True, align_corners=False)
        if images.shape[1] == 1:
            images = images.expand(-1, self.channels, -1, -1)
        return images if self.preprocess is None else self.preprocess(images)

    def fit(self, model: nn.Module, attempt: Callable[[torch.Tensor], object]) -> None:
        """Find how many channels the model takes: gray, or else three of the same. `attempt` runs it on two stimuli.

        Raises `InputError` where it takes neither.
        """
        first: Exception | None = None
        for channels in (1, 3):
            self.channels = channels
            images = self.images(slice(0, 2), model)
            try:
                attempt(images)
            except (RuntimeError, AssertionError, ValueError) as error:
                if isinstance(error, InputError):
                    raise
                first = first or error
                if self.preprocess is not None:
                    break  # it gives what its author wants to be given
            else:
                return
        self.channels = 1
        shape = tuple(self.images(slice(0, 2), model).shape[1:])
        said = (str(first).strip() or type(first).__name__).splitlines()[0][:120]
        raise InputError(
            f"regularizer: the model cannot take stimuli of {shape}, nor in three channels ({said}); give the size it "
            "takes (size=(224, 224)), or fit them yourself: preprocess=, a function that resizes and normalises"
        )

    def get_extra_state(self) -> torch.Tensor:
        """The state of the draws."""
        return self.random.get_state()

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Go on drawing from there."""
        self.random.set_state(state.cpu())
