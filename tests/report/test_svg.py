"""The same figure is the same bytes, and can stand on a page beside others."""

from matplotlib.figure import Figure

from neuroprior.report.accuracy_plates import noise_plate
from neuroprior.report.svg import inline_svg, pdf_bytes, png_bytes, svg_text

from .conftest import MakeRun


def test_svg_png_and_pdf_are_the_same_every_time_and_carry_no_date(make_run: MakeRun) -> None:
    results = make_run()
    first, second = noise_plate(results).panels[0].figure, noise_plate(results).panels[0].figure
    assert svg_text(first) == svg_text(second)
    assert png_bytes(first) == png_bytes(second)
    assert "<dc:date>" not in svg_text(first)
    pdf, again = (pdf_bytes(noise_plate(results).panels[0].figure) for _ in range(2))
    assert pdf == again
    assert pdf.startswith(b"%PDF-")
    assert b"CreationDate" not in pdf


def test_inline_svg_renames_ids_with_their_references_and_leaves_text_alone() -> None:
    figure = Figure(figsize=(2, 2))
    figure.add_subplot().set_title('id="x" url(#y) <b>')
    text = inline_svg(figure, "p", 'says "quoted" & <b>')
    assert 'id="x" url(#y) &lt;b&gt;' in text
    assert 'aria-label="says &quot;quoted&quot; &amp; &lt;b&gt;"' in text
    assert "http" not in text
