"""A simulated mouse's recording at the paper's size: seconds and memory, in a process of its own.

    python benchmarks/simulate.py [--json] [--neurons 8000] [--images 5000] [--oracle 100]

8,000 Gabor cells see 5,000 photographs once and 100 ten times, through behaviour, gaze shifts and shared noise, with
gamma noise of their own; details say the same of counts (negative binomial). Memory is the most that the whole process
ever held, with libraries and photographs; the photographs are made before the clock starts.
"""

import argparse
import subprocess
import sys
import time

from measured import at_most, most_held, show

from neuroprior.recordings import Noise, packaged_photographs, simulate_scan

KINDS = ("gamma", "negative_binomial")
REPEATS = 10
GIB = 1 << 30


def measure(kind: str, neurons: int, images: int, oracle: int) -> None:
    """Print the seconds that a scan takes, the most bytes ever held, and its trials (in a process of its own)."""
    stimuli = packaged_photographs(n_train=images, n_oracle=oracle)
    shown = stimuli.ids[-oracle:]
    start = time.perf_counter()
    made = simulate_scan(stimuli, shown, n_neurons=neurons, n_repeats=REPEATS, noise=Noise(kind=kind))
    seconds = time.perf_counter() - start
    trials, width = made.scan.responses.shape
    assert (trials, width) == (images + REPEATS * oracle, neurons)
    print(seconds, most_held())


def in_a_process(*arguments: object) -> tuple[float, float]:
    """Run this file again, to measure one kind of noise; return seconds and GiB."""
    command = [sys.executable, __file__, "--measure", *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    seconds, held = map(float, done.stdout.split())
    return seconds, held / GIB


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--neurons", type=int, default=8000)
    parser.add_argument("--images", type=int, default=5000, help="shown once")
    parser.add_argument("--oracle", type=int, default=100, help=f"shown {REPEATS} times")
    parser.add_argument("--json", action="store_true", help="end with one JSON object on a line")
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        kind, *sizes = arguments.measure
        return measure(kind, *map(int, sizes))

    found = {kind: in_a_process(kind, arguments.neurons, arguments.images, arguments.oracle) for kind in KINDS}
    size = f"{arguments.neurons} neurons x {arguments.images + REPEATS * arguments.oracle} trials, gamma noise"
    seconds, gib = found["gamma"]
    counted = "{:.3g} s, {:.3g} GiB".format(*found["negative_binomial"])
    return show(
        "simulate",
        [at_most(f"{size}: seconds", seconds, 60), at_most(f"{size}: most memory of the process, GiB", gib, 2.0)],
        {"the same with negative binomial noise": counted},
        arguments.json,
    )


if __name__ == "__main__":
    main()
