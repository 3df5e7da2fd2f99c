"""Names stand where they cover nothing."""

from matplotlib.backends.backend_agg import FigureCanvasAgg

from neuroprior.report.tradeoff_plate import tradeoff_plate

from .conftest import MANY, MakeRun


def test_every_condition_is_named_once_and_no_name_covers_another(make_many: MakeRun) -> None:
    figure = tradeoff_plate(make_many()).panels[0].figure
    figure.draw_without_rendering()
    renderer = FigureCanvasAgg(figure).get_renderer()
    legend = {text.get_text() for one in figure.legends for text in one.get_texts()}
    names = {text.get_text(): text.get_window_extent(renderer) for text in figure.axes[0].texts}
    assert not legend & set(names)
    assert legend | set(names) == {label for label, _, _ in MANY.values()}
    boxes = list(names.values())
    assert not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[:k])
    assert len(names) > len(legend)
