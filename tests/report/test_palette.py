"""Looks can be told apart and are fixed by name."""

import itertools

import numpy as np
from matplotlib.colors import to_rgb

from neuroprior.experiment.conditions import CONDITIONS
from neuroprior.experiment.results import ConditionCard
from neuroprior.report.palette import LOOKS, Look, looks_of

from .conftest import card_of


def _looks_of(*names: str) -> dict[str, Look]:
    return looks_of(card_of(name, name, "", "") for name in names)


def test_looks_differ_in_colour_and_in_marker_and_are_fixed_by_name() -> None:
    assert len({look.color for look in LOOKS.values()}) == len({look.marker for look in LOOKS.values()}) == len(LOOKS)
    for a, b in itertools.combinations(LOOKS.values(), 2):
        assert np.linalg.norm(np.subtract(to_rgb(a.color), to_rgb(b.color))) > 0.2
    assert set(CONDITIONS) <= set(LOOKS)
    assert _looks_of("shuffle", "none")["none"] == _looks_of("none")["none"] == LOOKS["none"]
    own = looks_of(ConditionCard(name, name, "", "", base=name) for name in ("mine", "none", "yours"))
    assert own["mine"] != own["yours"]
    assert own["mine"] not in LOOKS.values()


def test_variants_and_combinations_keep_the_colour_and_are_told_apart() -> None:
    names = ["neural_model", *(f"neural_model@alpha={k}" for k in range(8)), "adversarial+neural_model"]
    names += ["adversarial+neural_model@alpha=2", "adversarial", "blur", "blur@sigma=2"]
    looks = _looks_of(*names)
    assert {look.color for name, look in looks.items() if "neural_model" in name} == {LOOKS["neural_model"].color}
    assert len({(look.color, look.marker, look.filled) for look in looks.values()}) == len(names)
    assert not looks["adversarial+neural_model"].filled
    assert looks["adversarial"] == LOOKS["adversarial"]
