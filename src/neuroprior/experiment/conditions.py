"""The conditions that are compared: each is a target, a first module, or both. The training loop knows none of them."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Condition:
    """`target`: what S_neural is made of (`main`: whatever the recipe's target gives first); `shuffled`: its images
    permuted; `blurred`: a blur is the first module."""

    name: str
    label: str
    description: str
    target: Literal["none", "main", "model", "data", "user"]
    shuffled: bool = False
    blurred: bool = False


CONDITIONS: dict[str, Condition] = {
    condition.name: condition
    for condition in (
        Condition("none", "None", "Trained on the task alone.", target="none"),
        Condition(
            "neural_model",
            "Neural (model)",
            "Also trained to find the same pairs of images alike as the denoised neurons do.",
            target="model",
        ),
        Condition(
            "neural_data",
            "Neural (data)",
            "As Neural (model), with the noisy single-trial responses instead of denoised ones.",
            target="data",
        ),
        Condition(
            "user_matrix",
            "Your matrix",
            "Also trained to find the same pairs of images alike as the matrix that the recipe names does.",
            target="user",
        ),
        Condition(
            "shuffle",
            "Shuffle",
            "As the brain's target, after its images were permuted at random: same values, no meaning.",
            target="main",
            shuffled=True,
        ),
        Condition(
            "blur",
            "Blur",
            "Trained on the task alone, behind a fixed Gaussian blur of the pixels; no brain involved.",
            target="none",
            blurred=True,
        ),
    )
}
