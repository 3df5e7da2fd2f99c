"""The recipe: one YAML file that says everything about an experiment, checked before anything runs."""

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from neuroprior.classifier import Architecture, Color, TrainingSettings
from neuroprior.experiment.conditions import CONDITIONS
from neuroprior.regularizer.loss import Mean, Pairs, Scale
from neuroprior.regularizer.taps import BatchNorm
from neuroprior.robustness import Clip
from neuroprior.types import InputError, Precision


class Section(BaseModel):
    """A part of a recipe: frozen, and closed to keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class StimuliSection(Section):
    """Gray stimuli: an `.npz` with `images`, `names`, `tier`; those that scans show; or photographs of scikit-image."""

    source: Literal["npz", "scans", "photographs"]
    path: str | None = None
    n_train: int | None = Field(default=None, ge=2, description="use only the first so many training stimuli")

    @model_validator(mode="after")
    def _path_where_needed(self) -> "StimuliSection":
        if (self.source == "npz") != (self.path is not None):
            raise ValueError("source npz needs a path, source scans and photographs take none")
        return self


class TwinTarget(Section):
    """S_neural from a digital twin's checkpoint."""

    kind: Literal["twin"]
    path: str
    scan: str | None = None
    neutral_behavior: tuple[float, ...] | None = None


class SimulatedMouseTarget(Section):
    """S_neural from a simulated mouse: noise-free rates for `neural_model`, single trials for `neural_data`."""

    kind: Literal["simulated_mouse"]
    n_neurons: int = Field(default=500, ge=2)
    n_repeats: int = Field(default=10, ge=2)
    seed: int = 0


class ScansTarget(Section):
    """S_neural from recordings: Eq. 2 of each image's mean response, neurons weighted by Eq. 1, averaged over scans."""

    kind: Literal["scans"]
    paths: tuple[str, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _each_once(self) -> "ScansTarget":
        if len(set(self.paths)) != len(self.paths):
            raise ValueError("paths names a scan twice; it would count twice in the mean")
        return self


class MatrixTarget(Section):
    """A matrix of your own: `path` an `.npy` (n, n), `ids` a text file with the id of a stimulus a line.

    Rows of training stimuli are trained on; rows of oracle stimuli, if there are any, are held out.
    """

    kind: Literal["matrix"]
    path: str
    ids: str


Target = TwinTarget | SimulatedMouseTarget | ScansTarget | MatrixTarget
_KINDS: dict[str, type[Section]] = {
    "twin": TwinTarget,
    "simulated_mouse": SimulatedMouseTarget,
    "scans": ScansTarget,
    "matrix": MatrixTarget,
}
MADE: dict[str, tuple[str, ...]] = {
    "twin": ("model",),
    "simulated_mouse": ("model", "data"),
    "scans": ("data",),
    "matrix": ("user",),
}
"""What each kind of target gives to train on; the first is the one that `shuffle` permutes."""


class TaskSection(Section):
    """What is classified, in gray or colour.

    `parquet`: two files of the Hugging Face layout; `cifar_binary`: the folder `cifar-10-batches-bin` or
    `cifar-100-binary`; `image_folder`: two folders `CLASS/*.png`, with `size` if the images are not all of one;
    `digits`: packaged, no file.
    """

    source: Literal["parquet", "cifar_binary", "image_folder", "digits"]
    train: str | None = None
    test: str | None = None
    folder: str | None = None
    color: Color = "gray"
    size: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None = None
    n_train: int | None = Field(default=None, ge=10)
    n_test: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _files_where_needed(self) -> "TaskSection":
        needed = {"cifar_binary": {"folder"}, "digits": set()}.get(self.source, {"train", "test"})
        given = {name for name in ("train", "test", "folder") if getattr(self, name) is not None}
        if given != needed:
            wants = " and ".join(sorted(needed, reverse=True)) or "no file"
            raise ValueError(f"source {self.source} needs {wants}, not {' and '.join(sorted(given)) or 'nothing'}")
        if self.size is not None and self.source != "image_folder":
            raise ValueError(f"size is for source image_folder; images of source {self.source} are of one size already")
        return self

    def path(self, part: Literal["train", "test"]) -> str | None:
        """The file or folder that the training or test images are read from."""
        return self.folder or (self.train if part == "train" else self.test)


class NetworkSection(Section):
    """Which network is trained."""

    architecture: Architecture = "resnet18"
    width: int = Field(default=64, ge=1)


class RegularizerSection(Section):
    """The options of `SimilarityRegularizer`."""

    alpha: float = Field(default=20.0, ge=0)
    scale: Scale = "printed"
    mean: Mean = "lineage"
    pairs: Pairs = "disjoint"
    batch_norm: BatchNorm = "shared"
    stimuli_per_step: int = Field(default=64, ge=2)
    taps: int | tuple[str, ...] = 5


class NoiseSection(Section):
    """Gaussian noise levels, in units of the pixel range."""

    sigmas: tuple[Annotated[float, Field(ge=0)], ...] = Field(
        default=tuple(round(0.01 * k, 2) for k in range(16)), min_length=1
    )
    clip: Clip = "none"
    seed: int = 0


class RobustnessSection(Section):
    """Accuracy under an Linf attack of fixed radius (PGD on the margin); none where no radius is given."""

    radii: tuple[Annotated[float, Field(ge=0)], ...] = ()
    n_images: int = Field(default=1000, ge=1, description="the first so many test images")
    steps: int = Field(default=50, ge=1)
    restarts: int = Field(default=1, ge=1)
    seed: int = 0


Figure = Literal[
    "noise",
    "tradeoff",
    "sweep",
    "attack",
    "examples",
    "matrix",
    "histogram",
    "truth",
    "pairs",
    "training",
    "gamma",
    "taps",
]


class ReportSection(Section):
    """What the report shows; no step depends on it."""

    title: str | None = Field(default=None, description="in place of the recipe's name")
    levels: tuple[Annotated[float, Field(ge=0)], ...] = Field(
        default=(0.05, 0.10, 0.15), description="noise levels of the headline table: the nearest ones measured"
    )
    figures: tuple[Figure, ...] = Field(default=get_args(Figure), description="which figures, in the page's own order")


class ComputeSection(Section):
    """Where and how it runs; `auto` is resolved once, when the run is created, and kept in its `recipe.yaml`."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto"] | Precision = "auto"
    threads: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    workers: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    checkpoint_seconds: float = Field(default=30.0, ge=0, description="a killed training loses at most so much work")


class Recipe(Section):
    """A whole experiment. `tiny` holds what `--set scale=tiny` changes: the whole graph in under a minute."""

    name: str = Field(pattern=r"^[\w.-]+$")
    description: str = ""
    stimuli: StimuliSection
    target: Annotated[Target, Field(discriminator="kind")]
    task: TaskSection
    network: NetworkSection = NetworkSection()
    training: TrainingSettings = TrainingSettings()
    regularizer: RegularizerSection = RegularizerSection()
    blur_sigma: float = Field(default=1.0, gt=0, description="of the `blur` condition's first module, in pixels")
    conditions: tuple[str, ...] = Field(min_length=1)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(0,), min_length=1)
    noise: NoiseSection = NoiseSection()
    robustness: RobustnessSection = RobustnessSection()
    report: ReportSection = ReportSection()
    compute: ComputeSection = ComputeSection()
    scale: Literal["full", "tiny"] = "full"

    @model_validator(mode="after")
    def _known_and_possible(self) -> "Recipe":
        for name in self.conditions:
            if name not in CONDITIONS:
                near = difflib.get_close_matches(name, CONDITIONS, n=1)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise ValueError(f"condition {name!r} is unknown; {hint}there are: {', '.join(CONDITIONS)}")
            needs, made = CONDITIONS[name].target, MADE[self.target.kind]
            if needs not in ("none", "main", *made):
                kinds = " or ".join(kind for kind, gives in MADE.items() if needs in gives)
                raise ValueError(f"condition {name!r} needs target.kind {kinds}, not {self.target.kind}")
        for what, values in (
            ("conditions", self.conditions),
            ("seeds", self.seeds),
            ("noise.sigmas", self.noise.sigmas),
            ("robustness.radii", self.robustness.radii),
        ):
            if len(set(values)) != len(values):
                raise ValueError(f"{what}: {list(values)} names one twice")
        if (self.stimuli.source == "scans") != (self.target.kind == "scans"):
            # Images of another file could have the same names and other pixels.
            raise ValueError("stimuli.source scans goes with target.kind scans, and no other does")
        return self

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
        text = file.read_text()
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
        content = _merged(content, tiny)
    for key, value in changes:
        content = _merged(content, _nested(key.split("."), value))
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{origin}: {_one_line(error)}") from None


def recipe_schema() -> dict[str, Any]:
    """JSON schema (2020-12) of a recipe's file, for editors that complete and check."""
    schema = Recipe.model_json_schema()
    schema["properties"]["conditions"]["items"]["enum"] = list(CONDITIONS)
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


def _nested(keys: Sequence[str], value: Any) -> dict[str, Any]:
    return {keys[0]: value if len(keys) == 1 else _nested(keys[1:], value)}


def _merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _one_line(error: ValidationError) -> str:
    """Say the first fault, and for an unknown key the nearest one that there is."""
    fault = error.errors()[0]
    location = [str(part) for part in fault["loc"]]
    path = [part for part in location if part not in _KINDS]
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
        if part in _KINDS:  # pydantic says which of the alternatives it tried
            kinds = [_KINDS[part]]
            continue
        kinds = [k for kind in kinds for k in _sections(getattr(kind, "__annotations__", {}).get(part))]
    return sorted({key for kind in kinds for key in getattr(kind, "__annotations__", {}) if not key.startswith("_")})


def _sections(annotation: Any) -> list[Any]:
    """Unwrap `Annotated[A | B, ...]` to [A, B]."""
    inner = get_args(annotation)
    if not inner:
        return [annotation] if isinstance(annotation, type) else []
    return [section for part in inner for section in _sections(part)]
