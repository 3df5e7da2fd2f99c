"""The command line: parses, calls, prints. Everything it does is a function of the package."""

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

import neuroprior as npr
from neuroprior.cli import campaign, data, export, recipe, report, robustness, run, runs, scan, stimuli, target, twin
from neuroprior.files import disk_fault

app = typer.Typer(
    name="neuroprior",
    help="Measure how alike a brain finds images, teach any network to agree, and prove what that did.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(run.demo)
app.command()(run.run)
app.command()(run.watch)
app.command()(robustness.robustness)
app.command()(export.export)
app.add_typer(report.app, name="report")
app.add_typer(runs.app, name="runs")
app.add_typer(campaign.app, name="campaign")
app.add_typer(recipe.app, name="recipe")
app.add_typer(target.app, name="target")
app.add_typer(scan.app, name="scan")
app.add_typer(twin.app, name="twin")
app.add_typer(stimuli.app, name="stimuli")
app.add_typer(data.app, name="data")

_INTERRUPTED = 130  # the exit status of a program that Ctrl-C ended


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: one line on stderr and exit 2 for what the user can mend, a traceback only with --debug."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    try:
        status = app(given, standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        _say_stopped()
        raise SystemExit(_INTERRUPTED) from None
    except typer.TyperException as error:  # a command or option that does not exist, a missing argument
        if (
            type(error).__name__ == "NoArgsIsHelpError"
        ):  # typer's own, which it does not export: a group without a command
            print(error.format_message(), file=sys.stderr)
            raise SystemExit(2) from None
        said = error.format_message()
        quote = (
            " (in quotes, where it has blanks: --set 'KEY=[a, b]')"
            if "extra argument" in said and "--set" in given
            else ""
        )
        _fail(f"{said}{quote} (see `neuroprior --help`)", debug)
    except OSError as error:
        _fail(_disk_line(error), debug)
    except npr.InputError as error:  # after the others: looking it up imports NumPy
        _fail(str(error), debug)
    else:
        if status == _INTERRUPTED:
            _say_stopped()
        raise SystemExit(status or 0)


def _disk_line(error: OSError) -> str:
    where = Path(error.filename).parent if isinstance(error.filename, str | os.PathLike) else None
    said = disk_fault(error, where) or error.strerror or str(error)
    return f"{error.filename}: {said}" if error.filename is not None else str(said)


def _say_stopped() -> None:
    print("neuroprior: stopped; the same command goes on from here", file=sys.stderr)


def _say_version(asked: bool) -> bool:
    if asked:
        print(f"neuroprior {npr.__version__}")
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


def _fail(message: str, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    print(f"neuroprior: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(2)
