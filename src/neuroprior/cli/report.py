"""`neuroprior report`: a run's page written again, and several runs beside each other."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import neuroprior as npr
from neuroprior.cli.options import Json
from neuroprior.cli.tables import print_table


class _RunOrCommand(TyperGroup):
    """`report RUN` beside `report compare RUN RUN`: what is no command's name is a run's folder.

    A folder named like a command has to be said as a path; who forgot that is told so.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.TyperException as error:  # what was given does not fit the command
            name = ctx.invoked_subcommand
            if name is None or not Path(name).is_dir():
                raise
            said = error.format_message().rstrip(".")
            raise npr.InputError(
                f"report {name}: {said}; {name} is a command here: for the folder of that name give "
                f"`neuroprior report ./{name}`"
            ) from None


app = typer.Typer(
    cls=_RunOrCommand,
    help="Write the report of a run again, or compare several runs.\n\n"
    "Example: neuroprior report runs/quick --publish docs/results/quick\n\n"
    "Of a published folder: neuroprior report docs/results/quick --out build/quick",
    no_args_is_help=True,
)


@app.command("run")
def run(
    run_dir: Annotated[Path, typer.Argument(help="Folder of a run, or a published one.")],
    out: Annotated[
        Path | None, typer.Option(help="Of a published folder, where its page goes (without: into the folder).")
    ] = None,
    publish: Annotated[
        Path | None,
        typer.Option(help="Also write figures, tables, recipe and provenance here, small enough to commit."),
    ] = None,
) -> None:
    """Write the report of a run again, as far as the run is finished; `run` may be left out.

    Of a published folder: from its numbers alone, without images, matrices and single attacks.

    Example: neuroprior report runs/quick --publish docs/results/quick
    """
    from neuroprior.experiment import load_run, published_run
    from neuroprior.report import publish as publish_results
    from neuroprior.report import write_report

    if publish is not None and publish.is_file():
        raise npr.InputError(f"--publish {publish}: is a file; name a folder")
    published = (run_dir / "metrics.parquet").is_file() and not (run_dir / "plan.json").exists()
    if out is not None and not published:
        raise npr.InputError("--out: is for a published folder; the report of a run goes into the run's folder")
    if publish is not None and published:
        raise npr.InputError("--publish: is for a run; this folder is a published one already")
    results = published_run(run_dir, out or run_dir) if published else load_run(run_dir)
    print(f"Report: {write_report(results)}")
    if publish is not None:
        print(f"Published {len(publish_results(results, publish))} files in {publish}")


def _as_json(values: Mapping[int, float]) -> dict[int, float | None]:
    return {seed: value if math.isfinite(value) else None for seed, value in values.items()}


@app.command("compare")
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, or published ones; the first is the reference.")],
    out: Annotated[Path | None, typer.Option(help="Also write a page and a CSV into this folder.")] = None,
    json_: Json = False,
) -> None:
    """Put several runs beside each other: their numbers, the differences to the first, how their recipes differ.

    Example: neuroprior report compare runs/quick docs/results/quick --out runs/compared
    """
    from neuroprior.experiment import measured_in
    from neuroprior.report.compare import compare_runs, compare_table, recipe_differences, run_names, write_comparison

    if out is not None and out.is_file():
        raise npr.InputError(f"--out {out}: is a file; name a folder")
    read = [measured_in(folder) for folder in runs]
    found, names = compare_runs(read), run_names(read)
    page = None if out is None else write_comparison(read, out)
    if json_:
        rows = [
            {
                "condition": one.condition.name,
                "metric": one.metric,
                "x": one.x,
                "by_seed": list(map(_as_json, one.by_seed)),
            }
            for one in found
        ]
        settings = {key: list(values) for key, values in recipe_differences(read)}
        print(json.dumps({"runs": names, "numbers": rows, "settings": settings, "page": page and str(page)}))
        return
    table = compare_table(read, found)
    print_table(table.header, table.rows)
    for key, values in recipe_differences(read):
        print(f"{key}: {' | '.join(values)}")
    if page is not None:
        print(f"Page: {page}")
