"""The same figure is the same bytes, and can stand on a page beside others."""

import re
from xml.etree import ElementTree

from matplotlib.figure import Figure

from neuroprior.report.accuracy_plates import noise_plate
from neuroprior.report.svg import inline_svg, inlined, pdf_bytes, png_bytes, svg_text

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


def test_a_small_svg_refers_to_what_it_holds_and_says_a_markers_style_once(make_run: MakeRun) -> None:
    text = svg_text(noise_plate(make_run()).panels[0].figure)
    root = ElementTree.fromstring(text)
    held = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
    assert len(held) == len(set(held))
    assert set(re.findall(r'(?:href="|url\()#([\w-]+)', text)) == {*held} - {"figure_1"}
    uses = [element.attrib for element in root.iter("{http://www.w3.org/2000/svg}use")]
    assert len(uses) > 8
    assert not any("style" in use for use in uses)
    markers = [path.attrib for path in root.iter("{http://www.w3.org/2000/svg}path") if "id" in path.attrib]
    assert markers
    assert all({"style", "class"} & {*marker} for marker in markers)


def test_a_style_said_often_is_a_class_in_a_file_and_stands_in_the_tags_of_a_page(make_run: MakeRun) -> None:
    text = svg_text(noise_plate(make_run()).panels[0].figure)
    said = dict(re.findall(r"^\.(s\d+)\{(.+)\}$", text, flags=re.MULTILINE))
    assert len(said) > 2
    assert all(text.count(f' class="{name}"') > 1 for name in said)
    assert not any(f' style="{style}"' in text for style in said.values())
    page = inlined(text, "p", "noise")
    assert "class" not in page
    assert all(page.count(f' style="{style}"') == text.count(f' class="{name}"') for name, style in said.items())


def test_inline_svg_renames_ids_with_their_references_and_leaves_text_alone() -> None:
    figure = Figure(figsize=(2, 2))
    figure.add_subplot().set_title('id="x" url(#y) <b>')
    text = inline_svg(figure, "p", 'says "quoted" & <b>')
    assert 'id="x" url(#y) &lt;b&gt;' in text
    assert 'aria-label="says &quot;quoted&quot; &amp; &lt;b&gt;"' in text
    assert "http" not in text
