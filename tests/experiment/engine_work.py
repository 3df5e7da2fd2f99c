"""Work for engines to do: importable by their workers, which are other processes."""

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel

from neuroprior.experiment.store import CHECKPOINT


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
    before = [(inputs[name] / "said").read_text() for name in sorted(inputs)]
    (out / "said").write_text(" ".join([*before, work.name]))
