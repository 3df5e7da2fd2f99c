"""`neuroprior demo`, `run` and `watch`."""

import json
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import neuroprior as npr
from neuroprior.cli.live import LiveRun, follow
from neuroprior.cli.options import Engine, Json, Out, Set
from neuroprior.cli.progress import Progress
from neuroprior.cli.tables import duration, print_table, size

if TYPE_CHECKING:
    from neuroprior.experiment import Forecast, Recipe

GPUs = Annotated[int | None, typer.Option(min=1, help="With --plan: as if on so many GPUs, which need not be here.")]
TeraFLOPs = Annotated[
    float,
    typer.Option(
        min=1e-3, help="With --gpus: 10^12 operations a second that each is taken to do, in networks' passes."
    ),
]
Plan = Annotated[bool, typer.Option("--plan", help="Only print the graph and what it will cost; nothing is run.")]


def demo(
    out: Out = Path("runs/demo"),
    set_: Set = None,
    engine: Engine = "local",
    plan: Plan = False,
    json_: Json = False,
) -> None:
    """Run the whole pipeline on what the package itself holds; ends with a report.

    Example: neuroprior demo --out runs/demo
    """
    from neuroprior.experiment import packaged_recipe

    _run(packaged_recipe("demo", set_ or ()), out, engine, plan, json_)


def run(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.")],
    set_: Set = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the run (runs/NAME, or runs/NAME-tiny); resumed if there."),
    ] = None,
    engine: Engine = "local",
    plan: Plan = False,
    gpus: GPUs = None,
    teraflops: TeraFLOPs = 60.0,
    json_: Json = False,
) -> None:
    """Run a recipe, or finish what is there.

    Example: neuroprior run recipes/quick.yaml --set scale=tiny --out runs/try
    """
    from neuroprior.experiment import load_recipe

    checked = load_recipe(recipe, set_ or ())
    suffix = "-tiny" if checked.scale == "tiny" else ""
    _run(checked, out or Path("runs") / f"{checked.name}{suffix}", engine, plan, json_, gpus, teraflops)


def watch(
    run_dir: Annotated[Path, typer.Argument(help="Folder of a run.")],
    once: Annotated[bool, typer.Option("--once", help="Look once, and leave.")] = False,
    json_: Json = False,
) -> None:
    """Look on while a run runs, from another terminal: its steps, how far each is, what is left.

    Example: neuroprior watch runs/quick
    """
    if not json_:
        follow(run_dir, once)
        return
    from neuroprior.experiment import look_on

    print(json.dumps({**asdict(look_on(run_dir)), "folder": str(run_dir)}))


def _run(
    recipe: "Recipe",
    out: Path,
    engine: Engine,
    plan: bool,
    as_json: bool,
    gpus: int | None = None,
    teraflops: float = 60.0,
) -> None:
    from neuroprior.experiment import AssumedGPUs, load_run, plan_recipe, run_recipe
    from neuroprior.report import write_report

    if plan:
        with Progress() as progress:
            assumed = None if gpus is None else AssumedGPUs(gpus, teraflops)
            cost = plan_recipe(recipe, out, watch=progress.update, assumed=assumed)
        _say_plan(cost, recipe, out, as_json)
        if gpus is not None and not as_json:
            print(
                f"Assumed, not measured: {gpus} GPUs of {teraflops:g} teraFLOP/s each; what this machine's passes take "
                "was scaled to them."
            )
        return
    if gpus is not None:
        raise npr.InputError("--gpus: is for --plan; a run takes the GPUs that are there (compute.device=cuda)")
    started = time.monotonic()
    with LiveRun(out) as live:
        command = ["neuroprior", *sys.argv[1:]]
        failures = run_recipe(recipe, out, command=command, watch=live.update, engine=engine)
    for failure in failures:
        print(f"neuroprior: step {failure.step.label} failed: {failure.reason}", file=sys.stderr)
        for line in failure.log:
            print(f"    {line}", file=sys.stderr)
    page = None if any(failure.step.kind == "target" for failure in failures) else write_report(load_run(out))
    seconds = time.monotonic() - started
    if as_json:
        failed = {failure.step.label: failure.reason for failure in failures}
        report = None if page is None else str(page)
        print(json.dumps({"out": str(out), "report": report, "seconds": round(seconds, 1), "failed": failed}))
    elif page is not None:
        print(f"Done in {seconds:.0f} s. Report: {page.resolve()}")
    if failures:
        raise typer.Exit(1)


def _say_plan(forecast: "Forecast", recipe: "Recipe", out: Path, as_json: bool) -> None:
    costs = forecast.costs
    if as_json:
        labels = {cost.step.key: cost.step.label for cost in costs}
        steps = [
            {
                "label": cost.step.label,
                "needs": [labels[key] for _, key in cost.step.inputs],
                "done": cost.done,
                "seconds": round(cost.seconds, 1),
                "memory_mb": round(cost.memory_mb),
                "disk_mb": round(cost.disk_mb, 1),
            }
            for cost in costs
        ]
        whole = {
            "seconds": round(forecast.seconds, 1),
            "memory_mb": round(forecast.memory_mb),
            "disk_mb": round(forecast.disk_mb, 1),
        }
        print(json.dumps({"steps": steps, "workers": forecast.workers, **whole}))
        return
    compute = forecast.compute
    print(
        f"{recipe.name}: {len(costs)} steps into {out}, {compute.workers} at a time "
        f"({compute.device}, {compute.precision}, threads of each: {compute.threads})"
    )
    rows = []
    for group in forecast.groups():
        first = group[0]
        left = sum(not cost.done for cost in group)
        state = "all done" if not left else f"{left} to do" if left == len(group) else f"{left} of {len(group)} to do"
        needs = ", ".join(name for name, _ in first.step.inputs) or "-"
        one = (duration(first.seconds), size(first.memory_mb), size(first.disk_mb))
        rows.append((first.step.label.rpartition("-seed")[0] or first.step.label, state, needs, *one))
    print_table(("step", "how many", "needs", "time of one", "memory", "disk"), rows)
    print(
        f"All that is to do: about {duration(forecast.seconds)} from start to end, "
        f"{size(forecast.memory_mb)} of memory, {size(forecast.disk_mb)} of disk ({size(_free_mb(out))} free). "
        "Nothing was run."
    )


def _free_mb(out: Path) -> float:
    there = next(folder for folder in (out.resolve(), *out.resolve().parents) if folder.is_dir())
    return shutil.disk_usage(there).free / 2**20
