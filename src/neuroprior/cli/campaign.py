"""`neuroprior campaign`: a large experiment network by network, in pieces of time; packets and what they add up to."""

import json
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from neuroprior.cli.options import Json, Set
from neuroprior.cli.progress import Progress
from neuroprior.cli.tables import print_table

app = typer.Typer(help="Campaigns: the next piece of a large experiment, and all pieces merged.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(help="The campaign, a YAML file: recipes, and the cells to be measured.")]
Results = Annotated[Path, typer.Option(help="Folder of what was merged so far.")]
_RESULTS = Path("docs/results/paper")


@app.command("open")
def open_(campaign: File, results: Results = _RESULTS, set_: Set = None, json_: Json = False) -> None:
    """Say what is done and what is still open, in the order in which it will be done.

    Example: neuroprior campaign open recipes/campaigns/paper.yaml
    """
    from neuroprior.experiment import load_campaign, open_cells

    checked = load_campaign(campaign, set_ or ())
    left = open_cells(checked, results)
    if json_:
        print(json.dumps({"cells": len(checked.cells), "open": [asdict(cell) for cell in left]}))
        return
    still, every = (Counter(cell.group for cell in cells) for cells in (left, checked.cells))
    print_table(("group", "networks", "done"), [(group, str(n), str(n - still[group])) for group, n in every.items()])
    if left:
        print(f"next: {', '.join(f'{c.condition} (seed {c.seed})' for c in left[:4])} of group {left[0].group}")
    else:
        print("nothing is open")


@app.command("run")
def run(
    campaign: File,
    out: Annotated[Path, typer.Option(help="Folder of the packet: three small files.")],
    work: Annotated[
        Path | None, typer.Option(help="Folder of runs and their steps, kept to go on from (runs/campaign-NAME).")
    ] = None,
    results: Results = _RESULTS,
    minutes: Annotated[float, typer.Option(help="No batch is begun that would probably end later.")] = 9.0,
    at_once: Annotated[int, typer.Option(help="Networks trained side by side.")] = 4,
    set_: Set = None,
    json_: Json = False,
) -> None:
    """Train, measure and attack the next open cells for so many minutes, and leave a packet.

    Example: neuroprior campaign run recipes/campaigns/paper.yaml --out build/packet
    """
    from neuroprior.experiment import load_campaign, run_packet

    checked = load_campaign(campaign, set_ or ())
    with Progress() as progress:
        packet = run_packet(
            checked,
            results,
            out,
            work or Path("runs") / f"campaign-{checked.name}",
            minutes=minutes,
            at_once=at_once,
            command=["neuroprior", *sys.argv[1:]],
            watch=progress.update,
        )
    for cell, why in packet.failed.items():
        print(f"neuroprior: {cell.condition}, seed {cell.seed}, of group {cell.group}: {why}", file=sys.stderr)
    if json_:
        print(json.dumps({"out": str(out), "done": [asdict(c) for c in packet.done], "failed": len(packet.failed)}))
    else:
        print(f"{out}: {len(packet.done)} networks done, {len(packet.failed)} failed")
    if packet.failed:
        raise typer.Exit(1)


@app.command("merge")
def merge(
    campaign: File,
    packet: Annotated[Path, typer.Argument(help="Folder of a packet.")],
    results: Results = _RESULTS,
    set_: Set = None,
    json_: Json = False,
) -> None:
    """Add a packet to the results. What is there already, or was measured with other settings, is refused.

    Example: neuroprior campaign merge recipes/campaigns/paper.yaml build/packet
    """
    from neuroprior.experiment import load_campaign, merge_packet, open_cells

    checked = load_campaign(campaign, set_ or ())
    cells = merge_packet(checked, packet, results)
    left = len(open_cells(checked, results))
    if json_:
        print(json.dumps({"results": str(results), "merged": [asdict(cell) for cell in cells], "open": left}))
    else:
        print(f"{results}: {len(cells)} networks added, {left} of {len(checked.cells)} still open")


@app.command("report")
def report(campaign: File, results: Results = _RESULTS, set_: Set = None, json_: Json = False) -> None:
    """Write tables and figures of what was merged so far beside it: `tables.md`.

    Example: neuroprior campaign report recipes/campaigns/paper.yaml
    """
    from neuroprior.experiment import load_campaign, measured_so_far, merged_packets
    from neuroprior.report.campaign_page import write_campaign

    parts = measured_so_far(load_campaign(campaign, set_ or ()), results)
    written = write_campaign(parts, merged_packets(results), results)
    print(json.dumps([str(path) for path in written]) if json_ else "\n".join(map(str, written)))
