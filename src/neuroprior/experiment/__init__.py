"""Recipe to finished run: the schema, the graph of steps, the store that keeps them, the engine that runs them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuroprior.experiment.campaign import Campaign, Cell, load_campaign
    from neuroprior.experiment.campaign_results import measured_so_far
    from neuroprior.experiment.engine import Failure, Watch
    from neuroprior.experiment.forecast import AssumedGPUs, Forecast
    from neuroprior.experiment.measured import MeasuredFolder, measured_in, published_run
    from neuroprior.experiment.packets import Packet, done_cells, merge_packet, merged_packets, open_cells, run_packet
    from neuroprior.experiment.recipe import Recipe, load_recipe, recipe_schema
    from neuroprior.experiment.results import RunResults
    from neuroprior.experiment.run import load_run, packaged_recipe, plan_recipe, run_recipe
    from neuroprior.experiment.runs import find_garbage, list_runs, remove_garbage, show_run, store_of
    from neuroprior.experiment.store import Store
    from neuroprior.experiment.watching import RunView, look_on

# Imported on first use: looking at runs needs no torch, and so no seconds.
_HOME = {
    "AssumedGPUs": "forecast",
    "Campaign": "campaign",
    "Cell": "campaign",
    "Packet": "packets",
    "done_cells": "packets",
    "load_campaign": "campaign",
    "measured_so_far": "campaign_results",
    "merge_packet": "packets",
    "merged_packets": "packets",
    "open_cells": "packets",
    "run_packet": "packets",
    "Failure": "engine",
    "Forecast": "forecast",
    "MeasuredFolder": "measured",
    "Recipe": "recipe",
    "RunResults": "results",
    "RunView": "watching",
    "Store": "store",
    "Watch": "engine",
    "find_garbage": "runs",
    "list_runs": "runs",
    "look_on": "watching",
    "measured_in": "measured",
    "load_recipe": "recipe",
    "load_run": "run",
    "packaged_recipe": "run",
    "plan_recipe": "run",
    "published_run": "measured",
    "recipe_schema": "recipe",
    "remove_garbage": "runs",
    "run_recipe": "run",
    "show_run": "runs",
    "store_of": "runs",
}

__all__ = [
    "AssumedGPUs",
    "Campaign",
    "Cell",
    "Failure",
    "Forecast",
    "MeasuredFolder",
    "Packet",
    "Recipe",
    "RunResults",
    "RunView",
    "Store",
    "Watch",
    "done_cells",
    "find_garbage",
    "list_runs",
    "load_campaign",
    "load_recipe",
    "load_run",
    "look_on",
    "measured_in",
    "measured_so_far",
    "merge_packet",
    "merged_packets",
    "open_cells",
    "packaged_recipe",
    "plan_recipe",
    "published_run",
    "recipe_schema",
    "remove_garbage",
    "run_packet",
    "run_recipe",
    "show_run",
    "store_of",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'neuroprior.experiment' has no attribute {name!r}")
    value = getattr(import_module(f"neuroprior.experiment.{_HOME[name]}"), name)
    globals()[name] = value
    return value
