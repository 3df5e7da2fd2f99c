"""Whether attacks on a network can be believed, asked before the first of them."""

from dataclasses import dataclass

import torch

from neuroprior.modes import like
from neuroprior.robustness.victim import Victim, margin
from neuroprior.types import InputError

_SAMPLES = 32
_ROUNDING, _HALF_ROUNDING = 1e-3, 5e-2  # of the logits' spread: other batch sizes, other kernels


@dataclass(frozen=True, slots=True)
class Audit:
    """What was seen on the first `n` samples.

    `repeatable`: the largest difference of logits between two passes over the same batch; `batch_invariance`: between
    each image alone and in the batch; both relative to the logits' standard deviation. `dead_gradients`,
    `unsound`: how many samples have a margin gradient of exactly zero, or logits that are not finite.
    `remarks`: what a reader of the results should know.
    """

    n: int
    classes: int
    channels: int
    accuracy: float
    repeatable: float
    batch_invariance: float
    dead_gradients: int
    unsound: int
    remarks: tuple[str, ...]


def audit(victim: Victim, images: torch.Tensor, labels: torch.Tensor) -> Audit:
    """Look at a network before it is attacked; sets `victim.channels` where it wants gray images three times.

    Raises `InputError` for what no attack could be believed on: answers that change from one pass to the next, that
    depend on the rest of the batch, probabilities taken for logits, no finite logits, no gradient, labels out of range.
    """
    x = images[:_SAMPLES].to(victim.device).float()
    y = labels[:_SAMPLES].to(victim.device)
    remarks: list[str] = []
    with victim.borrowed():
        first = _first_answer(victim, x, remarks)
        if int(labels.min()) < 0 or int(labels.max()) >= first.shape[1]:
            raise InputError(
                f"audit: labels span {int(labels.min())} to {int(labels.max())}, the network has {first.shape[1]} "
                f"classes; give labels 0 to {first.shape[1] - 1}"
            )
        finite = first.isfinite().all(1)
        if not bool(finite.any()):
            raise InputError("audit: the network gives no finite logits for any image; mend it before it is attacked")
        _check_scale(victim, first[finite])
        spread = float(first[finite].std().clamp_min(1e-12))
        repeatable = float((victim.logits(x) - first)[finite].abs().max()) / spread
        rounding = _HALF_ROUNDING if _in_half(victim) else _ROUNDING
        if not repeatable <= rounding:  # NaN is not
            raise InputError(
                f"audit: two passes over the same images differ by {repeatable:.2g} of the logits' spread; "
                "make the network deterministic in evaluation mode (dropout, random layers)"
            )
        alone = victim.logits(x, batch_size=1)
        invariance = float((alone - first)[finite].abs().max()) / spread
        if not invariance <= rounding:
            raise InputError(
                f"audit: an image's logits depend on its batch (by {invariance:.2g} of their spread); "
                "use statistics that are fixed in evaluation (batch norm with running ones)"
            )
        _, gradient = victim.ascent(x, y, margin)
        size = gradient.flatten(1).abs().amax(1)
        dead = ~((size > 0) & (size < torch.inf)) & finite
        if bool(dead[finite].all()):
            raise InputError(
                "audit: the margin's gradient is zero or not finite for every image (rounded or detached inside?); "
                "attacks by gradient would find nothing, and prove nothing"
            )
        accuracy = float((first.argmax(1) == y)[finite].float().mean())
    if not bool(finite.all()):
        remarks.append(f"{int((~finite).sum())} of {len(x)} samples have logits that are not finite: quarantined")
    if bool(dead.any()):
        remarks.append(f"{int(dead.sum())} of {len(x)} samples have no gradient: attacks by gradient may fail on them")
    return Audit(
        n=len(x),
        classes=first.shape[1],
        channels=victim.channels or x.shape[1],
        accuracy=accuracy,
        repeatable=repeatable,
        batch_invariance=invariance,
        dead_gradients=int(dead.sum()),
        unsound=int((~finite).sum()),
        remarks=tuple(remarks),
    )


def accept_gray(victim: Victim, x: torch.Tensor) -> torch.Tensor:
    """The logits of x; sets `victim.channels` where the network wants gray images three times.

    Raises `InputError`, in the network's own words, where it takes neither.
    """
    try:
        return victim.logits(x)
    except InputError:
        if x.shape[1] != 1 or victim.channels is not None:
            raise
    victim.channels = 3
    try:
        return victim.logits(x)
    except InputError:
        victim.channels = None
        return victim.logits(x)  # for its own words


def _first_answer(victim: Victim, x: torch.Tensor, remarks: list[str]) -> torch.Tensor:
    before = victim.channels
    logits = accept_gray(victim, x)
    if victim.channels != before:
        remarks.append("the network takes three channels: it is shown each gray image three times, lengths are of one")
    return logits


def _in_half(victim: Victim) -> bool:
    return like(victim.model).dtype not in (torch.float32, torch.float64)


def _check_scale(victim: Victim, logits: torch.Tensor) -> None:
    if victim.outputs == "probabilities":
        total = logits.exp().sum(1)
        if float((total - 1).abs().max()) > 1e-2:
            raise InputError("audit: outputs='probabilities', but they do not sum to 1; leave it out for logits")
        return
    if float(logits.min()) >= 0 and float((logits.sum(1) - 1).abs().max()) < (2e-2 if _in_half(victim) else 1e-3):
        raise InputError(
            "audit: the network gives probabilities (rows sum to 1), whose gradients vanish; give its logits, or say "
            "outputs='probabilities'"
        )
