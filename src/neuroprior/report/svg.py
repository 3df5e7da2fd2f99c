"""Figure to bytes: SVG that is the same every time, and SVG that can stand on a page beside others."""

import io
import re
from contextlib import AbstractContextManager
from html import escape

from matplotlib import style
from matplotlib.figure import Figure


def house_style() -> AbstractContextManager[None]:
    """Draw with matplotlib's own defaults and these settings, whatever the user's matplotlibrc says."""
    return style.context(
        [
            "default",
            {
                "svg.hashsalt": "neuroprior",
                "svg.fonttype": "none",  # real text: small, sharp, selectable, read aloud
                "font.sans-serif": ["DejaVu Sans", "Verdana", "Helvetica", "Arial"],
            },
        ]
    )


def svg_text(figure: Figure) -> str:
    """Return the figure as an SVG file; the same figure gives the same text."""
    buffer = io.StringIO()
    with house_style():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, dpi=150, facecolor="white")
    # Matplotlib ends some lines with a blank; files that are committed should not.
    return re.sub(r"[ \t]+$", "", buffer.getvalue(), flags=re.MULTILINE)


def png_bytes(figure: Figure) -> bytes:
    """Return the figure as a small PNG on white."""
    buffer = io.BytesIO()
    with house_style():
        figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None}, facecolor="white")
    return buffer.getvalue()


def inline_svg(figure: Figure, prefix: str, alt: str) -> str:
    """Return one `<svg>` element for an HTML page: ids begin with `prefix`, size is left to CSS, `alt` is its label.

    Goes without what only a file needs (XML head, metadata, namespaces, the style of `*` that would reach the page).
    """
    text = svg_text(figure)
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
