"""What scan stability keeps comes back bit by bit, and nothing else is read as such."""

import dataclasses

import numpy as np
import pytest

from neuroprior.recordings import (
    load_stability,
    packaged_photographs,
    save_stability,
    scan_stability,
    simulate_scan,
)
from neuroprior.similarity import pixel_target
from neuroprior.types import InputError

SHOWN = packaged_photographs(n_train=2, n_oracle=12)


def found_in(n_scans, n_repeats):
    mice = [simulate_scan(SHOWN, SHOWN.ids[2:], n_neurons=40, n_repeats=n_repeats, animal=k) for k in range(n_scans)]
    scans = [dataclasses.replace(mouse.scan, name=f"mouse{k}") for k, mouse in enumerate(mice)]
    models = {"pixel_raw": pixel_target(SHOWN.select(SHOWN.ids[2:]), threshold=None)}
    return scan_stability(scans, models, [mouse.truth for mouse in mice])


@pytest.mark.parametrize(("n_scans", "n_repeats"), [(2, 5), (1, 2)])
def test_all_of_it_comes_back(tmp_path, n_scans, n_repeats):
    found = found_in(n_scans, n_repeats)
    save_stability(found, tmp_path / "stability.npz")
    again = load_stability(tmp_path / "stability.npz")
    for field in dataclasses.fields(found):
        a, b = getattr(found, field.name), getattr(again, field.name)
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
        elif field.name == "models":
            assert a.keys() == b.keys()
            for name in a:
                np.testing.assert_array_equal(a[name], b[name])
        elif field.name == "stimuli":
            assert a.digest == b.digest
        else:
            assert a == b
    assert again.correlations() == found.correlations()


def test_another_file_is_no_stability(tmp_path):
    np.savez(tmp_path / "other.npz", a=np.zeros(2))
    (tmp_path / "text.npz").write_text("nothing")
    (tmp_path / "empty.npz").touch()
    for name in ("other.npz", "text.npz", "empty.npz", "missing.npz"):
        with pytest.raises(InputError, match=rf"{name}: not what scan stability keeps") as raised:
            load_stability(tmp_path / name)
        assert "\n" not in str(raised.value)
