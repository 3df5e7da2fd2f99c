"""The target that a recipe makes with truth and all: scans of simulated mice, and twins fitted to them in variants."""

import difflib
from dataclasses import fields
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, StringConstraints, TypeAdapter, ValidationError, WithJsonSchema, model_validator

from neuroprior.experiment.section import Section
from neuroprior.recordings.simulate.noise import NoiseKind
from neuroprior.twin import FitSettings, TwinArchitecture
from neuroprior.twin.architecture import CORES
from neuroprior.types import InputError

_OPTIONS: dict[str, type] = {field.name: part for part in (TwinArchitecture, FitSettings) for field in fields(part)}
_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        name: said
        for part in (TwinArchitecture, FitSettings)
        for name, said in TypeAdapter(part).json_schema()["properties"].items()
    }
    | {"core": {"default": TwinArchitecture().core, "enum": list(CORES), "title": "Core", "type": "string"}},
}
FitOptions = Annotated[dict[str, Any], WithJsonSchema(_SCHEMA)]
"""Options of `TwinArchitecture` and `FitSettings`, by their names; those that are not named are as usual."""

_Part = TypeVar("_Part", TwinArchitecture, FitSettings)


class SimulatedMiceSection(Section):
    """One scan of each of so many mice of Gabor cells, as `scan simulate` makes them.

    They see every training image of the recipe's stimuli once and every oracle image `n_repeats` times. `shared_noise`:
    mean standard deviation of the log response due to what all neurons share (`Noise.shared`). `running_gain`,
    `pupil_gain`: mean change of a log response for one standard deviation of log(1 + speed / (1 cm/s)), of pupil size.
    """

    n_scans: int = Field(default=1, ge=1)
    n_neurons: int = Field(default=500, ge=2)
    n_repeats: int = Field(default=10, ge=2)
    seed: int = Field(default=0, ge=0)
    snr_median: float = Field(default=0.5, gt=0, description="of the true w of Eq. 1")
    snr_spread: float = Field(default=0.6, ge=0, description="standard deviation of log w")
    noise: NoiseKind = "gamma"
    shared_noise: float = Field(default=0.15, ge=0, le=1)
    running_gain: float = Field(default=0.15, ge=-1, le=1)
    pupil_gain: float = Field(default=0.1, ge=-1, le=1)
    gaze_spread: float = Field(
        default=1.0, ge=0, description="standard deviation of the horizontal gaze, in pixels of a stimulus"
    )


class SimulatedTwinsTarget(Section):
    """S_neural from simulated scans whose truth is known, and from twins fitted to them in several variants.

    `fit`: options that all variants have, `variants`: what each has otherwise. `neural_model` is taught the first
    variant's S_model (Eq. 6, weights w v; mean over scans), `neural_model@twin=NAME` another's, `neural_data` what the
    scans' single trials say. Held-out images are compared with the truth: Eq. 2 of noise-free rates, true weights.
    """

    kind: Literal["simulated_twins"]
    mice: SimulatedMiceSection = SimulatedMiceSection()
    fit: FitOptions = Field(default_factory=dict)
    variants: dict[Annotated[str, StringConstraints(pattern=r"^[A-Za-z][\w-]*$")], FitOptions] = Field(
        default={"full": {}}, min_length=1
    )

    @model_validator(mode="after")
    def _each_can_be_fitted(self) -> "SimulatedTwinsTarget":
        _fitting("fit", self.fit)
        for name in self.variants:
            self.fitting(name)
        return self

    @property
    def first(self) -> str:
        """The variant that `neural_model` is taught."""
        return next(iter(self.variants))

    def fitting(self, variant: str) -> tuple[TwinArchitecture, FitSettings]:
        """Return how a variant is built and fitted. Raises `InputError` for what cannot be."""
        return _fitting(f"variants.{variant}", {**self.fit, **self.variants[variant]})

    def condition(self, variant: str) -> str:
        """The condition that is taught a variant."""
        return "neural_model" if variant == self.first else f"neural_model@twin={variant}"

    def variant_named(self, condition: str, name: object) -> str:
        """Return the variant that a condition names. Raises `InputError`, saying which there are, for any other."""
        if name not in self.variants:
            there = ", ".join(self.variants)
            raise InputError(f"condition {condition!r}: no variant {name!r} in target.variants; there are: {there}")
        return str(name)


def _fitting(where: str, options: FitOptions) -> tuple[TwinArchitecture, FitSettings]:
    _check_names(where, options)
    return _made(TwinArchitecture, where, options), _made(FitSettings, where, options)


def _made(part: type[_Part], where: str, options: FitOptions) -> _Part:
    own = {name: value for name, value in options.items() if _OPTIONS[name] is part}
    try:
        return TypeAdapter(part).validate_python(own)
    except ValidationError as error:
        fault = error.errors()[0]
        option = "".join(f"{step}: " for step in fault["loc"])
        raise InputError(f"{where}: {option}{fault['msg'].removeprefix('Value error, ')}") from None


def _check_names(where: str, options: FitOptions) -> None:
    for name in options:
        if name not in _OPTIONS:
            near = difflib.get_close_matches(name, _OPTIONS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(_OPTIONS)}"
            raise InputError(f"{where}: {name!r} is no option of a twin's fit; {hint}")
