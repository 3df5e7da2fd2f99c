"""Parts of the neurons: each rule keeps what it says, in order, and wrong rules are told what is right."""

import dataclasses

import numpy as np
import pytest

from neuroprior.similarity import select_neurons
from neuroprior.types import InputError, Population

N = 9


@pytest.fixture
def population():
    mean = np.arange(3 * N, dtype=np.float32).reshape(3, N)
    weights = np.array([0, 5, 2, 2, 7, 1, 2, 0, 3], dtype=np.float32)
    return Population(np.array(["a", "b", "c"]), mean, weights, "twin")


def kept(population, rule):
    """Which neurons are left, after checking that nothing else changed."""
    part = select_neurons(population, rule)
    chosen = part.mean[0].astype(int)  # neuron k answers k to the first image
    assert np.array_equal(part.mean, population.mean[:, chosen])
    assert np.array_equal(part.weights, population.weights[chosen])
    assert np.array_equal(part.image_ids, population.image_ids)
    assert part.source == population.source
    assert (np.diff(chosen) > 0).all()
    return chosen.tolist()


@pytest.mark.parametrize(
    ("fraction", "neurons"),
    [("1", list(range(N))), ("0.33", [1, 4, 8]), ("0.5", [1, 2, 4, 8]), ("0.01", [4]), ("1e-9", [4])],
)
def test_the_most_reliable_stay(population, fraction, neurons):
    assert kept(population, f"top-v:{fraction}") == neurons


def test_without_reliability_there_is_no_top(population):
    alike = dataclasses.replace(population, weights=np.ones(N, dtype=np.float32))
    with pytest.raises(InputError, match=r"all weights are 1: .*no reliability to sort by.*choose random:0\.5"):
        select_neurons(alike, "top-v:0.5")
    kept(alike, "random:0.5")


def test_random_parts_are_of_that_size_and_follow_the_seed(population):
    assert kept(population, "random:1") == list(range(N))
    assert len(kept(population, "random:0.01")) == 1
    parts = [kept(population, f"random:0.5:{seed}") for seed in range(20)]
    assert {len(part) for part in parts} == {4}
    assert len({tuple(part) for part in parts}) > 10
    assert sorted({k for part in parts for k in part}) == list(range(N))
    assert kept(population, "random:0.5") == parts[0]
    assert kept(population, "random:0.5:7") == parts[7]


def test_a_file_names_neurons(population, tmp_path):
    file = tmp_path / "neurons.txt"
    file.write_bytes(b"\xef\xbb\xbf7\r\n0\r\n 3 \r\n")  # as Windows writes it
    assert kept(population, str(file)) == [0, 3, 7]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("1\n\n2\n", r"line 2: '' is not a neuron index from 0"),
        ("1\n2.0\n", r"line 2: '2\.0' is not a neuron index"),
        ("-1\n", r"line 1: '-1' is not a neuron index"),
        ("0\n9\n", r"line 2: neuron 9 of 9; indices are from 0 to 8"),
        ("3\n4\n3\n", r"line 3: neuron 3 stands in line 1 already; name it once"),
        ("", r"no neuron in it"),
    ],
)
def test_wrong_files_are_named_by_line(population, tmp_path, lines, says):
    file = tmp_path / "neurons.txt"
    file.write_text(lines)
    with pytest.raises(InputError, match=rf"neurons\.txt: {says}") as error:
        select_neurons(population, str(file))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("top-v", r"'top-v': '' is not a fraction above 0 and up to 1; write `top-v:FRACTION`"),
        ("top-v:0", r"'0' is not a fraction"),
        ("top-v:1.5", r"'1\.5' is not a fraction"),
        ("random:half", r"'half' is not a fraction"),
        ("random:nan", r"'nan' is not a fraction"),
        ("random:0.5:-1", r"'-1' is not a seed"),
        ("random:0.5:1:2", r"'1:2' is not a seed"),
        ("best:0.5", r"neurons 'best:0\.5': no such rule or file; write `top-v:FRACTION`, `random:"),
        ("", r"no such rule or file"),
    ],
)
def test_wrong_rules_are_told_the_right_ones(population, rule, says):
    with pytest.raises(InputError, match=says):
        select_neurons(population, rule)


def test_a_file_of_other_bytes(population, tmp_path):
    file = tmp_path / "neurons.npy"
    file.write_bytes(b"\x93NUMPY\xff")
    with pytest.raises(InputError, match=r"neurons\.npy: not a UTF-8 text file"):
        select_neurons(population, str(file))
