"""`neuroprior runs`: what runs there are, how far one is, and what a store can let go."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from neuroprior.cli.options import Json
from neuroprior.cli.tables import duration, print_table, size

app = typer.Typer(help="Runs: list them, look at one, tidy their store.", no_args_is_help=True)


@app.command("ls")
def ls(
    folder: Annotated[Path, typer.Argument(help="A folder of runs, or one run.")] = Path("runs"), json_: Json = False
) -> None:
    """List runs: when they were made, how much is done, what they hold.

    Example: neuroprior runs ls runs
    """
    from neuroprior.experiment import list_runs

    found = list_runs(folder)
    if json_:
        print(json.dumps({"runs": [{**asdict(run), "folder": str(run.folder)} for run in found]}))
        return
    rows = []
    for run in found:
        created = run.created.replace("T", " ").removesuffix("+00:00")
        rows.append(
            (
                str(run.folder),
                run.name,
                f"{created} (ahead of this machine's clock)" if run.from_future else created,
                f"{run.done} of {run.steps}",
                size(run.disk_mb),
            )
        )
    print_table(("run", "recipe", "made (UTC)", "steps done", "disk"), rows)


@app.command("show")
def show(run_dir: Annotated[Path, typer.Argument(help="Folder of a run.")], json_: Json = False) -> None:
    """Say of each step of a run whether it is done, and what it took.

    Example: neuroprior runs show runs/quick
    """
    from neuroprior.experiment import show_run

    states = show_run(run_dir)
    if json_:
        print(json.dumps({"steps": [{**asdict(state), "folder": str(state.folder)} for state in states]}))
        return
    rows = [
        (
            state.label,
            state.state,
            "-" if state.seconds is None else duration(state.seconds),
            "-" if state.peak_memory_mb is None else size(state.peak_memory_mb),
            size(state.disk_mb),
            state.folder.name,
        )
        for state in states
    ]
    print_table(("step", "state", "time", "memory", "disk", "folder"), rows)


@app.command("gc")
def gc(
    place: Annotated[Path, typer.Argument(help="A run's folder, or a store.")],
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; without this it is only listed.")] = False,
    json_: Json = False,
) -> None:
    """List, and with --yes remove, what no run needs: steps of runs that are gone, rests of stopped ones.

    Example: neuroprior runs gc runs/quick --yes
    """
    from neuroprior.experiment import Store, find_garbage, remove_garbage, store_of

    # A run that is named is there, wherever the store believes it to be: it may have been moved.
    alive = [place] if (place / "plan.json").exists() else []
    store = Store(place) if (place / "store.json").exists() else store_of(place)
    found = find_garbage(store, *alive)
    if yes:
        remove_garbage(store, found, *alive)
    if json_:
        said = [{**asdict(garbage), "folder": str(garbage.folder)} for garbage in found]
        print(json.dumps({"store": str(store.root), "removed": yes, "garbage": said}))
        return
    if found:
        rows = [(garbage.folder.name, garbage.why, size(garbage.disk_mb)) for garbage in found]
        print_table(("folder", "why", "disk"), rows)
    total = size(sum(garbage.disk_mb for garbage in found))
    what = "removed" if yes else "can go; --yes removes them"
    print(f"{store.root}: {len(found)} folders, {total}, {what}" if found else f"{store.root}: nothing can go")
