"""The command line: parses, calls, prints. Everything it does is a function of the package."""

import json
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from neuroprior import __version__
from neuroprior.types import InputError, SimilarityTarget

if TYPE_CHECKING:
    from neuroprior.experiment import Recipe

app = typer.Typer(
    name="neuroprior",
    help="Measure how alike a brain finds images, teach any network to agree, and prove what that did.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
target_app = typer.Typer(help="Similarity targets: make one, look at one.", no_args_is_help=True)
app.add_typer(target_app, name="target")

Out = Annotated[Path, typer.Option(help="Folder of the run; what is finished in it is not done again.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override, e.g. scale=tiny.")]
Engine = Annotated[Literal["local"], typer.Option(help="Where steps run: local, in processes on this machine.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of lines.")]
_INTERRUPTED = 130  # the exit status of a program that Ctrl-C ended


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: one line on stderr and exit 2 for what the user can mend, a traceback only with --debug."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    try:
        status = app(given, standalone_mode=False)
    except InputError as error:
        _fail(str(error), debug)
    except (KeyboardInterrupt, typer.Abort):
        _say_stopped()
        raise SystemExit(_INTERRUPTED) from None
    except typer.TyperException as error:  # a command or option that does not exist, a missing argument
        _fail(f"{error.format_message()} (see `neuroprior --help`)", debug)
    except OSError as error:
        _fail(f"{error.filename or ''}: {error.strerror or error}".removeprefix(": "), debug)
    else:
        if status == _INTERRUPTED:
            _say_stopped()
        raise SystemExit(status or 0)


def _say_stopped() -> None:
    print("neuroprior: stopped; the same command goes on from here", file=sys.stderr)


def _say_version(asked: bool) -> bool:
    if asked:
        print(f"neuroprior {__version__}")
        raise typer.Exit
    return asked


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version and leave.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error, anywhere on the line.")
    ] = False,
) -> None:
    """Measure how alike a brain finds images, teach any network to agree, and prove what that did."""


@app.command()
def demo(out: Out = Path("runs/demo"), set_: Set = None) -> None:
    """Run the whole pipeline on what the package itself holds; ends with a report.

    Example: neuroprior demo --out runs/demo
    """
    from neuroprior.experiment import packaged_recipe

    _run(packaged_recipe("demo", set_ or ()), out)


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.")],
    set_: Set = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the run (runs/NAME, or runs/NAME-tiny); resumed if there."),
    ] = None,
    engine: Engine = "local",
) -> None:
    """Run a recipe, or finish what is there.

    Example: neuroprior run recipes/quick.yaml --set scale=tiny --out runs/try
    """
    from neuroprior.experiment import load_recipe

    checked = load_recipe(recipe, set_ or ())
    suffix = "-tiny" if checked.scale == "tiny" else ""
    _run(checked, out or Path("runs") / f"{checked.name}{suffix}")


@app.command()
def report(
    run_dir: Annotated[Path, typer.Argument(help="Folder of a run.")],
    publish: Annotated[
        Path | None,
        typer.Option(help="Also write figures, tables, recipe and provenance here, small enough to commit."),
    ] = None,
) -> None:
    """Write the report of a run again, as far as the run is finished.

    Example: neuroprior report runs/quick --publish docs/results/quick
    """
    from neuroprior.experiment import load_run
    from neuroprior.report import publish as publish_results
    from neuroprior.report import write_report

    if publish is not None and publish.is_file():
        raise InputError(f"--publish {publish}: is a file; name a folder")
    results = load_run(run_dir)
    print(f"Report: {write_report(results)}")
    if publish is not None:
        print(f"Published {len(publish_results(results, publish))} files in {publish}")


@target_app.command("build")
def target_build(
    twin: Annotated[Path, typer.Option(help="A Sensorium 2022 checkpoint.")],
    stimuli: Annotated[Path, typer.Option(help="An .npz with images, names and tier.")],
    out: Annotated[Path, typer.Option(help="File to write, e.g. target.safetensors.")],
    tier: Annotated[str, typer.Option(help="Which stimuli: train, oracle, or all.")] = "train",
    json_: Json = False,
) -> None:
    """Make a similarity target from a digital twin and stimuli (Eq. 2).

    Example: neuroprior target build --twin twin.pth --stimuli stimuli.npz --out target.safetensors
    """
    from neuroprior.recordings import load_stimuli
    from neuroprior.twin import load_twin, target_from_twin

    if out.is_dir() or any(parent.is_file() for parent in out.parents):
        raise InputError(f"--out {out}: is a folder, or lies below a file; name a file that can be written")
    if tier not in ("train", "oracle", "all"):
        raise InputError(f"--tier {tier}: choose train, oracle or all")
    shown = load_stimuli(stimuli) if tier == "all" else load_stimuli(stimuli, tier=tier)  # type: ignore[arg-type]
    with _Progress() as progress:
        made = target_from_twin(
            load_twin(twin), shown, progress=lambda done, of: progress.update("twin", "predicting", done / of)
        )
    made.save(out)
    _describe(made, json_)
    print(f"Wrote {out}", file=sys.stderr)


@target_app.command("show")
def target_show(
    path: Annotated[Path, typer.Argument(help="A target file.")],
    json_: Json = False,
) -> None:
    """Say what a target is.

    Example: neuroprior target show target.safetensors --json
    """
    _describe(SimilarityTarget.load(path), json_)


def _describe(target: SimilarityTarget, as_json: bool) -> None:
    import numpy as np

    pairs = target.matrix[np.triu_indices(len(target), k=1)]
    said: dict[str, str | float | int] = {
        "images": len(target),
        "source": target.source,
        "scans": target.n_scans,
        "stimuli digest": target.stimuli_digest,
        "mean off the diagonal": float(pairs.mean()),
        "standard deviation off the diagonal": float(pairs.std()),
        "smallest": float(pairs.min()),
        "largest off the diagonal": float(pairs.max()),
        **target.details,
    }
    if as_json:
        print(json.dumps(said))
    else:
        for key, value in said.items():
            print(f"{key}: {value:.4f}" if isinstance(value, float) else f"{key}: {value}")


def _run(recipe: "Recipe", out: Path) -> None:
    from neuroprior.experiment import load_run, run_recipe
    from neuroprior.report import write_report

    started = time.monotonic()
    with _Progress() as progress:
        failures = run_recipe(recipe, out, command=["neuroprior", *sys.argv[1:]], watch=progress.update)
    for failure in failures:
        print(f"neuroprior: step {failure.step.label} failed: {failure.reason}", file=sys.stderr)
    page = write_report(load_run(out))
    print(f"Done in {time.monotonic() - started:.0f} s. Report: {page.resolve()}")
    if failures:
        raise typer.Exit(1)


class _Progress(AbstractContextManager["_Progress"]):
    """Bars in a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        console = Console(stderr=True)
        self._bars: Any = None
        if console.is_terminal:
            columns = (TextColumn("{task.fields[label]:<28}"), BarColumn(), TextColumn("{task.description}"))
            self._bars = Progress(*columns, TimeElapsedColumn(), console=console)
        self._tasks: dict[str, Any] = {}
        self._said: dict[str, str] = {}

    def update(self, label: str, what: str, part: float) -> None:
        """Show what a step is doing."""
        if self._bars is not None:
            if label not in self._tasks:
                self._tasks[label] = self._bars.add_task(what, total=1.0, label=label)
            self._bars.update(self._tasks[label], description=what, completed=part)
        elif self._said.get(label) != what:
            print(f"{label}: {what}", file=sys.stderr, flush=True)
            self._said[label] = what

    def __enter__(self) -> "_Progress":
        (self._bars or nullcontext()).__enter__()
        return self

    def __exit__(self, *details: Any) -> None:
        if self._bars is not None:
            self._bars.__exit__(*details)


def _fail(message: str, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    print(f"neuroprior: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(2)
