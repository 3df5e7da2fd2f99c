"""Where real data is looked for."""

import os
from pathlib import Path

DATA = Path(os.environ.get("NEUROPRIOR_DATA") or Path(__file__).parents[2] / "shared" / "data")
