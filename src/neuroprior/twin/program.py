"""A twin as a program: one file that predicts wherever PyTorch runs, without this package."""

import copy
import io
import json
import os
from typing import Literal, get_args

import torch
from torch import nn

from neuroprior.twin.model import EncodingModel, Twin
from neuroprior.twin.predict import at_neutral, known_scale
from neuroprior.twin.saved import replacing
from neuroprior.types import Float, InputError

__all__ = ["ProgramConditions", "twin_program"]

ProgramConditions = Literal["neutral", "given"]


def twin_program(
    twin: Twin,
    path: str | os.PathLike[str],
    *,
    conditions: ProgramConditions = "neutral",
    pixel_scale: tuple[float, float] | None = None,
) -> None:
    """Write a `torch.export` program (.pt2) that predicts the twin's responses from pixels: `rho(images, ...)`.

    ```
    rho = torch.export.load("twin.pt2").module()
    responses = rho(images)                   # conditions "neutral": mean behaviour and pupil position
    responses = rho(images, behavior, pupil)  # conditions "given": those of each trial, in the recorded units
    ```

    `images`: float32 `(image, 1, height, width)`, 0..255, any number of them; z-scored inside with the twin's mean and
    standard deviation, or `pixel_scale` for a twin whose file does not hold them. `behavior`: `(image, channel)`,
    `pupil`: `(image, 2)`. Beside the program, `twin.json` says what it takes and gives (`extra_files` of its reader).
    Raises `InputError` for a scale that is neither in the twin nor given, unknown conditions, and a disk that cannot
    be written.
    """
    if conditions not in get_args(ProgramConditions):
        raise InputError(f"program: conditions is {conditions!r}; choose {', '.join(get_args(ProgramConditions))}")
    mean, std = known_scale(twin, pixel_scale)
    n = torch.export.Dim("image", min=1)
    height, width = twin.input_size
    # two images to trace it with: of one, the program would take one alone
    shown = (torch.zeros(2, 1, height, width), torch.zeros(2, len(twin.neutral_behavior)), torch.zeros(2, 2))
    program = _FromPixels(twin.model, mean, std) if conditions == "given" else _AtNeutral(twin, mean, std)
    # a copy laid out as a file is: the writer doubts weights that are channels last
    program = copy.deepcopy(program).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload] # not in the stub
    given = shown if conditions == "given" else shown[:1]
    with torch.no_grad():
        # strict: read from the code, as `len` of a tensor would otherwise be the 2 of these
        exported = torch.export.export(program.eval(), given, dynamic_shapes=tuple({0: n} for _ in given), strict=True)
    held = io.BytesIO()
    torch.export.save(exported, held, extra_files={"twin.json": json.dumps(_said(twin, conditions, mean, std))})
    with replacing(path) as temporary:
        temporary.write_bytes(held.getbuffer())


class _FromPixels(nn.Module):
    """The model behind its z-scoring."""

    def __init__(self, model: EncodingModel, mean: float, std: float) -> None:
        super().__init__()
        self.model, self.mean, self.std = model, mean, std

    def forward(
        self,
        images: Float[torch.Tensor, "image 1 h w"],
        behavior: Float[torch.Tensor, "image channel"],
        pupil: Float[torch.Tensor, "image 2"],
    ) -> Float[torch.Tensor, "image neuron"]:
        """Predict responses, one trial an image."""
        rates: torch.Tensor = self.model((images - self.mean) / self.std, behavior, pupil)
        return rates


class _AtNeutral(nn.Module):
    """The same on trials on which the animal does what it does on average."""

    def __init__(self, twin: Twin, mean: float, std: float) -> None:
        super().__init__()
        self.rates = _FromPixels(twin.model, mean, std)
        behavior, pupil = at_neutral(twin, 1)
        self.register_buffer("behavior", behavior.clone())
        self.register_buffer("pupil", pupil.clone())
        self.behavior: torch.Tensor
        self.pupil: torch.Tensor

    def forward(self, images: Float[torch.Tensor, "image 1 h w"]) -> Float[torch.Tensor, "image neuron"]:
        """Predict responses."""
        n = images.shape[0]
        rates: torch.Tensor = self.rates(images, self.behavior.expand(n, -1), self.pupil.expand(n, -1))
        return rates


def _said(twin: Twin, conditions: str, mean: float, std: float) -> dict[str, object]:
    return {
        "twin": twin.name,
        "digest": twin.digest,
        "conditions": conditions,
        "images": ["image", 1, *twin.input_size],
        "pixels": "0..255",
        "pixel_mean": mean,
        "pixel_std": std,
        "behavior": list(twin.behavior_names) or [f"channel {k}" for k in range(len(twin.neutral_behavior))],
        "neutral_behavior": list(twin.neutral_behavior),
        "neutral_pupil": list(twin.neutral_pupil),
        "responses": ["image", twin.n_neurons],
    }
