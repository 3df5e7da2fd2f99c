"""Recipe to finished run: the schema, the graph of steps, the store that keeps them, the engine that runs them."""

from neuroprior.experiment.engine import Failure, Watch
from neuroprior.experiment.recipe import Recipe, data_folder, load_recipe
from neuroprior.experiment.results import RunResults
from neuroprior.experiment.run import load_run, packaged_recipe, run_recipe

__all__ = [
    "Failure",
    "Recipe",
    "RunResults",
    "Watch",
    "data_folder",
    "load_recipe",
    "load_run",
    "packaged_recipe",
    "run_recipe",
]
