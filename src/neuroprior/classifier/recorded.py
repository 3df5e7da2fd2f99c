"""Work on a GPU that is recorded once and replayed: one launch in place of a thousand."""

from collections.abc import Callable, Mapping
from typing import Generic, TypeAlias, TypeVar

import torch

Results = TypeVar("Results")
Tape: TypeAlias = Callable[[Callable[[], None]], Callable[[], None]]
"""work -> again: does the work once, and returns what does the same operations again, on the same memory."""

_AS_WRITTEN = 3  # calls before a recording: libraries set themselves up, momentum begins


def as_written(work: Callable[[], None]) -> Callable[[], None]:
    """A tape that records nothing: the work is done anew each time."""
    work()
    return work


class Recorded(Generic[Results]):
    """`work(given)`, replayed: `given` is copied to where the recording reads, and what it wrote is returned.

    Calls that give tensors of other names or shapes have a recording of their own; the first three of each run as
    written. The results lie in the recording's memory: the next call writes over them. `work` must do the same
    operations at each call, wait for nothing, and keep what it changes in place.
    """

    def __init__(
        self, work: Callable[[Mapping[str, torch.Tensor]], Results], device: torch.device, tape: Tape | None = None
    ) -> None:
        self._work, self._device = work, device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._tape = tape if tape is not None else self._on_cuda
        self._calls: dict[tuple[object, ...], int] = {}
        self._kept: dict[tuple[object, ...], tuple[dict[str, torch.Tensor], Callable[[], None], list[Results]]] = {}

    def __call__(self, given: Mapping[str, torch.Tensor]) -> Results:
        """Do the work, as written or from the recording."""
        kind = tuple((name, tuple(value.shape)) for name, value in given.items())
        if kind in self._kept:
            read, again, results = self._kept[kind]
            for name, value in given.items():
                read[name].copy_(value, non_blocking=True)
            again()
            return results[0]
        read = {name: value.to(self._device, non_blocking=True, copy=True) for name, value in given.items()}
        self._calls[kind] = self._calls.get(kind, 0) + 1
        results = []

        def work() -> None:
            results[:] = [self._work(read)]

        if self._calls[kind] <= _AS_WRITTEN:
            self._beside(work)
        else:
            self._kept[kind] = (read, self._tape(work), results)
        return results[0]

    def _beside(self, work: Callable[[], None]) -> None:
        """On the stream that will be recorded, so that nothing made now belongs to another one."""
        if self._stream is None:
            work()
            return
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            work()
        torch.cuda.current_stream(self._device).wait_stream(self._stream)

    def _on_cuda(self, work: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(self._device)
        with torch.cuda.graph(graph, stream=self._stream):
            work()
        graph.replay()  # recording does nothing yet
        return graph.replay
