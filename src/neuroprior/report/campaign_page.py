"""What a campaign came to so far: tables and figures beside its merged rows, as Markdown that a README shows."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from neuroprior.experiment.campaign_results import Measured
from neuroprior.experiment.results import Measurements
from neuroprior.files import write_whole
from neuroprior.report.accuracy_plates import noise_plate, unfooled_plate
from neuroprior.report.paired import paired_tables
from neuroprior.report.perturbations import NORMS, perturbation_table
from neuroprior.report.plate import Plate
from neuroprior.report.svg import house_style, svg_text
from neuroprior.report.tables import Table, headline_table, noise_table
from neuroprior.report.tradeoff import tradeoff_table
from neuroprior.report.verdict import verdict


def write_campaign(parts: Sequence[Measured], packets: Sequence[dict[str, Any]], folder: Path) -> list[Path]:
    """Write `tables.md` and the figures that it shows into the folder of results; return the paths, the page's first.

    The same bytes for the same rows. Each file appears whole.
    """
    lines: list[str] = ["Written by `neuroprior campaign report`.", ""]
    figures: dict[str, str] = {}
    for part in parts:
        before = "" if len(parts) == 1 else f"{part.groups[0]}-"
        for line in _part(part, before, figures):
            lines += [line, ""]
    lines += ["## Packets", "", _packets(packets), ""]
    files = {"tables.md": "\n".join(lines), **figures}
    folder.mkdir(parents=True, exist_ok=True)
    return [write_whole(folder / name, text) for name, text in files.items()]


def _part(part: Measured, before: str, figures: dict[str, str]) -> Iterator[str]:
    """Yield the paragraphs of one part, and put its figures among the others."""
    results = part.measurements
    yield f"## {', '.join(part.groups)}"
    if results.missing:
        yield f"Still open: {'; '.join(results.missing)}."
    yield from _table(headline_table(results))
    yield "\n".join(f"- {sentence}" for sentence in verdict(results))
    yield from _drawn(noise_plate, results, before, figures)
    for _, table in paired_tables(results):
        yield from _table(table)
    if (beside := tradeoff_table(results)) is not None:
        yield from _table(beside)
    for norm in NORMS:
        if (smallest := perturbation_table(results, norm)) is not None:
            yield from _table(smallest)
            yield from _drawn(partial(unfooled_plate, norm=norm), results, before, figures)
    if (every := noise_table(results)) is not None:
        yield from _table(every)


def _table(table: Table) -> Iterator[str]:
    """Yield a table, its caption and the notes on its rows as Markdown paragraphs."""
    yield _grid(table.header, table.rows)
    yield table.caption
    if any(table.row_notes):
        yield "\n".join(f"- {row[0]}: {note}" for row, note in zip(table.rows, table.row_notes, strict=True) if note)


def _grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))


def _drawn(
    maker: Callable[[Measurements], Plate], results: Measurements, before: str, figures: dict[str, str]
) -> Iterator[str]:
    with house_style():
        plate = maker(results)
    for panel in plate.panels:
        name = f"{before}{panel.name}.svg"
        figures[name] = svg_text(panel.figure)
        yield f"![{panel.alt}]({name})"
    if plate.panels:
        yield plate.caption


def _packets(packets: Sequence[dict[str, Any]]) -> str:
    """Return a table of where the numbers come from."""
    rows = []
    for packet in packets:
        origin, cells = packet["provenance"], packet["cells"]
        compute = origin["compute"]
        rows.append(
            (
                "; ".join(f"{cell['condition']} {cell['seed']}" for cell in cells),
                f"{sum(cell['seconds'] for cell in cells) / 60:.0f}",
                origin["device"],
                f"{compute['precision']}, {compute['threads']}, {packet['at_once']}",
                f"`{origin['commit'][:12]}`",
                f"`{origin['command']}`",
            )
        )
    header = ("networks", "minutes of all", "device", "precision, threads, side by side", "commit", "command")
    return _grid(header, rows)
