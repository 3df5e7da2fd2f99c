"""ResNet18 and ResNet34 as the paper trains them: 7x7 stem of stride 1, no max-pooling, average pooling at the end."""

from contextlib import nullcontext
from functools import partial
from typing import Literal

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from neuroprior.classifier.front import PixelScaling
from neuroprior.classifier.normalised import looked_at, normalised_relu
from neuroprior.modes import gone_through_again
from neuroprior.types import Float

Architecture = Literal["resnet18", "resnet34"]
_BLOCKS: dict[Architecture, tuple[int, int, int, int]] = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}


class BasicBlock(nn.Module):
    """relu(bn(conv(relu(bn(conv(x))))) + shortcut(x)); the shortcut is 1x1 where size or width change."""

    def __init__(self, in_channels: int, channels: int, stride: int, *, checkpointing: bool = False) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the block; checkpointed, only its input is kept, and the rest computed again for gradients."""
        if self.checkpointing and x.requires_grad and torch.is_grad_enabled():
            found: torch.Tensor = checkpoint(
                self._whole,
                x,
                use_reentrant=False,
                context_fn=lambda: (nullcontext(), gone_through_again(self)),
                preserve_rng_state=False,  # nothing here is random
            )
            return found
        return self._whole(x)

    def _whole(self, x: torch.Tensor) -> torch.Tensor:
        out = normalised_relu(self.conv1(x), self.norm1)
        return normalised_relu(self.conv2(out), self.norm2, self.shortcut(x))


class Stem(nn.Sequential):
    """relu(bn(conv(x)))."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, channels, 7, 1, 3, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the stem; its ReLU by itself only where somebody looks at it."""
        conv, norm, relu = self
        if type(relu) is not nn.ReLU or looked_at(relu) or not isinstance(norm, nn.BatchNorm2d):
            by_itself: torch.Tensor = super().forward(x)  # type: ignore[no-untyped-call] # torch's stub
            return by_itself
        return normalised_relu(conv(x), norm)


class ResNet(nn.Module):
    """Pixels in [0, 1], `(image, channel, height, width)` of any size, to logits.

    `front` (the identity, or a blur), `scaling`, `stem`, `stage1` to `stage4` of `width`, 2, 4 and 8 times `width`
    channels, average pooling over what is left of space, `head`. `checkpointing`: for large networks, less than
    half of what a training step keeps, for a third more time.
    """

    stages = ("stem", "stage1", "stage2", "stage3", "stage4")
    """The layers that the paper compares: 1, 5, 9, 13, 17 of ResNet18, and the same places of ResNet34."""

    def __init__(
        self,
        architecture: Architecture = "resnet18",
        *,
        width: int = 64,
        classes: int = 10,
        channels: int = 1,
        front: nn.Module | None = None,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.front = nn.Identity() if front is None else front
        self.scaling = PixelScaling()
        self.stem = Stem(channels, width)
        blocks, stage = _BLOCKS[architecture], partial(_stage, checkpointing=checkpointing)
        self.stage1 = stage(width, width, blocks[0], stride=1)
        self.stage2 = stage(width, 2 * width, blocks[1], stride=2)
        self.stage3 = stage(2 * width, 4 * width, blocks[2], stride=2)
        self.stage4 = stage(4 * width, 8 * width, blocks[3], stride=2)
        self.head = nn.Linear(8 * width, classes)

    def forward(self, images: Float[torch.Tensor, "image channel h w"]) -> Float[torch.Tensor, "image class"]:
        """Classify."""
        logits: torch.Tensor = self.head(self.core(images))
        return logits

    def core(self, images: Float[torch.Tensor, "image channel h w"]) -> Float[torch.Tensor, "image feature"]:
        """Return what the head sees: the last stage, averaged over space."""
        x = self.stem(self.scaling(self.front(images)))
        features: torch.Tensor = self.stage4(self.stage3(self.stage2(self.stage1(x)))).mean(dim=(2, 3))
        return features


def _stage(in_channels: int, channels: int, blocks: int, stride: int, *, checkpointing: bool) -> nn.Sequential:
    first = BasicBlock(in_channels, channels, stride, checkpointing=checkpointing)
    others = (BasicBlock(channels, channels, 1, checkpointing=checkpointing) for _ in range(blocks - 1))
    return nn.Sequential(first, *others)
