"""`neuroprior recipe`: help in writing one."""

import json
from pathlib import Path
from typing import Annotated

import typer

from neuroprior.cli.options import Set

app = typer.Typer(help="Recipes: their schema, and what one comes to.", no_args_is_help=True)


@app.command("schema")
def schema() -> None:
    """Print the JSON schema of recipes, for an editor that completes and checks.

    Example: neuroprior recipe schema > recipe.schema.json
    """
    from neuroprior.experiment import recipe_schema

    print(json.dumps(recipe_schema()))


@app.command("show")
def show(recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.")], set_: Set = None) -> None:
    """Print a recipe with every value spelt out, after checking it.

    Example: neuroprior recipe show recipes/quick.yaml --set scale=tiny
    """
    from neuroprior.experiment import load_recipe

    print(load_recipe(recipe, set_ or ()).to_yaml(), end="")
