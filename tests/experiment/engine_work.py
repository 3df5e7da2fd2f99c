"""Work for engines to do: importable by their workers, which are other processes."""

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel

from neuroprior.experiment.engine import Answer, Failure
from neuroprior.experiment.store import CHECKPOINT
from neuroprior.experiment.worker import work_far_away


class Work(BaseModel):
    name: str
    what: str = "write"


def do(work: Work, inputs: Mapping[str, Path], out: Path, say) -> None:
    """Write the names of all that came before; or fail in the way that the work asks for."""
    match work.what:
        case "fail":
            print("it was going so well", flush=True)
            raise RuntimeError("asked to fail")
        case "die once":
            first = out.parents[1] / ".died"
            if not first.exists():
                first.touch()
                (out / CHECKPOINT).write_text("kept")
                os.kill(os.getpid(), signal.SIGKILL)
            assert (out / CHECKPOINT).read_text() == "kept"
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "sleep":
            say("sleeping", 0.5)
            time.sleep(2.5)
        case "tell its environment":
            began = Path("/proc/self/environ").read_bytes().decode().split("\0")
            (out / "began").write_text("\n".join(line for line in began if line.startswith(("OMP_", "NEUROPRIOR_"))))
            (out / "now").write_text("\n".join(f"{name}={value}" for name, value in os.environ.items()))
    before = [(inputs[name] / "said").read_text() for name in sorted(inputs)]
    (out / "said").write_text(" ".join([*before, work.name]))


def blind_at_first(step, root: Path, *arguments) -> Answer:
    """Work on a node that does not see the store; when it is tried again, on one that does."""
    if not (first := root / ".blind").exists():
        first.touch()
        return Failure(step, "node a does not see the store", elsewhere=True)
    return work_far_away(step, root, *arguments)


def blind(step, root: Path, *arguments) -> Answer:
    """Work on a node that never sees the store."""
    return Failure(step, "node a does not see the store", elsewhere=True)
