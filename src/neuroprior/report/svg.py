"""Figure to bytes: SVG, PNG and PDF that are the same every time, and SVG that can stand on a page beside others."""

import io
import re
from contextlib import AbstractContextManager
from html import escape

from matplotlib import style
from matplotlib.figure import Figure

_PLACES = re.compile(r'\b(?:d|x|y)="[^"]*"')
_DIGITS = re.compile(r"(\.\d\d)\d+")  # nobody sees a hundredth of a point
_ALIKE = re.compile(r'<g([^>]*)>\n((?:<use [^>]*style="([^"]*)"/>\n)(?:<use [^>]*style="\3"/>\n)+)</g>')  # markers


def house_style() -> AbstractContextManager[None]:
    """Draw with matplotlib's own defaults and these settings, whatever the user's matplotlibrc says."""
    return style.context(
        [
            "default",
            {
                "svg.hashsalt": "neuroprior",
                "svg.fonttype": "none",  # real text: small, sharp, selectable, read aloud
                "pdf.fonttype": 42,  # TrueType, which journals take and editors can edit
                "font.sans-serif": ["DejaVu Sans", "Verdana", "Helvetica", "Arial"],
            },
        ]
    )


def svg_text(figure: Figure) -> str:
    """Return the figure as an SVG file; the same figure gives the same text."""
    buffer = io.StringIO()
    with house_style():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, dpi=150, facecolor="white")
    return _smaller(buffer.getvalue())


def _smaller(text: str) -> str:
    """Return the same drawing in three quarters of the bytes: figures are committed, and pages hold many."""
    text = re.sub(r"^[ \t]+|[ \t]+$", "", text, flags=re.MULTILINE)
    text = _PLACES.sub(lambda places: _DIGITS.sub(r"\1", places[0]), text)
    return _ALIKE.sub(lambda g: f'<g{g[1]} style="{g[3]}">\n' + g[2].replace(f' style="{g[3]}"', "") + "</g>", text)


def png_bytes(figure: Figure) -> bytes:
    """Return the figure as a small PNG on white."""
    buffer = io.BytesIO()
    with house_style():
        figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None}, facecolor="white")
    return buffer.getvalue()


def pdf_bytes(figure: Figure) -> bytes:
    """Return the figure as a PDF file; the same figure gives the same bytes, for it carries no date."""
    buffer = io.BytesIO()
    with house_style():
        figure.savefig(buffer, format="pdf", metadata={"CreationDate": None}, dpi=150, facecolor="white")
    return buffer.getvalue()


def inline_svg(figure: Figure, prefix: str, alt: str) -> str:
    """Return the figure as one `<svg>` element for an HTML page: see `inlined`."""
    return inlined(svg_text(figure), prefix, alt)


def inlined(text: str, prefix: str, alt: str) -> str:
    """Return an SVG file's text as one element: ids begin with `prefix`, size is left to CSS, `alt` is its label.

    Goes without what only a file needs (XML head, metadata, namespaces, the style of `*` that would reach the page).
    """
    body = text[text.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<style[^>]*>.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r"<[a-z][^<>]*>", lambda tag: _with_prefix(tag[0], prefix), body)  # tags only, never the text
    head, rest = body.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    assert box is not None
    return f'<svg {box[0]} role="img" aria-label="{escape(alt, quote=True)}">{rest}'.strip()


def _with_prefix(tag: str, prefix: str) -> str:
    tag = re.sub(r'(\sid=")', rf"\g<1>{prefix}-", tag)
    tag = re.sub(r'(\s(?:xlink:)?href="#)', rf"\g<1>{prefix}-", tag)
    return tag.replace("url(#", f"url(#{prefix}-")
