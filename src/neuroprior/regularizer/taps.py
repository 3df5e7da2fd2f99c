"""Taps: which layers of a network are compared with the brain, and how their features are caught."""

import difflib
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn

from neuroprior.modes import evaluating, run_uncompiled
from neuroprior.types import InputError

BatchNorm = Literal["shared", "task"]


class _DeepestTapReached(Exception):
    """Ends a forward pass once the last tap's features are there: what lies beyond would be computed for nothing."""


class Taps:
    """The features of the named modules of `model`, caught by forward hooks. Nothing is added to the model itself."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        modules = dict(model.named_modules())
        for name in names:
            if name not in modules or not name:
                near = difflib.get_close_matches(name, [k for k in modules if k], n=1)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise InputError(f"tap {name!r}: no such module; {hint}there are: {_listed(modules)}")
        if len(set(names)) != len(names) or not names:
            raise InputError(f"taps: name each layer once and at least one, got {list(names)}")
        self.names = tuple(names)
        # Held in a tuple, so that nn.Module bookkeeping of an owner does not see the model as its child.
        self._modules = tuple(modules[name] for name in names)

    def features(self, model: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
        """Run `model` on `images` as far as the deepest tap; return each tap's output, `(image, ...)`."""
        caught: dict[str, torch.Tensor] = {}

        def catch(name: str) -> Any:
            def hook(module: nn.Module, args: Any, output: Any) -> None:
                if not isinstance(output, torch.Tensor) or output.ndim < 2 or len(output) != len(images):
                    raise InputError(f"tap {name!r}: its output is no tensor with one row an image; tap another layer")
                caught[name] = output
                if len(caught) == len(self.names):
                    raise _DeepestTapReached

            return hook

        hooks = [m.register_forward_hook(catch(n)) for n, m in zip(self.names, self._modules, strict=True)]
        try:
            with run_uncompiled():
                model(images)
        except _DeepestTapReached:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        silent = [name for name in self.names if name not in caught]
        if silent:
            raise InputError(f"tap {silent[0]!r}: not used in the forward pass; tap another layer")
        if torch.is_grad_enabled() and any(p.requires_grad for p in model.parameters()):
            self._check_gradient(model, caught)
        return [caught[name] for name in self.names]

    def check(self, model: nn.Module, images: torch.Tensor) -> None:
        """Run the whole model once, and refuse taps whose features would depend on which other taps there are.

        Raises `InputError` for a module that is used several times a pass, or whose output what follows overwrites.
        """
        self.features(model, images)
        calls: Counter[str] = Counter()
        caught: dict[str, tuple[torch.Tensor, int]] = {}

        def note(name: str) -> Any:
            def hook(module: nn.Module, args: Any, output: torch.Tensor) -> None:
                calls[name] += 1
                caught[name] = (output, output._version)

            return hook

        hooks = [m.register_forward_hook(note(n)) for n, m in zip(self.names, self._modules, strict=True)]
        try:
            with run_uncompiled():
                model(images)
        except (RuntimeError, AssertionError, ValueError):
            pass  # a head made for another image size: it lies beyond the taps, and is never run
        finally:
            for hook in hooks:
                hook.remove()
        for name in self.names:
            if calls[name] > 1:
                raise InputError(f"tap {name!r}: used {calls[name]} times a pass; tap a module that is used once")
            output, version = caught[name]
            if output._version != version:
                raise InputError(
                    f"tap {name!r}: what follows overwrites its output (an in-place ReLU or sum?); tap that module, "
                    "or make it inplace=False"
                )

    def check_alive(self, model: nn.Module, images: torch.Tensor) -> None:
        """Raise `InputError` for a tap whose features tell no image from another, unless all images are equal."""
        if len(torch.unique(images.flatten(1), dim=0)) == 1:
            return  # equal stimuli must have equal features
        with torch.no_grad(), evaluating(model):
            for name, features in zip(self.names, self.features(model, images), strict=True):
                if bool((features == features[:1]).all()):
                    raise InputError(
                        f"tap {name!r}: its features are the same for all stimuli (zero variance), so no similarity "
                        "can be computed; tap another layer, or initialise it otherwise"
                    )

    def _check_gradient(self, model: nn.Module, caught: dict[str, torch.Tensor]) -> None:
        """Raise `InputError` for a tap that cannot be taught: its features have no gradient, though weights have."""
        deepest = next(reversed(caught))
        for name, module in zip(self.names, self._modules, strict=True):
            taught = name == deepest or any(p.requires_grad for p in module.parameters())
            if taught and not caught[name].requires_grad:
                raise InputError(
                    f"tap {name!r}: its features carry no gradient; all before it is frozen, or it lies under "
                    "torch.no_grad() or in a reentrant checkpoint: use checkpoint(..., use_reentrant=False), or tap "
                    "another layer"
                )


def evenly_spaced_stages(model: nn.Module, images: torch.Tensor, k: int) -> list[str]:
    """Name K layers at depths evenly spaced from the first to the last convolution, each after its nonlinearity.

    A network that names its own `stages` (a tuple of at least K module names, in order) is asked for K of those. Else,
    depth counts convolutions with a kernel above 1x1, so that shortcuts do not (layers 1, 5, 9, 13, 17 of a ResNet18
    for K = 5). A layer's name is that of the outermost module that ends there with the convolution's map size, so
    batch norm, residual sum and nonlinearity are inside. A network with more blocks in a row that give tokens than it
    has such layers, a transformer, is asked for K of these: the members of its longest `Sequential` or `ModuleList`
    that are each called once. Raises `InputError` where the model has too few of both.
    """
    stages = getattr(model, "stages", None)
    if isinstance(stages, tuple) and len(stages) >= k >= 1 and all(isinstance(name, str) for name in stages):
        return [stages[i] for i in _evenly_spaced(len(stages), k)]
    tokens: set[str] = set()  # modules that give `(image, token, channel)`
    ends: list[tuple[int, str]] = []  # depth at which each module ended, in order of ending
    sizes: dict[int, torch.Size] = {}
    depth = 0
    calls: Counter[str] = Counter()

    def ended(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            nonlocal depth
            calls[name] += 1
            if not isinstance(output, torch.Tensor):
                return
            if output.ndim == 3 and len(output) == 1:
                tokens.add(name)
            if output.ndim != 4:
                return
            if _counts(module):
                depth += 1
                sizes[depth] = output.shape[2:]
            if depth and name and output.shape[2:] == sizes[depth]:
                ends.append((depth, name))

        return hook

    hooks = [module.register_forward_hook(ended(name)) for name, module in model.named_modules()]
    try:
        with torch.no_grad(), evaluating(model):
            model(images[:1])
    except RuntimeError:
        # A head made for another image size fails here; it lies beyond every tap, so it is never run later either.
        if depth < max(k, sum(_counts(module) for module in model.modules())):
            raise
    finally:
        for hook in hooks:
            hook.remove()
    if k < 1:
        raise InputError(f"taps: {k} layers asked; ask for at least one, or name them: taps=[...]")
    blocks = _longest_row(model, {name for name in tokens if calls[name] == 1})
    if depth < max(k, len(blocks)):
        if len(blocks) < k:
            raise InputError(
                f"taps: {k} layers asked of a network with {depth} convolutions and {len(blocks)} blocks in a row; "
                "name them: taps=[...]"
            )
        return [blocks[i] for i in _evenly_spaced(len(blocks), k)]
    names = []
    for at in (1 + i for i in _evenly_spaced(depth, k)):
        called_once = [name for end, name in ends if end == at and calls[name] == 1]
        if not called_once:
            raise InputError(f"taps: what ends at convolution {at} is used several times a pass; name them: taps=[...]")
        names.append(called_once[-1])
    return names


def _longest_row(model: nn.Module, among: set[str]) -> list[str]:
    """Return the members of the longest `Sequential` or `ModuleList`, as far as they are `among` these."""
    rows = [
        [f"{name}.{child}".lstrip(".") for child, _ in module.named_children()]
        for name, module in model.named_modules()
        if isinstance(module, nn.Sequential | nn.ModuleList)
    ]
    kept = [[name for name in row if name in among] for row in rows]
    return max(kept, key=len, default=[])


def _evenly_spaced(n: int, k: int) -> list[int]:
    """Return k of the indices 0..n-1, first and last among them; for k = 1 the last."""
    return [round(i * (n - 1) / (k - 1)) for i in range(k)] if k > 1 else [n - 1]


def _counts(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1


def _listed(modules: dict[str, nn.Module], most: int = 40) -> str:
    names = [name for name in modules if name]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
