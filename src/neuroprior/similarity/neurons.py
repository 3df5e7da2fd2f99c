"""A part of the neurons, by a rule that a recipe can say in a word."""

from pathlib import Path

import numpy as np

from neuroprior.types import Float32, InputError, Int64, Population

_RULES = "`top-v:FRACTION`, `random:FRACTION`, `random:FRACTION:SEED` or a text file of neuron indices"


def select_neurons(population: Population, rule: str) -> Population:
    """Return the population with a part of its neurons, in their order.

    `rule`: `top-v:0.5`, the half with the largest weights (w v of a twin, w of a recording; of equal ones the first);
    `random:0.5` or `random:0.5:SEED`, a random half (seed 0 unless said); or the path of a text file of neuron indices
    from 0, one a line. Fractions lie in (0, 1]; at least one neuron is kept. Raises `InputError` naming rule or line.
    """
    chosen = neuron_rows(population.weights, rule)
    return Population(population.image_ids, population.mean[:, chosen], population.weights[chosen], population.source)


def neuron_rows(weights: Float32[np.ndarray, " neuron"], rule: str) -> Int64[np.ndarray, " chosen"]:
    """Return which neurons, of those with these weights, a rule leaves; ascending. As `select_neurons`."""
    n = len(weights)
    kind, _, rest = rule.partition(":")
    if kind == "top-v":
        chosen = _top(weights, _count(rule, rest, n), rule)
    elif kind == "random":
        fraction, _, seed = rest.partition(":")
        generator = np.random.default_rng(_seed(rule, seed))
        chosen = generator.choice(n, size=_count(rule, fraction, n), replace=False)
    else:
        chosen = _listed(Path(rule), n)
    return np.sort(chosen)


def _top(weights: np.ndarray, count: int, rule: str) -> Int64[np.ndarray, " chosen"]:
    if np.ptp(weights) == 0:
        raise InputError(
            f"neurons {rule!r}: all weights are {weights[0]:g}: these neurons have no reliability to sort by (a "
            "ready-made twin has none); choose random:0.5"
        )
    return np.argsort(-weights, kind="stable")[:count]


def _count(rule: str, fraction: str, n: int) -> int:
    try:
        value = float(fraction)
    except ValueError:
        value = float("nan")
    if not 0 < value <= 1:
        raise InputError(f"neurons {rule!r}: {fraction!r} is not a fraction above 0 and up to 1; write {_RULES}")
    return max(1, round(value * n))


def _seed(rule: str, seed: str) -> int:
    if seed and not seed.isdecimal():
        raise InputError(f"neurons {rule!r}: {seed!r} is not a seed of 0 or more; write {_RULES}")
    return int(seed or 0)


def _listed(file: Path, n: int) -> Int64[np.ndarray, " chosen"]:
    if not file.is_file():
        raise InputError(f"neurons {str(file)!r}: no such rule or file; write {_RULES}")
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{file}: not a UTF-8 text file; write one neuron index a line") from None
    if not lines:
        raise InputError(f"{file}: no neuron in it; write one neuron index a line")
    line_of: dict[int, int] = {}
    for line, text in enumerate(lines, start=1):
        if not text.strip().isdecimal():
            raise InputError(f"{file}: line {line}: {text!r} is not a neuron index from 0; write one a line")
        index = int(text)
        if index >= n:
            raise InputError(f"{file}: line {line}: neuron {index} of {n}; indices are from 0 to {n - 1}")
        if index in line_of:
            raise InputError(
                f"{file}: line {line}: neuron {index} stands in line {line_of[index]} already; name it once"
            )
        line_of[index] = line
    return np.array(list(line_of), dtype=np.int64)
