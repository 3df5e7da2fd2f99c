"""Draw docs/architecture.svg: the folders of the package, and who imports whom, from the imports themselves.

    python docs/site/architecture.py            write it
    python docs/site/architecture.py --print    print it

Boxes stand where this file puts them; arrows are what grimp finds, without those that a longer way already says (cli to
twin, where cli leads to experiment and that to twin). A box names all that it imports where the mouse rests on it. What
every part imports, types and the small files beside it, is a bar with no arrows into it. Fails where an import goes up,
or a part has no place here.
"""

import sys
from collections import Counter
from pathlib import Path
from xml.sax.saxutils import escape

import grimp

ROOT = Path(__file__).parents[2]
SVG = ROOT / "docs" / "architecture.svg"
WIDTH, HIGH, GAP = 136, 44, 24  # of a box, and between two in a row
ROWS = [  # top to bottom; each part with its line
    [("cli", "parses, calls, prints")],
    [("report", "a run, one page")],
    [("experiment", "a recipe, a finished run")],
    [
        ("twin", "denoised responses"),
        ("classifier", "joint training"),
        ("networks", "a layer's responses"),
        ("robustness", "what it withstands"),
    ],
    [("recordings", "files, scans"), ("regularizer", "a second loss"), ("sources", "downloads")],
    [("similarity", "how alike (Eq. 2)")],
    [("reliability", "weights (Eq. 1)")],
]
COLUMNS = {"twin": 0, "classifier": 1, "robustness": 4, "recordings": 0, "regularizer": 1, "sources": 3}
UNDER = ["types", "modes", "files", "processor", "weights", "checkpoint", "logs", "exciting"]
LEFT, TOP, STEP = 16, 16, 84
MIDDLE = 2  # the column of rows with one box


def imports() -> Counter[tuple[str, str]]:
    """How many modules of one part import something of another; for type checkers alone does not count."""
    graph = grimp.build_graph("neuroprior", exclude_type_checking_imports=True, cache_dir=None)
    found: Counter[tuple[str, str]] = Counter()
    for module in graph.modules:
        for other in {name.split(".")[1] for name in graph.find_modules_directly_imported_by(module) if "." in name}:
            if "." in module and other != module.split(".")[1]:
                found[module.split(".")[1], other] += 1
    parts = {module.split(".")[1] for module in graph.modules if "." in module} - {"__main__"}
    placed = {name for row in ROWS for name, _ in row} | set(UNDER)
    if parts != placed:
        raise SystemExit(f"docs/site/architecture.py: give these a place, or take it away: {sorted(parts ^ placed)}")
    return found


def corner(name: str) -> tuple[float, float]:
    """Upper left of a box."""
    row = next(k for k, names in enumerate(ROWS) if name in dict(names))
    return LEFT + COLUMNS.get(name, MIDDLE) * (WIDTH + GAP), TOP + row * STEP


def direct(between: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those that no longer way implies."""
    below: dict[str, set[str]] = {}
    for row in reversed(ROWS):
        for name, _ in row:
            own = {other for one, other in between if one == name}
            if not own <= set(below):
                raise SystemExit(f"docs/site/architecture.py: {name} imports what stands no lower: {own - set(below)}")
            below[name] = own.union(*(below[other] for other in own))
    return [
        (one, other)
        for one, other in between
        if not any(other in below[step] for first, step in between if first == one and step != other)
    ]


def arrow(one: str, other: str, out: tuple[int, int], into: tuple[int, int], count: int) -> str:
    """From the foot of one box, by a curve in the gap below it, down to the head of another.

    `out`, `into`: which of how many leave and arrive.
    """
    (x0, y0), (x1, y1) = corner(one), corner(other)
    x0 += WIDTH * (out[0] + 1) / (out[1] + 1)
    x1 += WIDTH * (into[0] + 1) / (into[1] + 1)
    y0 += HIGH
    y1 -= 4
    path = f"M{x0:.0f} {y0}C{x0:.0f} {y0 + 18} {x1:.0f} {y0 + 18} {x1:.0f} {y0 + STEP - HIGH - 8}V{y1}"
    return f'<path d="{path}"><title>{one} imports {other}: {count} modules</title></path>'


def drawing() -> str:
    """The whole picture."""
    found = imports()
    boxes = [name for row in ROWS for name, _ in row]
    every = sorted((one, other) for one, other in found if one in boxes and other in boxes)
    between = direct(every)
    leaving = {one: sorted((b for a, b in between if a == one), key=corner) for one in boxes}
    arriving = {other: sorted((a for a, b in between if b == other), key=corner) for other in boxes}
    width = LEFT * 2 + 5 * WIDTH + 4 * GAP
    foot = TOP + len(ROWS) * STEP - 16
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {foot + 64}" role="img" '
        'font-family="system-ui,sans-serif" font-size="13" text-anchor="middle">',
        "<title>The folders of src/neuroprior and who imports whom; arrows lead to what is imported</title>",
        "<style>:root{--ink:#1f2937;--soft:#64748b;--box:#eef2f7;--edge:#94a3b8;--way:#0f766e;--page:#fff}"
        "@media(prefers-color-scheme:dark){:root{--ink:#e5e7eb;--soft:#a3b0c2;--box:#1e293b;--edge:#64748b;--way:#5eead4;"
        "--page:#0f172a}}.page{fill:var(--page)}.box{fill:var(--box);stroke:var(--edge)}"
        "path{fill:none;stroke:var(--way);stroke-opacity:.55;stroke-width:1.3;marker-end:url(#to)}"
        "text{fill:var(--ink)}.line{fill:var(--soft);font-size:10.5px}.name{font-weight:600}</style>",
        '<marker id="to" viewBox="0 0 8 8" refX="3" refY="4" markerWidth="6" markerHeight="6" orient="auto">'
        '<path d="M0 1L6 4L0 7z" style="fill:var(--way);stroke:none;marker-end:none"/></marker>',
        f'<rect class="page" width="{width}" height="{foot + 64}" rx="8"/>',
    ]
    for one, other in between:
        out = (leaving[one].index(other), len(leaving[one]))
        into = (arriving[other].index(one), len(arriving[other]))
        lines.append(arrow(one, other, out, into, found[one, other]))
    for row in ROWS:
        for name, says in row:
            x, y = corner(name)
            imported = ", ".join(f"{other} ({found[name, other]})" for one, other in every if one == name)
            lines += [
                f'<rect class="box" x="{x}" y="{y}" width="{WIDTH}" height="{HIGH}" rx="6">'
                f"<title>{name}, modules that import: {imported or 'only what stands at the foot'}</title></rect>",
                f'<text class="name" x="{x + WIDTH / 2:.0f}" y="{y + 19}">{name}</text>',
                f'<text class="line" x="{x + WIDTH / 2:.0f}" y="{y + 35}">{escape(says)}</text>',
            ]
    lines.append(f'<rect class="box" x="{LEFT}" y="{foot}" width="{width - 2 * LEFT}" height="{HIGH}" rx="6"/>')
    step = (width - 2 * LEFT) / len(UNDER)
    for k, name in enumerate(UNDER):
        lines.append(f'<text class="name" x="{LEFT + (k + 0.5) * step:.0f}" y="{foot + 19}">{name}</text>')
    lines.append(f'<text class="line" x="{width / 2:.0f}" y="{foot + 35}">what any of them may import</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["--print"]:
        sys.stdout.write(drawing())
    else:
        SVG.write_text(drawing(), encoding="utf-8")
