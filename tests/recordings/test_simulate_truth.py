"""The truth of a simulated scan, written and read again."""

import numpy as np
import pytest

from neuroprior.recordings import Noise, load_truth, packaged_photographs, save_truth, simulate_scan
from neuroprior.recordings.archive import write_archive
from neuroprior.similarity import centered_cosine
from neuroprior.types import InputError


@pytest.fixture(scope="module")
def mouse():
    shown = packaged_photographs(n_train=20, n_oracle=5)
    return simulate_scan(shown, shown.ids[20:], n_neurons=30, noise=Noise("negative_binomial"))


def test_what_is_written_is_read_again(mouse, tmp_path):
    save_truth(mouse, tmp_path / "deep" / "truth")
    truth = load_truth(tmp_path / "deep" / "truth")
    np.testing.assert_array_equal(truth.population.mean, mouse.truth.mean)
    np.testing.assert_array_equal(truth.population.image_ids, mouse.truth.image_ids)
    np.testing.assert_array_equal(truth.population.weights, mouse.truth.weights)
    assert truth.population.source == "recorded"
    np.testing.assert_array_equal(truth.true_weights.signal_variance, mouse.true_weights.signal_variance)
    np.testing.assert_array_equal(truth.true_weights.noise_variance, mouse.true_weights.noise_variance)
    np.testing.assert_array_equal(truth.gaze, mouse.gaze)
    np.testing.assert_array_equal(truth.similarity.matrix, centered_cosine(mouse.truth.mean * mouse.truth.weights))
    assert truth.similarity.stimuli_digest == mouse.scan.stimuli.digest
    with np.load(tmp_path / "deep" / "truth" / "truth.npz") as fields:
        np.testing.assert_array_equal(fields["count_unit"], mouse.count_unit)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"rates": np.ones((25, 30))}, "field 'rates' is float64"),
        ({"signal_variance": np.ones(29)}, "field 'signal_variance' is of 29 neurons, not 30"),
        ({"image_ids": np.array([f"i{k}" for k in range(25)])}, "names other images than truth.safetensors"),
        ({"gaze": None}, "field 'gaze' is missing"),
    ],
)
def test_files_that_are_not_so_are_said(mouse, tmp_path, damage, message):
    save_truth(mouse, tmp_path)
    with np.load(tmp_path / "truth.npz") as fields:
        kept = {**fields, **damage}
    write_archive(tmp_path / "truth.npz", {name: value for name, value in kept.items() if value is not None})
    with pytest.raises(InputError) as error:
        load_truth(tmp_path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_without_truth_is_said(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_truth(tmp_path)
