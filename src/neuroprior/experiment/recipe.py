"""The recipe: one YAML file that says everything about an experiment, checked before anything runs."""

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import Field, ValidationError, model_validator

from neuroprior.classifier import TrainingSettings
from neuroprior.experiment.conditions import CONDITIONS, Condition, condition_named
from neuroprior.experiment.report_section import ReportSection
from neuroprior.experiment.section import Section
from neuroprior.experiment.sections import (
    KINDS,
    MADE,
    AdversarialSection,
    ComputeSection,
    ControlsSection,
    CorruptionsSection,
    EnsembleSection,
    FrequenciesSection,
    MaskingSection,
    NetworkSection,
    NoiseSection,
    ObjectiveSection,
    PerturbationsSection,
    RampSection,
    RegressionSection,
    RegularizerSection,
    RobustnessSection,
    StimuliSection,
    Target,
    TaskSection,
    TransferSection,
    TuningSection,
)
from neuroprior.experiment.simulated_twins import SimulatedTwinsTarget
from neuroprior.types import InputError


@dataclass(frozen=True, slots=True)
class ConditionSettings:
    """The parts of a recipe that a condition may have otherwise; None where it has no such part."""

    regularizer: RegularizerSection | None
    regression: RegressionSection | None
    adversarial: AdversarialSection | None
    blur_sigma: float | None
    lowpass_sigma: float | None
    twin: str | None = None
    """The variant of the recipe's twins that is taught, where the condition names one."""

    @property
    def alpha(self) -> float | None:
        """The weight of the second loss; at its end, where it changes; None without one."""
        if self.regression is not None:
            return self.regression.alpha
        if self.regularizer is None:
            return None
        alpha = self.regularizer.alpha
        return alpha.end if isinstance(alpha, RampSection) else alpha


class Recipe(Section):
    """A whole experiment. `tiny` holds what `--set scale=tiny` changes: the whole graph in under a minute."""

    name: str = Field(pattern=r"^[\w.-]+$")
    description: str = ""
    stimuli: StimuliSection
    target: Annotated[Target, Field(discriminator="kind")]
    task: TaskSection
    network: NetworkSection = NetworkSection()
    training: TrainingSettings = TrainingSettings()
    objective: ObjectiveSection = ObjectiveSection()
    regularizer: RegularizerSection = RegularizerSection()
    regression: RegressionSection = RegressionSection()
    adversarial: AdversarialSection = AdversarialSection()
    controls: ControlsSection = ControlsSection()
    blur_sigma: float = Field(
        default=1.0, gt=0, description="of the `blur` condition's first module, in pixels of an image"
    )
    conditions: tuple[str, ...] = Field(min_length=1)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(0,), min_length=1)
    noise: NoiseSection = NoiseSection()
    robustness: RobustnessSection = RobustnessSection()
    perturbations: PerturbationsSection = PerturbationsSection()
    ensemble: EnsembleSection | None = None
    corruptions: CorruptionsSection | None = None
    frequencies: FrequenciesSection | None = None
    tuning: TuningSection | None = None
    masking: MaskingSection | None = None
    transfer: TransferSection | None = None
    report: ReportSection = ReportSection()
    compute: ComputeSection = ComputeSection()
    scale: Literal["full", "tiny"] = "full"

    @model_validator(mode="after")
    def _known_and_possible(self) -> "Recipe":
        for name in self.conditions:
            self._check_condition(name)
        if self.objective.kind == "few_shot" and any(condition_named(name).adversarial for name in self.conditions):
            raise ValueError("objective.kind few_shot has no logits to attack; leave the adversarial conditions out")
        for what, values in (
            ("conditions", self.conditions),
            ("seeds", self.seeds),
            ("noise.sigmas", self.noise.sigmas),
            ("noise.kinds", self.noise.kinds),
            *((f"perturbations.{norm}", attacks) for norm, attacks in self.perturbations.by_norm.items()),
            *((f"ensemble.{norm}", radii) for norm, radii in (self.ensemble.by_norm if self.ensemble else {}).items()),
            ("corruptions.kinds", self.corruptions.kinds if self.corruptions else ()),
            ("corruptions.severities", self.corruptions.severities if self.corruptions else ()),
            ("frequencies.cutoffs", self.frequencies.cutoffs if self.frequencies else ()),
            ("robustness.radii", self.robustness.radii),
        ):
            if len(set(values)) != len(values):
                raise ValueError(f"{what}: {list(values)} names one twice")
        if self.frequencies is not None and list(self.frequencies.cutoffs) != sorted(self.frequencies.cutoffs):
            raise ValueError(f"frequencies.cutoffs: {list(self.frequencies.cutoffs)} do not rise; sort them")
        if self.ensemble is not None and not self.ensemble.by_norm:
            raise ValueError("ensemble names no radius; give ensemble.linf, ensemble.l2 or both, or leave it out")
        if "salt_and_pepper" in self.noise.kinds and max(self.noise.sigmas) > 1:
            raise ValueError("noise.sigmas has levels above 1, and noise.kinds salt_and_pepper, whose are shares")
        if (self.stimuli.source == "scans") != (self.target.kind in ("scans", "fitted_twins")):
            # Images of another file could have the same names and other pixels.
            raise ValueError("stimuli.source scans goes with target.kind scans or fitted_twins, and no other does")
        return self

    def _check_condition(self, name: str) -> None:
        condition = condition_named(name)
        self.settings(condition)
        kind, needs = self.target.kind, condition.target
        possible = {
            **{made: [k for k, gives in MADE.items() if made in gives] for made in ("model", "user")},
            "data": [k for k, gives in MADE.items() if "data" in gives or k == "twin"],
            "random_twin": ["twin", "fitted_twins"],
            "responses": [k for k in MADE if k not in ("simulated_twins", "matrix")],
        }
        if needs in possible and kind not in possible[needs]:
            raise ValueError(f"condition {name!r} needs target.kind {' or '.join(possible[needs])}, not {kind}")
        if needs == "vgg" and self.controls.vgg is None:
            raise ValueError(f"condition {name!r} needs controls.vgg, the path of VGG-19's weights")

    def settings(self, condition: Condition) -> "ConditionSettings":
        """Return the sections as a condition has them. Raises `InputError` for an option that none of them has."""
        own = dict(condition.options)
        taken: dict[str, Any] = {}
        sections: dict[str, Section] = {}
        second = self.regression if condition.second == "regression" else self.regularizer
        for what, section, there in (
            ("second", second, condition.second is not None),
            ("adversarial", self.adversarial, condition.adversarial),
        ):
            known = _SEEN if condition.second == "exposure" and what == "second" else type(section).model_fields
            mine = {key: own[key] for key in own if there and key in known}
            taken |= mine
            try:
                sections[what] = type(section).model_validate({**section.model_dump(), **mine})
            except ValidationError as error:
                raise InputError(f"condition {condition.name!r}: {_one_line(error)}") from None
        sigma = own.get("sigma", self.blur_sigma if condition.blurred else self.controls.lowpass_sigma)
        if "sigma" in own and (condition.blurred or condition.target == "lowpass"):
            taken["sigma"] = sigma
            if not (isinstance(sigma, int | float) and sigma > 0):
                raise InputError(f"condition {condition.name!r}: sigma is {sigma}; it must be above 0")
        twin: str | None = None
        if "twin" in own and condition.target == "model" and isinstance(self.target, SimulatedTwinsTarget):
            twin = taken["twin"] = self.target.variant_named(condition.name, own["twin"])
        for key in sorted(own.keys() - taken.keys()):
            near = difflib.get_close_matches(key, type(second).model_fields, n=1) if condition.second else []
            hint = f"; did you mean {near[0]!r}?" if near and near[0] != key else ""
            raise InputError(
                f"condition {condition.name!r}: {key!r} is no option of its second loss, blur or attack{hint}"
            )
        chosen, attack = sections["second"], sections["adversarial"]
        return ConditionSettings(
            regularizer=chosen if isinstance(chosen, RegularizerSection) and condition.second else None,
            regression=chosen if isinstance(chosen, RegressionSection) else None,
            adversarial=attack if condition.adversarial and isinstance(attack, AdversarialSection) else None,
            blur_sigma=float(sigma) if condition.blurred else None,
            lowpass_sigma=float(sigma) if condition.target == "lowpass" else None,
            twin=twin,
        )

    def to_yaml(self) -> str:
        """Return the recipe as YAML, every value spelt out."""
        text: str = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)
        return text


def load_recipe(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply `key=value` overrides (`training.epochs=2`, `scale=tiny`; values are YAML).

    Raises `InputError`, one line naming file, key and mend, for anything that is not a valid recipe.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{file}: no such recipe; the ones that come with the project lie in recipes/") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read as text ({error})") from None
    return parse_recipe(text, str(file), overrides)


def parse_recipe(text: str, origin: str, overrides: Sequence[str] = ()) -> Recipe:
    """As `load_recipe`, from text; `origin` names it in messages."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{origin}: not YAML ({' '.join(str(error).split())[:160]})") from None
    if not isinstance(content, dict) or not content:
        what = "empty" if content is None or content == {} else f"a {type(content).__name__}"
        raise InputError(
            f"{origin}: is {what}; a recipe is a mapping with name, stimuli, target, task, conditions, ..."
        )
    tiny = content.pop("tiny", {}) or {}
    changes = [_parsed(override, origin) for override in overrides]
    if ["scale", "tiny"] in [[key, value] for key, value in changes] or content.get("scale") == "tiny":
        if not isinstance(tiny, dict):
            raise InputError(f"{origin}: tiny must be a mapping of the values that scale=tiny changes")
        content = _changed(content, [((key,), value) for key, value in tiny.items()])
    content = _changed(content, [(key.split("."), value) for key, value in changes])
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{origin}: {_one_line(error)}") from None


def recipe_schema() -> dict[str, Any]:
    """JSON schema (2020-12) of a recipe's file, for editors that complete and check."""
    schema = Recipe.model_json_schema()
    schema["properties"]["conditions"]["items"]["anyOf"] = [
        {"enum": list(CONDITIONS)},
        {"pattern": rf"^(adversarial\+)?({'|'.join(CONDITIONS)})(@\w+=[^,=]+(,\w+=[^,=]+)*)?$"},
    ]
    tiny = "What `--set scale=tiny` changes: any of these keys, as far down as needed."
    schema["properties"]["tiny"] = {"type": "object", "description": tiny}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "neuroprior recipe"}


def _parsed(override: str, origin: str) -> tuple[str, Any]:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise InputError(f"{origin}: --set {override!r} is not key=value (e.g. --set training.epochs=2)")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError:
        raise InputError(f"{origin}: --set {override!r}: the value is not YAML; quote it") from None


def _changed(content: Mapping[str, Any], changes: Sequence[tuple[Sequence[str], Any]]) -> dict[str, Any]:
    """Make the changes one after another (null takes all away that stood there), and what they imply."""
    changed = dict(content)
    for keys, value in changes:
        changed = _merged(changed, _nested(keys, value))
    return _without_the_old_source(content, changed, changes)


def _nested(keys: Sequence[str], value: Any) -> dict[str, Any]:
    return {keys[0]: value if len(keys) == 1 else _nested(keys[1:], value)}


def _merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _without_the_old_source(
    before: Mapping[str, Any], after: Mapping[str, Any], changes: Sequence[tuple[Sequence[str], Any]]
) -> dict[str, Any]:
    """Drop what the recipe says of a source (or a target's kind) that `changes` replaced by one that does not take it.

    What a change itself says stays, to be refused where it does not fit. A target given as a whole, with its kind,
    keeps nothing of another kind: its files and neurons say nothing of the new.
    """
    kept = dict(after)
    for section, named in (("stimuli", "source"), ("task", "source"), ("target", "kind")):
        old, new = before.get(section), after.get(section)
        if not (isinstance(old, dict) and isinstance(new, dict)) or new.get(named) == old.get(named):
            continue
        said: set[str] = set()
        whole = False
        for keys, value in changes:
            if keys[0] == section:
                own = {keys[1]} if len(keys) > 1 else set(value) if isinstance(value, dict) else set()
                said |= own
                whole |= section == "target" and len(keys) == 1 and named in own
        takes = set() if whole else _taken_by(section, new.get(named))
        kept[section] = {key: value for key, value in new.items() if key in said or key not in old or key in takes}
    return kept


def _taken_by(section: str, named: object) -> set[str]:
    """The keys that a section takes with this source, or kind."""
    if section == "target":
        return set(KINDS[named].model_fields) if isinstance(named, str) and named in KINDS else set()
    if section == "stimuli":
        return {"source", "n_train", *(["path"] if named == "npz" else [])}
    of_a_source = {
        "parquet": ("train", "test"),
        "image_folder": ("train", "test", "size"),
        "cifar_binary": ("folder",),
    }
    return set(TaskSection.model_fields) - {"train", "test", "folder", "size"} | set(of_a_source.get(str(named), ()))


_SEEN = ("stimuli_per_step", "taps", "batch_norm", "every")  # what of the regulariser's options mere exposure has

# pydantic says which of the alternatives it tried; the first is the one that most people mean
_ALTERNATIVES = ("constrained-float", "RampSection", "int", "tuple[str, ...]")


def _one_line(error: ValidationError) -> str:
    """Say the first fault, and for an unknown key the nearest one that there is."""
    fault = error.errors()[0]
    location = [str(part) for part in fault["loc"]]
    path = [part for part in location if part not in (*KINDS, *_ALTERNATIVES) and not part.startswith("literal[")]
    key = ".".join(path)
    if fault["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        known = _keys_at(location[:-1])
        near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"
        return f"unknown key {key!r}; {hint}"
    if fault["type"] == "missing":
        return f"{key!r} is missing"
    message = fault["msg"].removeprefix("Value error, ").replace("\n", " ")
    return f"{key}: {message}" if key else message


def _keys_at(path: Sequence[str]) -> list[str]:
    """Return the keys that a recipe may have at `path`."""
    kinds: list[Any] = [Recipe]
    for part in path:
        if part in KINDS:  # pydantic says which of the alternatives it tried
            kinds = [KINDS[part]]
            continue
        kinds = [k for kind in kinds for k in _sections(getattr(kind, "__annotations__", {}).get(part))]
    return sorted({key for kind in kinds for key in getattr(kind, "__annotations__", {}) if not key.startswith("_")})


def _sections(annotation: Any) -> list[Any]:
    """Unwrap `Annotated[A | B, ...]` to [A, B]."""
    inner = get_args(annotation)
    if not inner:
        return [annotation] if isinstance(annotation, type) else []
    return [section for part in inner for section in _sections(part)]
