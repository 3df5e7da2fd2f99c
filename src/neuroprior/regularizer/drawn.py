"""What a step is given: drawn on the processor, so that a seed means the same everywhere, and taken to the device."""

from collections.abc import Mapping
from typing import TypeAlias

import torch

Drawn: TypeAlias = dict[str, torch.Tensor]
"""Rows, offsets, pixels, numbers by name: all that differs from step to step."""


def on_device(drawn: Mapping[str, torch.Tensor], device: torch.device) -> Drawn:
    """Copy to the device without waiting for it: it goes on with the step before."""
    return {name: value.to(device, non_blocking=True) for name, value in drawn.items()}
