"""Progress of long work: bars in a terminal, plain lines elsewhere."""

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any


class Progress(AbstractContextManager["Progress"]):
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

    def update(self, label: str, what: str, part: float, note: str = "") -> None:
        """Show what a step is doing; `note` is what changes all the time, and no reason for another plain line."""
        said = f"{what}, {note}" if note else what
        if self._bars is not None:
            if label not in self._tasks:
                self._tasks[label] = self._bars.add_task(said, total=1.0, label=label)
            self._bars.update(self._tasks[label], description=said, completed=part)
        elif self._said.get(label) != what:
            print(f"{label}: {said}", file=sys.stderr, flush=True)
            self._said[label] = what

    def __enter__(self) -> "Progress":
        (self._bars or nullcontext()).__enter__()
        return self

    def __exit__(self, *details: Any) -> None:
        if self._bars is not None:
            self._bars.__exit__(*details)
