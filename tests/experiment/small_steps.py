"""Small steps for the engine to do, and to fail in the way that a test asks for."""

import errno
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel

from neuroprior.experiment.engine import run_steps
from neuroprior.experiment.engines.local import LocalEngine
from neuroprior.experiment.store import CHECKPOINT, Step


class Work(BaseModel):
    name: str
    what: str = "write"
    log: str = ""


def do(work: Work, inputs: Mapping[str, Path], out: Path, say) -> None:
    """Write the names of all that came before; or fail in the way that the work asks for."""
    if work.log:
        with Path(work.log).open("a") as log:
            log.write(f"{work.name}\n")
    match work.what:
        case "fail":
            (out / "half").write_text("x")
            raise ValueError("asked to fail")
        case "die":
            (out / "half").write_text("x")
            os.kill(os.getpid(), signal.SIGKILL)
        case "die once":
            first = out.parents[1] / ".died"
            if not first.exists():
                first.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        case "print":
            print("\n".join(f"line {k}" for k in range(9)), flush=True)
            os.system("echo from a child")
            raise RuntimeError("asked to fail\nafter printing")
        case "no space":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        case "no memory":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        case "sleep":
            time.sleep(1.5)
        case "keep":
            (out / CHECKPOINT).write_text("kept")
            (out / "half").write_text("x")
            raise ValueError("stopped")
        case "read only":
            raise PermissionError(errno.EROFS, os.strerror(errno.EROFS), str(out))
    before = [(inputs[name] / "said").read_text() for name in sorted(inputs)]
    (out / "said").write_text(" ".join([*before, work.name]))


def step(name: str, *inputs: Step, what: str = "write", log: Path | None = None, cost: float = 1.0) -> Step:
    return Step(
        "test",
        name,
        Work(name=name, what=what, log=str(log or "")),
        inputs=tuple((f"in{k}", one.key) for k, one in enumerate(inputs)),
        cost=cost,
    )


def run(steps, store, workers=2, said=None):
    watch = (lambda *a: said.append(a)) if said is not None else (lambda *_: None)
    return run_steps(steps, store, LocalEngine(store, do, workers=workers), watch=watch)
