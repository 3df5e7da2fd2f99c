"""A target is drawn once, and compared with the truth off the diagonal."""

import numpy as np

from neuroprior.report.similarity_plates import histogram_plate, truth_plate

from .conftest import MakeRun


def test_truth_is_compared_off_the_diagonal(make_run: MakeRun) -> None:
    caption = truth_plate(make_run()).caption
    results = make_run()
    assert results.truth is not None
    rows, columns = np.triu_indices(40, 1)
    r = np.corrcoef(results.truth.matrix[rows, columns], results.targets["neural_data"].matrix[rows, columns])[0, 1]
    assert f"Neural (simulated data): r = {r:.2f}, n = 780 pairs" in caption  # 40 * 39 / 2
    assert "Neural (model)'s target is the truth itself, so it is not drawn" in caption
    assert truth_plate(make_run(with_truth=False)).panels == ()


def test_one_target_of_many_conditions_is_drawn_once(make_many: MakeRun) -> None:
    plate = histogram_plate(make_many(seeds=(0,)))
    labels = [text.get_text() for one in plate.panels[0].figure.legends for text in one.get_texts()]
    assert labels == ["Neural (model)", "Neural (simulated data)", "Shuffle"]
    assert "Neural (model) (also of Neural (model) α 2, Neural (model) α 80)" in plate.caption
