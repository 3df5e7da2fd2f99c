"""Recipe to finished run: the schema, the graph of steps, the store that keeps them, the engine that runs them."""

from neuroprior.experiment.engine import Failure, Watch
from neuroprior.experiment.forecast import Forecast
from neuroprior.experiment.recipe import Recipe, data_folder, load_recipe, recipe_schema
from neuroprior.experiment.results import RunResults
from neuroprior.experiment.run import load_run, packaged_recipe, plan_recipe, run_recipe
from neuroprior.experiment.runs import find_garbage, list_runs, remove_garbage, show_run, store_of
from neuroprior.experiment.store import Store

__all__ = [
    "Failure",
    "Forecast",
    "Recipe",
    "RunResults",
    "Store",
    "Watch",
    "data_folder",
    "find_garbage",
    "list_runs",
    "load_recipe",
    "load_run",
    "packaged_recipe",
    "plan_recipe",
    "recipe_schema",
    "remove_garbage",
    "run_recipe",
    "show_run",
    "store_of",
]
