"""A path, or a simulated scan with its truth, in the place of a recording: one line that says what to pass."""

import inspect
from pathlib import Path

import pytest
from small_scan import small_scan

from neuroprior.recordings import (
    check_scan,
    plan_recording,
    population_from_scan,
    scan_stability,
    target_from_scan,
    target_from_scans,
)
from neuroprior.types import InputError

ONE = (target_from_scan, population_from_scan, check_scan)
SEVERAL = (scan_stability, plan_recording, target_from_scans)


@pytest.mark.parametrize("function", ONE + SEVERAL, ids=lambda function: function.__name__)
@pytest.mark.parametrize("given", ["mouse.npz", Path("mouse.npz"), 3], ids=["str", "path", "int"])
def test_what_is_no_scan_is_said_in_one_line(function, given):
    unchecked = inspect.unwrap(function)  # without the tests' own check of types
    named = " 'mouse.npz'" if given != 3 else ""
    says = rf": got a {type(given).__name__}{named}, not a Scan; pass a Scan: load_scan\(path\), or the \.scan of a"
    for argument in (given,) if function in ONE else (given, [given], (small_scan(), given)):
        with pytest.raises(InputError, match=says) as raised:
            unchecked(argument)
        assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("function", SEVERAL, ids=lambda function: function.__name__)
def test_no_scan_where_several_are_meant(function):
    with pytest.raises(InputError, match="no scan given; pass at least one"):
        function([])


def test_a_model_of_the_stability_is_a_target():
    with pytest.raises(InputError, match=r"scan stability, twin: got a str 't\.safetensors', not a SimilarityTarget; "):
        inspect.unwrap(scan_stability)([small_scan()], {"twin": "t.safetensors"})
