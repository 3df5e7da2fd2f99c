"""Figure to bytes: SVG, PNG and PDF that are the same every time, and SVG that can stand on a page beside others."""

import io
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from html import escape

from matplotlib import style
from matplotlib.figure import Figure

_TAG = re.compile(r"<[a-z][^<>]*>")  # an element's opening, never the text between
_NUMBER = re.compile(r"-?\d+\.\d+")
_STYLE = re.compile(r' style="([^"]*)"')
_COLOUR = re.compile(r":#([0-9a-f])\1([0-9a-f])\2([0-9a-f])\3\b")
_FAMILY = re.compile(r"font-family:[^;\"]*;?")
_USE = re.compile(r'(<use xlink:href="#(\w+)"[^<>]*?)(?: style="([^"]*)")?/>')
_MARKER = re.compile(r'(<path id="(\w+)" d="[^"]*")(?: style="([^"]*)")?/>')
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
    """Return the same drawing in half of the bytes: figures are committed, and pages hold many."""
    text = re.sub(r"<!DOCTYPE[^>]*>\s*|<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"^[ \t]+|[ \t]+$", "", text, flags=re.MULTILINE)
    text = _said_once(_TAG.sub(lambda tag: _plainer(tag[0]), text))
    names = dict.fromkeys(re.findall(r'(?:href="|url\()#(\w+)', text))
    short = {"figure_1": "figure_1"} | {name: f"m{k}" for k, name in enumerate(names)}
    text = _TAG.sub(lambda tag: _with_names(tag[0], short), text)
    return _with_classes("\n".join(_without_bare_groups(text.splitlines())) + "\n")


def _plainer(tag: str) -> str:
    """Return a tag in tenths of points, finer than anybody sees, with short colours and no turns by nothing."""
    tag = re.sub(r' transform="rotate\(-?0 [^"]*"', "", tag)
    tag = re.sub(r'(?<= d=")[^"]*', lambda path: re.sub(r"\s*([A-Za-z])\s*|\s+(?=-|$)", r"\1", _in_tenths(path)), tag)
    tag = re.sub(r'(?<= )(?:x|y|width|height)="[^"]*|(?:rotate|translate)\([^)]*', _in_tenths, tag)
    tag = re.sub(r'(?<= style=")[^"]*', lambda style: re.sub("([:;,]) ", r"\1", style[0]), tag)
    return _COLOUR.sub(r":#\1\2\3", tag).replace("stroke-dashoffset:0;", "")


def _in_tenths(numbers: re.Match[str]) -> str:
    return _NUMBER.sub(lambda number: f"{round(float(number[0]), 1) + 0:g}", numbers[0])


def _said_once(text: str) -> str:
    """Return the text with a style that all have alike where it reaches all: of one marker, of neighbours, of texts."""
    styles: dict[str, set[str]] = {}
    for use in _USE.finditer(text):
        styles.setdefault(use[2], set()).add(use[3] or "")
    alike = {name: next(iter(those)) for name, those in styles.items() if len(those) == 1}
    text = _USE.sub(lambda use: f"{use[1]}/>" if use[2] in alike else use[0], text)
    text = _MARKER.sub(lambda marker: _styled(marker, alike.get(marker[2], "")), text)
    text = _ALIKE.sub(lambda g: f'<g{g[1]} style="{g[3]}">\n' + g[2].replace(f' style="{g[3]}"', "") + "</g>", text)
    families = {family[0] for family in _FAMILY.finditer(text)}
    if len(families) == 1:
        text = _TAG.sub(lambda tag: _FAMILY.sub("", tag[0]), text)
        text = text.replace('<g id="figure_1"', f'<g id="figure_1" style="{families.pop().removesuffix(";")}"', 1)
    return text


def _styled(marker: re.Match[str], style: str) -> str:
    """Return a marker's tag with its users' style before what else it says of its own, which goes on to hold."""
    both = dict.fromkeys([*style.split(";"), *(marker[3] or "").split(";")])
    return f'{marker[1]} style="{";".join(filter(None, both))}"/>' if any(both) else marker[0]


def _with_names(tag: str, names: dict[str, str]) -> str:
    """Return a tag with the names that are referred to, shortened, and without the others."""
    tag = re.sub(r' id="([^"]*)"', lambda one: f' id="{names[one[1]]}"' if one[1] in names else "", tag)
    return re.sub(r'((?:href="|url\()#)(\w+)', lambda one: one[1] + names[one[2]], tag)


def _with_classes(text: str) -> str:
    """Return a file's text with each style that is shorter said once, as a class of several tags."""
    count = Counter(style[1] for tag in _TAG.finditer(text) for style in _STYLE.finditer(tag[0]))
    names = {
        style: f"s{k}" for k, style in enumerate(one for one, n in count.items() if (n - 1) * len(one) > 4 * n + 10)
    }
    text = _TAG.sub(
        lambda tag: _STYLE.sub(lambda it: f' class="{names[it[1]]}"' if it[1] in names else it[0], tag[0]), text
    )
    rules = "".join(f".{name}{{{style}}}\n" for style, name in names.items())
    return text.replace("</style>", f"\n{rules}</style>", 1) if rules else text


def _without_classes(text: str) -> str:
    """Return the text with the styles of `_with_classes` in the tags again: a page's rules would outweigh a class."""
    styles = dict(re.findall(r"^\.(s\d+)\{(.*)\}$", text, flags=re.MULTILINE))
    return _TAG.sub(lambda tag: re.sub(r' class="(s\d+)"', lambda it: f' style="{styles[it[1]]}"', tag[0]), text)


def _without_bare_groups(lines: list[str]) -> Iterator[str]:
    said: list[bool] = []
    for line in lines:
        if line.startswith("<g") and not line.endswith("/>"):
            said.append(line != "<g>")
            if not said[-1]:
                continue
        elif line == "</g>" and not said.pop():
            continue
        yield line


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

    Goes without what only a file needs (XML head, namespaces, the style of `*` that would reach the page).
    """
    body = _without_classes(text[text.index("<svg") :])
    body = re.sub(r"<style[^>]*>.*?</style>", "", body, flags=re.DOTALL)
    body = _TAG.sub(lambda tag: _with_prefix(tag[0], prefix), body)
    head, rest = body.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    assert box is not None
    return f'<svg {box[0]} role="img" aria-label="{escape(alt, quote=True)}">{rest}'.strip()


def _with_prefix(tag: str, prefix: str) -> str:
    tag = re.sub(r'(\sid=")', rf"\g<1>{prefix}-", tag)
    tag = re.sub(r'(\s(?:xlink:)?href="#)', rf"\g<1>{prefix}-", tag)
    return tag.replace("url(#", f"url(#{prefix}-")
