"""The conditions that are compared. Each is a second loss, a target, a first module, a data policy, or a mix of them;
the training loop knows none of them.

A recipe names them `BASE[@key=value,...]`, where the keys are options of its `regularizer` (or `regression`) section,
`sigma` of a blur, `epsilon` and `steps` of adversarial training, or `twin`, a variant of the recipe's simulated twins;
`adversarial+BASE` adds that to any other: `neural_model`, `neural_model@alpha=2`, `neural_model@twin=no_shifter`,
`blur@sigma=1.5`, `adversarial+neural_model@alpha=10`.
"""

import difflib
from dataclasses import dataclass, replace
from typing import Any, Literal

import yaml

from neuroprior.types import InputError

Second = Literal["similarity", "regression", "exposure"]
Made = Literal["main", "model", "data", "user"]
"""Targets that the recipe's own `target` gives: `main` is the first of them."""
Control = Literal["vgg", "pixel", "pixel_raw", "lowpass", "random_twin", "simulated_data", "responses", "spectrum"]
"""What is made beside it, each in a step of its own."""


@dataclass(frozen=True, slots=True)
class Condition:
    """`second`: the second loss. `target`: what S_neural is made of (`data` of a twin is simulated). `shuffled`: the
    target's images permuted. `blurred`: a blur is the first module. `adversarial`: batches are attacked before they
    are trained on. `plain`: no brain, no other trained network and no attack is in it, so it is what a brain must beat.
    `base`: the name without its options. `options`: what of the recipe's sections is otherwise for this condition."""

    name: str
    label: str
    description: str
    second: Second | None = None
    target: Made | Control | None = None
    shuffled: bool = False
    blurred: bool = False
    adversarial: bool = False
    plain: bool = False
    base: str = ""
    options: tuple[tuple[str, Any], ...] = ()


_TAUGHT = "Also trained to find the same pairs of images alike as "

CONDITIONS: dict[str, Condition] = {
    condition.name: condition
    for condition in (
        Condition("none", "None", "Trained on the task alone.", plain=True),
        Condition("neural_model", "Neural (model)", f"{_TAUGHT}the denoised neurons do.", "similarity", "model"),
        Condition(
            "neural_data",
            "Neural (data)",
            "As Neural (model), with noisy single-trial responses instead of denoised ones.",
            "similarity",
            "data",
        ),
        Condition("user_matrix", "Your matrix", f"{_TAUGHT}the recipe's matrix does.", "similarity", "user"),
        Condition(
            "shuffle",
            "Shuffle",
            "As the brain's target, after its images were permuted at random: same values, no meaning.",
            "similarity",
            "main",
            shuffled=True,
        ),
        Condition(
            "spectrum",
            "Spectrum",
            "As the brain's target, but a random matrix with the same eigenvalues: same dimensions, no meaning.",
            "similarity",
            "spectrum",
        ),
        Condition(
            "random_twin",
            "Untrained twin",
            f"{_TAUGHT}an untrained network of the twin's architecture does.",
            "similarity",
            "random_twin",
        ),
        Condition("vgg", "VGG", f"{_TAUGHT}VGG-19's conv3_1 does.", "similarity", "vgg"),
        Condition(
            "pixel",
            "Pixel",
            f"{_TAUGHT}their pixels say, thresholded to -1, 0 and 1 (Attias et al. 2024, with its alpha).",
            "similarity",
            "pixel",
            plain=True,
            options=(("alpha", 10.0), ("scale", "lineage")),
        ),
        Condition(
            "pixel_raw", "Pixel (raw)", f"{_TAUGHT}their pixels say, as it is.", "similarity", "pixel_raw", plain=True
        ),
        Condition(
            "lowpass", "Low-pass", f"{_TAUGHT}their strongly blurred pixels say.", "similarity", "lowpass", plain=True
        ),
        Condition(
            "blur",
            "Blur",
            "Trained on the task alone, behind a fixed Gaussian blur of the pixels.",
            blurred=True,
            plain=True,
        ),
        Condition(
            "exposure",
            "Exposure",
            "Shown the stimuli, and taught nothing about them: they enter batch norm's statistics alone.",
            "exposure",
            plain=True,
        ),
        Condition(
            "regression",
            "Regression",
            "Also trained to predict the neurons' responses through a linear readout of a layer.",
            "regression",
            "responses",
        ),
        Condition(
            "adversarial",
            "Adversarial",
            "Trained on images that projected gradient ascent perturbed against the network (Madry et al. 2018).",
            adversarial=True,
        ),
    )
}


def condition_named(name: str) -> Condition:
    """Return the condition that a recipe names. Raises `InputError`, with the nearest known name, for any other."""
    base, at, said = name.partition("@")
    combined = base.startswith("adversarial+")
    base = base.removeprefix("adversarial+")
    if base not in CONDITIONS or (combined and CONDITIONS[base].adversarial):
        near = difflib.get_close_matches(base, CONDITIONS, n=1)
        hint = f"did you mean {near[0]!r}? " if near and near[0] != base else ""
        raise InputError(f"condition {name!r} is unknown; {hint}there are: {', '.join(CONDITIONS)}")
    condition = CONDITIONS[base]
    own = _options(name, said) if at else {}
    label = condition.label + "".join(f" {_SYMBOLS.get(key, key)} {value}" for key, value in own.items())
    description = condition.description
    if combined:
        label, description = f"Adversarial + {label}", f"{description} On images that were perturbed against it."
    return replace(
        condition,
        name=name,
        label=label,
        description=description,
        adversarial=combined or condition.adversarial,
        plain=condition.plain and not combined,
        base=base,
        options=tuple({**dict(condition.options), **own}.items()),
    )


_SYMBOLS = {"alpha": "α", "sigma": "σ", "epsilon": "ε"}


def _options(name: str, said: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for part in said.split(","):
        key, equals, value = part.partition("=")
        if not (key and equals and value):
            raise InputError(f"condition {name!r}: {part!r} is not key=value (e.g. neural_model@alpha=2)")
        if key in options:
            raise InputError(f"condition {name!r}: {key} stands twice")
        try:
            options[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise InputError(f"condition {name!r}: {value!r} is not a value") from None
    return options
