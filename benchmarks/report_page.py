"""A report of 10,000 rows of metrics: how large it is, and how long a browser takes to open it.

    python benchmarks/report_page.py [--json] [--rows 10000]

The demo at tiny size is run once; its report is then made of 20 conditions with 20 seeds and 25 noise levels in place
of what it measured. Chromium (Debian's package) opens it without a window, from the start of the navigation to the end
of the load event, five times; beside it a page of the same styles and no content, in turn.
"""

import argparse
import dataclasses
import html
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from measured import at_most, show, spread

from neuroprior.experiment import load_run, packaged_recipe, run_recipe
from neuroprior.experiment.results import METRICS_SCHEMA, RunResults
from neuroprior.report import write_report

REPEATS = 5
SEEDS, LEVELS = 20, 25
_TIMED = """<script>addEventListener("load", () => setTimeout(() => {
  const [entry] = performance.getEntriesByType("navigation"); document.title = JSON.stringify(entry.loadEventEnd);
}, 0));</script></body>"""


def many(results: RunResults, rows: int) -> RunResults:
    """The same run with so many rows: conditions at different weights, accuracies that fall with noise."""
    count = max(1, rows // (SEEDS * LEVELS))
    first = next(card for card in results.conditions if card.name == "neural_model")
    cards = tuple(
        dataclasses.replace(
            first,
            name=f"neural_model@alpha={k + 1}" if k else "neural_model",
            label=f"Neural (model) α {k + 1}" if k else first.label,
            alpha=float(k + 1),
            options=(("alpha", k + 1),) if k else (),
        )
        for k in range(count)
    )
    noise = np.random.default_rng(0)
    levels = [round(float(x), 4) for x in np.linspace(0, 0.24, LEVELS)]
    made = [
        dict(
            condition=card.name,
            seed=seed,
            metric="noise_accuracy",
            tap=None,
            x=x,
            value=float(np.clip(0.9 - 3 * x + 0.01 * noise.standard_normal(), 0, 1)),
            n=10000,
        )
        for card in cards
        for seed in range(SEEDS)
        for x in levels
    ]
    return dataclasses.replace(
        results,
        conditions=cards,
        metrics=pa.Table.from_pylist(made, schema=METRICS_SCHEMA),
        noise_levels=tuple(levels),
        targets={},
        missing=(),
    )


def opened(chromium: str, page: Path, folder: Path) -> float:
    """Seconds from the start of the navigation to the end of the load event."""
    timed = folder / f"timed-{page.stem}.html"
    timed.write_text(page.read_text().replace("</body>", _TIMED))
    command = [chromium, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    command += ["--dump-dom", "--timeout=20000", timed.as_uri()]
    said = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False).stdout
    title = re.search(r"<title>(.*?)</title>", said, re.S)
    assert title is not None, "the browser gave no page"
    return float(json.loads(html.unescape(title[1]))) / 1000


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--json", action="store_true", help="end with one JSON object on a line")
    arguments = parser.parse_args()
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("report_page: chromium is not installed (apt-get install chromium)")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = ["scale=tiny", "conditions=[none, neural_model]", "compute={device: cpu, precision: float32}"]
        assert not run_recipe(packaged_recipe("demo", settings), folder / "run", command=[], watch=lambda *_: None)
        results = many(load_run(folder / "run"), arguments.rows)
        start = time.perf_counter()
        page = write_report(results)
        writing = time.perf_counter() - start
        empty = folder / "empty.html"
        empty.write_text(re.sub(r"<main>.*</main>", "<main></main>", page.read_text(), flags=re.S))
        seconds: dict[str, list[float]] = {"page": [], "empty": []}
        for repeat in range(1 + REPEATS):
            for what, file in (("page", page), ("empty", empty)):
                taken = opened(chromium, file, folder)
                if repeat:  # the first one makes the browser's profile
                    seconds[what].append(taken)
        show(
            "report_page",
            [
                at_most("megabytes of the page", page.stat().st_size / 1e6, 5),
                at_most("seconds until it is loaded", statistics.median(seconds["page"]), 2),
            ],
            {
                "rows of metrics": results.metrics.num_rows,
                "seconds until it is loaded": spread(seconds["page"]),
                "seconds of an empty page of the same styles": spread(seconds["empty"]),
                "seconds to write it, tables and figures as SVG and PDF too": f"{writing:.1f}",
            },
            arguments.json,
        )


if __name__ == "__main__":
    main()
