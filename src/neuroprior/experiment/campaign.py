"""A campaign: cells of recipes, each a network of one condition and seed, to be measured as computing time comes."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, model_validator

from neuroprior.experiment.recipe import Recipe, parse_recipe
from neuroprior.experiment.section import Section
from neuroprior.types import InputError


class GroupSection(Section):
    """Cells that are measured alike: conditions x seeds. `set`: what of the recipe is otherwise for them."""

    name: str = Field(pattern=r"^[\w.-]+$")
    conditions: tuple[str, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field(min_length=1)
    recipe: str | None = None
    set: dict[str, Any] = Field(default_factory=dict)


class CampaignSection(Section):
    """A campaign's file. `recipe`: of all groups that name none, beside this file; `tiny`: as a recipe's."""

    name: str = Field(pattern=r"^[\w.-]+$")
    recipe: str
    groups: tuple[GroupSection, ...] = Field(min_length=1)
    tiny: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names_differ(self) -> "CampaignSection":
        twice = [name for name, n in Counter(group.name for group in self.groups).items() if n > 1]
        if twice:
            raise ValueError(f"groups: two are called {twice[0]!r}; give each a name of its own")
        return self


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One network to be trained and measured."""

    group: str
    condition: str
    seed: int


@dataclass(frozen=True, slots=True)
class Campaign:
    """Groups in the order in which they are done, each a recipe of its conditions and seeds."""

    name: str
    groups: Mapping[str, Recipe]

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All of them, in order: seed by seed within a group, so that conditions can be compared early."""
        return tuple(
            Cell(group, condition, seed)
            for group, recipe in self.groups.items()
            for seed in recipe.seeds
            for condition in recipe.conditions
        )

    def settings(self, group: str) -> str:
        """SHA-256 of all that a group's results depend on, but for condition, seed and machine."""
        said = self.groups[group].model_dump(
            mode="json",
            exclude={"conditions", "seeds", "compute", "report", "description", "name"},
            exclude_defaults=True,  # an option that is new since, and not used, changes nothing
        )
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def load_campaign(path: Path, overrides: Sequence[str] = ()) -> Campaign:
    """Read a campaign and its recipes, with `key=value` overrides for all of them (`scale=tiny`).

    Raises `InputError`, one line, for what is not a valid campaign, or a recipe of it that is not.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); campaigns lie in recipes/") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not YAML ({' '.join(str(error).split())[:160]})") from None
    try:
        said = CampaignSection.model_validate(content)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        said_of = fault["msg"].removeprefix("Value error, ")
        raise InputError(f"{path}: {where}: {said_of}" if where else f"{path}: {said_of}") from None
    tiny = _as_overrides(said.tiny) if "scale=tiny" in overrides else []
    groups = {}
    for group in said.groups:
        file = path.parent / (group.recipe or said.recipe)
        own = {**group.set, "conditions": group.conditions, "seeds": group.seeds}
        if not file.is_file():
            raise InputError(f"{path}: its group {group.name!r} names the recipe {file}, and there is none")
        origin = f"{path}: group {group.name!r}, {file.name}"
        groups[group.name] = parse_recipe(
            file.read_text(encoding="utf-8"), origin, [*_as_overrides(own), *tiny, *overrides]
        )
    return Campaign(said.name, groups)


def _as_overrides(said: Mapping[str, Any]) -> list[str]:
    return [f"{key}={json.dumps(value)}" for key, value in said.items()]
