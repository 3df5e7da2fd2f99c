"""Training logs as they are written: one line of values a step, as JSON, for TensorBoard, for several at once."""

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol, TextIO, runtime_checkable

from neuroprior.files import appearing_whole, said_of
from neuroprior.types import InputError

__all__ = ["JsonLines", "NoLog", "Several", "TensorBoard", "TrainingLog"]

Values = Mapping[str, float | int]
"""Values by name: `task_loss`, `images_per_second`, and by layer `gamma/layer1`, `similarity_correlation/layer1`."""


@runtime_checkable
class TrainingLog(Protocol):
    """Where a training's values go, step by step."""

    def write(self, step: int, values: Values) -> None:
        """Keep the values of this step, even if the process is killed right afterwards."""

    def go_on_from(self, step: int) -> None:
        """Forget this and all later steps: the training takes them (again) from here; 0 begins anew."""

    def close(self) -> None:
        """Nothing more will be written."""


class NoLog:
    """Keeps nothing."""

    def write(self, step: int, values: Values) -> None:
        """Do nothing."""

    def go_on_from(self, step: int) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class JsonLines:
    """One line a step at `path`: `{"step": 120, "task_loss": 1.25, "gamma/layer1": 0.2}`; null is nan or infinite."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: TextIO | None = None

    def write(self, step: int, values: Values) -> None:
        """Add a line. Raises `TypeError` for a value named `step`, `OSError` naming the file for a full disk."""
        line = json.dumps(dict(step=step, **{name: _finite(value) for name, value in values.items()}))
        with said_of(self.path):
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open("a", encoding="utf-8")
            self._file.write(line + "\n")
            self._file.flush()

    def go_on_from(self, step: int) -> None:
        """Drop the lines of this and later steps, and a last line that was cut off.

        The file is replaced whole or not at all. Raises `InputError` where another line is none of this log's.
        """
        self.close()
        if not self.path.exists():
            return
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        steps = [_step_of(line) for line in lines]
        if lines and steps[-1] is None:
            del lines[-1], steps[-1]
        if None in steps:
            raise InputError(f"{self.path}: line {steps.index(None) + 1} is not of a training log; move the file away")
        with appearing_whole(self.path) as temporary:
            kept = [line + "\n" for line, at in zip(lines, steps, strict=True) if at is not None and at < step]
            temporary.write_text("".join(kept), encoding="utf-8")

    def close(self) -> None:
        """Close the file; writing opens it again."""
        if self._file is not None:
            closing, self._file = self._file, None  # also where it fails: what is left unwritten stays so
            with said_of(self.path):
                closing.close()


class TensorBoard:
    """Event files in `folder`, for `tensorboard --logdir`. Raises `InputError` where tensorboard is not installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._new_writer = _summary_writer()
        self._writer: Any = None

    def write(self, step: int, values: Values) -> None:
        """Add one scalar a value."""
        if self._writer is None:
            self._writer = self._new_writer(str(self.folder))
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def go_on_from(self, step: int) -> None:
        """Begin a new event file, which tells TensorBoard to leave out this and later steps of the earlier ones."""
        self.close()
        self._writer = self._new_writer(str(self.folder), purge_step=step)

    def close(self) -> None:
        """Close the event file; writing begins another."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class Several:
    """Each of `logs` gets everything; all are closed, even if closing one fails."""

    def __init__(self, logs: Sequence[TrainingLog]) -> None:
        self.logs = tuple(logs)

    def write(self, step: int, values: Values) -> None:
        """Write to each."""
        for log in self.logs:
            log.write(step, values)

    def go_on_from(self, step: int) -> None:
        """Let each forget this and later steps."""
        for log in self.logs:
            log.go_on_from(step)

    def close(self) -> None:
        """Close each."""
        with ExitStack() as stack:
            for log in self.logs:
                stack.callback(log.close)


def _finite(value: float | int) -> float | None:
    return float(value) if math.isfinite(value) else None  # JSON has no nan, and few readers forgive one


def _step_of(line: str) -> int | None:
    """Return the step of a line of `JsonLines`; None for any other line."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    step = value.get("step") if isinstance(value, dict) else None
    return step if isinstance(step, int) else None


def _summary_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError(
            "TensorBoard log: tensorboard is not installed; pip install 'neuroprior[tensorboard]', or leave it out "
            "(compute.tensorboard=false)"
        ) from None
    return SummaryWriter
