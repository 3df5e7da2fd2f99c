"""A run while it runs: a table in a terminal, plain lines elsewhere; for `neuroprior run`, `demo` and `watch`."""

import sys
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import neuroprior as npr
from neuroprior.cli.tables import duration

if TYPE_CHECKING:
    from neuroprior.experiment.watching import RunView, StepView

_LOOKS = 1.0  # seconds between looks
_QUIET = 10.0  # seconds without anybody at work after which a run is taken for stopped
_STYLES = {"done": "green", "at work": "bold", "stopped": "yellow", "failed": "red", "to do": "dim"}
_BAR = 20  # characters


class LiveRun(AbstractContextManager["LiveRun"]):
    """The run in a folder: in a terminal a table of its steps, looked at each second; elsewhere a line a change."""

    def __init__(self, out: Path) -> None:
        from rich.console import Console
        from rich.live import Live

        self._out = out
        self._said: dict[str, str] = {}
        console = Console(stderr=True)
        self._live: Any = None
        if console.is_terminal:
            self._live = Live(get_renderable=self._drawn, console=console, refresh_per_second=1 / _LOOKS)
            self._console = console

    def _drawn(self) -> Any:
        from neuroprior.experiment import look_on

        try:
            return table(look_on(self._out), self._console.height)
        except npr.InputError:  # nothing is planned yet
            return ", ".join(f"{label}: {what}" for label, what in self._said.items()) or "preparing"

    def update(self, label: str, what: str, part: float) -> None:
        """Hear what a step is doing."""
        if self._live is None and self._said.get(label) != what:
            print(f"{label}: {what}", file=sys.stderr, flush=True)
        self._said[label] = what

    def __enter__(self) -> "LiveRun":
        (self._live or nullcontext()).__enter__()
        return self

    def __exit__(self, *details: Any) -> None:
        if self._live is not None:
            self._live.__exit__(*details)


def table(view: "RunView", height: int) -> Any:
    """Return the run as a table of at most `height` lines: what is at work first, where all have no room."""
    from rich.table import Table
    from rich.text import Text

    room = max(3, height - 5)
    steps = list(view.steps)
    if len(steps) > room:
        order = {"at work": 0, "failed": 1, "stopped": 2, "to do": 3, "done": 4}
        steps = sorted(steps, key=lambda step: order[step.state])[:room]
    drawn = Table(title=headline(view), title_justify="left", box=None, pad_edge=False)
    for name in ("step", "", "what", "took", "left"):
        drawn.add_column(name, no_wrap=True, overflow="ellipsis")
    for step in steps:
        full = round(_BAR * step.part)
        drawn.add_row(
            Text(step.label, style=_STYLES[step.state]),
            Text("━" * full, style="green") + Text("─" * (_BAR - full), style="dim"),
            Text(step.what),
            _time(step.seconds),
            _time(step.seconds_left),
        )
    if len(steps) < len(view.steps):
        drawn.add_row(Text(f"and {len(view.steps) - len(steps)} more", style="dim"))
    return drawn


def headline(view: "RunView") -> str:
    """Say how far a run is in one line."""
    counts = [f"{view.count('done')} of {len(view.steps)} steps done"]
    counts += [f"{view.count(state)} {state}" for state in ("at work", "failed", "stopped") if view.count(state)]
    if view.seconds_left is not None and not view.done and view.count("at work"):
        counts.append(f"about {duration(view.seconds_left)} left")
    return f"{view.folder}: {', '.join(counts)}"


def follow(out: Path, once: bool) -> None:
    """Look on until the run is done or nobody has been at work on it for a while; or only `once`."""
    from rich.console import Console
    from rich.live import Live

    from neuroprior.experiment import look_on

    console = Console()
    view = look_on(out)
    if once or view.done:
        if console.is_terminal:
            console.print(table(view, len(view.steps) + 6))
        else:
            _print_changes(view, {})
            print(headline(view))
        return
    quiet_since = time.monotonic()
    said: dict[str, str] = {}
    live: Any = Live(table(view, console.height), console=console, auto_refresh=False) if console.is_terminal else None
    with live or nullcontext():
        while True:
            if live is not None:
                live.update(table(view, console.height), refresh=True)
            else:
                _print_changes(view, said)
            if view.count("at work") or view.driven:
                quiet_since = time.monotonic()
            if view.done or time.monotonic() - quiet_since > _QUIET:
                break
            time.sleep(_LOOKS)
            view = look_on(out)
    print(headline(view))
    if not view.done:
        print("nobody is at work on it: the command that began it goes on")


def _print_changes(view: "RunView", said: dict[str, str]) -> None:
    for step in view.steps:
        if said.get(step.label) != step.what:
            print(_line(step), flush=True)
            said[step.label] = step.what


def _line(step: "StepView") -> str:
    if step.state != "at work":
        return f"{step.label}: {step.what}"
    left = "" if step.seconds_left is None else f", about {duration(step.seconds_left)} left"
    return f"{step.label}: {step.what} ({step.part:.0%}{left})"


def _time(seconds: float | None) -> str:
    return "" if seconds is None else duration(seconds)
