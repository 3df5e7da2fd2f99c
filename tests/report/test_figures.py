"""What is drawn is what was given: pairs, orders, noise, and looks that can be told apart."""

import dataclasses
import itertools

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from neuroprior.experiment.conditions import CONDITIONS
from neuroprior.experiment.results import ConditionCard
from neuroprior.report import figures
from neuroprior.report.palette import LOOKS, Look, looks_of
from neuroprior.report.plates import noise_plate, truth_plate
from neuroprior.report.svg import inline_svg, png_bytes, svg_text

from .conftest import MakeRun, card_of, cosine


def _looks_of(*names: str) -> dict[str, Look]:
    return looks_of(card_of(name, name, "", "") for name in names)


def _similarity(n: int, seed: int = 0) -> np.ndarray:
    return cosine(np.random.default_rng(seed).standard_normal((n, 6)))


def test_pairs_are_the_upper_triangle_and_never_the_diagonal() -> None:
    s = _similarity(7)
    assert np.array_equal(figures.pairs_of(s), s[np.triu_indices(7, 1)])
    assert len(figures.pairs_of(s[:1, :1])) == 0


@pytest.mark.parametrize("most", [True, False])
def test_extreme_pairs_are_those_of_a_greedy_search_over_all_pairs(most: bool) -> None:
    s = _similarity(12, seed=5)
    left = sorted(itertools.combinations(range(12), 2), key=lambda pair: s[pair], reverse=most)
    wanted = []
    while len(wanted) < 4:
        i, j = left[0]
        wanted.append((i, j, pytest.approx(float(s[i, j]))))
        left = [pair for pair in left if not {i, j} & set(pair)]
    assert figures.extreme_pairs(s, 4, most=most) == wanted


def test_extreme_pairs_stop_when_images_run_out() -> None:
    assert len(figures.extreme_pairs(_similarity(5), 4, most=True)) == 2


def test_leaf_order_is_a_permutation_that_brings_clusters_together() -> None:
    rng = np.random.default_rng(1)
    cluster = np.arange(20) % 2
    s = cosine(np.where(cluster[:, None] == 0, 1.0, -1.0) + 0.1 * rng.standard_normal((20, 5)))
    order = figures.leaf_order(s)
    assert sorted(order) == list(range(20))
    assert np.count_nonzero(np.diff(cluster[order])) == 1
    assert np.count_nonzero(np.diff(cluster)) == 19


def test_correlation_is_pearsons_on_pairs_and_undefined_without_variation() -> None:
    a, b = figures.pairs_of(_similarity(9, 1)), figures.pairs_of(_similarity(9, 2))
    assert figures.correlation(a, b) == pytest.approx(np.corrcoef(a, b)[0, 1], rel=1e-6)
    assert np.isnan(figures.correlation(a, np.ones_like(a)))


def test_noise_is_the_same_along_a_row_and_clipped_for_display_only() -> None:
    images = np.full((2, 8, 8), 0.5, dtype=np.float32)
    figure = figures.noisy_images(images, ("a", "b"), (0.0, 0.05, 0.1))
    shown = np.array([axes.get_images()[0].get_array() for axes in figure.axes]).reshape(2, 3, 8, 8) / 255.0
    assert np.allclose(shown[:, 0], 0.5, atol=1 / 255)
    assert np.allclose(2 * (shown[:, 1] - 0.5), shown[:, 2] - 0.5, atol=3 / 255)
    assert not np.allclose(shown[0, 2], shown[1, 2], atol=0.05)
    assert (images == 0.5).all()


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


def test_chance_is_named_beside_the_axes(make_run: MakeRun) -> None:
    (words,) = noise_plate(make_run()).panels[0].figure.axes[0].texts
    assert words.get_text() == "chance"
    assert words.xy == (1.0, 10.0)  # type: ignore[attr-defined]


def test_bands_are_drawn_for_seeds_and_not_for_a_seed(make_run: MakeRun) -> None:
    for seeds, bands in (((0,), 0), ((0, 1), 5)):
        results = make_run(seeds=seeds)
        axes = noise_plate(results).panels[0].figure.axes[0]
        assert len(axes.collections) == bands


def test_noise_figure_draws_the_means(make_run: MakeRun) -> None:
    from neuroprior.report.tables import noise_curve

    results = make_run()
    axes = noise_plate(results).panels[0].figure.axes[0]
    drawn = {line.get_label(): line.get_ydata() for line in axes.lines}
    for card in results.conditions:
        means = [100 * e.mean for e in noise_curve(results, card.name).estimates]
        assert np.allclose(drawn[card.label], means)


def test_chance_is_told_only_where_the_classes_are_known(make_run: MakeRun) -> None:
    results = make_run()
    assert "Dotted: chance" in noise_plate(results).caption
    assert "Dotted: chance" not in noise_plate(dataclasses.replace(results, n_classes=None)).caption


def test_truth_is_compared_off_the_diagonal(make_run: MakeRun) -> None:
    caption = truth_plate(make_run()).caption
    results = make_run()
    assert results.truth is not None
    rows, columns = np.triu_indices(40, 1)
    r = np.corrcoef(results.truth.matrix[rows, columns], results.targets["neural_data"].matrix[rows, columns])[0, 1]
    assert f"Neural (simulated data): r = {r:.2f}, n = 780 pairs" in caption  # 40 * 39 / 2
    assert "Neural (model)'s target is the truth itself, so it is not drawn" in caption
    assert truth_plate(make_run(with_truth=False)).panels == ()


def test_svg_and_png_are_the_same_every_time_and_carry_no_date(make_run: MakeRun) -> None:
    results = make_run()
    first, second = noise_plate(results).panels[0].figure, noise_plate(results).panels[0].figure
    assert svg_text(first) == svg_text(second)
    assert png_bytes(first) == png_bytes(second)
    assert "<dc:date>" not in svg_text(first)


def test_inline_svg_renames_ids_with_their_references_and_leaves_text_alone() -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2, 2))
    figure.add_subplot().set_title('id="x" url(#y) <b>')
    text = inline_svg(figure, "p", 'says "quoted" & <b>')
    assert 'id="x" url(#y) &lt;b&gt;' in text
    assert 'aria-label="says &quot;quoted&quot; &amp; &lt;b&gt;"' in text
    assert "http" not in text
