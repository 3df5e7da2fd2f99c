"""The network under attack, as every attack sees it: logits and gradients of images in [0, 1]."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import nn

from neuroprior.modes import evaluating, like
from neuroprior.robustness.images import logits_of
from neuroprior.types import Float, InputError, Int64

Outputs = Literal["logits", "probabilities"]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

_QUANTUM = 8
"""Batches are filled up to a multiple of this: with fewer rows other kernels run, and they round differently."""


@dataclass(slots=True, eq=False)
class Victim:
    """Any network, borrowed: evaluation mode, gradients for the images alone, at most `batch_size` images at a time.

    Images are float (image, channel, height, width) in [0, 1]. `bounds`: the pixel range that the network itself takes,
    as (0, 255). `preprocess`: what else stands before it, as normalisation; a module, on the network's device, is
    borrowed with it. A network that takes three channels is shown gray images three times; distances are then those of
    the gray image. `outputs`: with `probabilities`, their logarithm is attacked. `forwards` and `gradients` count
    images, fillers not among them.
    """

    model: nn.Module
    bounds: tuple[float, float] = (0.0, 1.0)
    preprocess: Callable[[torch.Tensor], torch.Tensor] | None = None
    outputs: Outputs = "logits"
    batch_size: int = 64
    channels: int | None = None
    forwards: int = field(default=0, init=False)
    gradients: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        low, high = self.bounds
        if not low < high or self.batch_size < 1 or self.outputs not in get_args(Outputs):
            raise InputError(
                f"victim: bounds {self.bounds}, batch_size {self.batch_size}, outputs {self.outputs!r}; give bounds "
                f"(low, high), at least one image a batch, outputs of {' or '.join(get_args(Outputs))}"
            )

    @property
    def device(self) -> torch.device:
        """Where the network works."""
        return like(self.model).device

    @contextmanager
    def borrowed(self) -> Iterator[None]:
        """Hold the network in evaluation mode, its parameters without gradient; then give it back as it was."""
        whole = nn.ModuleList([part for part in (self.model, self.preprocess) if isinstance(part, nn.Module)])
        wanted = [parameter for parameter in whole.parameters() if parameter.requires_grad]
        before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
        try:
            # TensorFloat-32 rounds to three digits, and otherwise at every batch size.
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
            for parameter in wanted:
                parameter.requires_grad_(False)
            with evaluating(whole):
                yield
        finally:
            torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
            for parameter in wanted:
                parameter.requires_grad_(True)

    def logits(
        self, images: Float[torch.Tensor, "image channel h w"], *, batch_size: int | None = None
    ) -> Float[torch.Tensor, "image class"]:
        """What the network answers, in float32. `batch_size`: exactly so many at a time, nothing filled up."""
        given = []
        with torch.no_grad():
            for part in torch.split(images, batch_size or self.batch_size):
                filled = part if batch_size else self._filled(part)
                given.append(self._ask(filled)[: len(part)])
        self.forwards += len(images)
        return torch.cat(given)

    def ascent(
        self,
        images: Float[torch.Tensor, "image channel h w"],
        labels: Int64[torch.Tensor, " image"],
        loss: Loss,
    ) -> tuple[Float[torch.Tensor, "image class"], Float[torch.Tensor, "image channel h w"]]:
        """Logits, and d loss_i / d x_i for each image; `loss` takes (logits, labels) and gives one value an image."""
        logits, (gradient,) = self.ascents(images, labels, (loss,))
        return logits, gradient

    def ascents(
        self,
        images: Float[torch.Tensor, "image channel h w"],
        labels: Int64[torch.Tensor, " image"],
        losses: Sequence[Loss],
    ) -> tuple[Float[torch.Tensor, "image class"], list[Float[torch.Tensor, "image channel h w"]]]:
        """As `ascent`, of several losses on one forward pass; each counts as a gradient."""
        answers = []
        directions: list[list[torch.Tensor]] = [[] for _ in losses]
        for x, y in zip(torch.split(images, self.batch_size), torch.split(labels, self.batch_size), strict=True):
            with torch.inference_mode(False), torch.enable_grad():
                asked = self._filled(x).detach().clone().requires_grad_(True)
                logits = self._ask(asked)
                totals = [loss(logits, self._filled(y)).sum() for loss in losses]
            for k, total in enumerate(totals):
                gradient = None
                if total.requires_grad:
                    again = k + 1 < len(totals)
                    (gradient,) = torch.autograd.grad(total, asked, allow_unused=True, retain_graph=again)
                directions[k].append(torch.zeros_like(x) if gradient is None else gradient[: len(x)])
            answers.append(logits.detach()[: len(x)])
        self.forwards += len(images)
        self.gradients += len(losses) * len(images)
        return torch.cat(answers), [torch.cat(parts) for parts in directions]

    def _filled(self, rows: torch.Tensor) -> torch.Tensor:
        lacking = min(-(-len(rows) // _QUANTUM) * _QUANTUM, self.batch_size) - len(rows)
        return rows if not lacking else torch.cat([rows, rows[-1:].expand(lacking, *rows.shape[1:])])

    def _ask(self, images: torch.Tensor) -> torch.Tensor:
        low, high = self.bounds
        x = images if self.bounds == (0.0, 1.0) else low + (high - low) * images
        if self.channels is not None and self.channels != x.shape[1]:
            x = x.expand(-1, self.channels, -1, -1)
        if self.preprocess is not None:
            x = self.preprocess(x)
        given = logits_of("victim", self.model, x.to(like(self.model).dtype))
        if given.ndim != 2 or len(given) != len(images) or given.shape[1] < 2:
            raise InputError(
                f"victim: the network gives {tuple(given.shape)} for {len(images)} images; "
                "it must give (image, class), two classes or more"
            )
        given = given.float()
        return given.clamp_min(1e-30).log() if self.outputs == "probabilities" else given


def margin(
    logits: Float[torch.Tensor, "image class"], labels: Int64[torch.Tensor, " image"]
) -> Float[torch.Tensor, " image"]:
    """max_{j != y} z_j - z_y: positive where the network is wrong."""
    true = logits.gather(1, labels[:, None]).squeeze(1)
    return logits.scatter(1, labels[:, None], -torch.inf).amax(1) - true
