"""A recording's report card: what is in it and whether it is sound, as one HTML page or as JSON."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from neuroprior.files import write_whole
from neuroprior.recordings import CLEAR, LAGS, ScanCheck
from neuroprior.report.scan_drawings import alignment_by_lag, neuron_histogram
from neuroprior.report.svg import house_style, inline_svg
from neuroprior.report.templates import render

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def card_json(check: ScanCheck) -> dict[str, Any]:
    """Return the card's numbers; histograms as counts and edges, what is undefined as null."""
    return {
        "name": check.name,
        "sound": check.sound,
        "faults": list(check.faults),
        "notes": list(check.notes),
        "trials": check.n_trials,
        "neurons": check.n_neurons,
        "images": check.n_images,
        "image_size": list(check.image_size),
        "tiers": {
            name: {"images": tier.images, "trials": tier.trials, "repeats": [tier.least, tier.most]}
            for name, tier in check.tiers.items()
        },
        "snr": _spread(check.snr),
        "oracle_correlation": _spread(check.oracle),
        "signal_dimensions": _number(check.signal_dimensions),
        "response_dimensions": _number(check.response_dimensions),
        "alignment": {str(lag): _number(value) for lag, value in zip(LAGS, check.alignment.tolist(), strict=True)},
        "alignment_by_chance": {"mean": _number(check.chance[0]), "sd": _number(check.chance[1])},
        "behaviour": {
            channel.name: {
                "mean": _number(channel.mean),
                "sd": _number(channel.spread),
                "5 to 95 %": [_number(channel.low), _number(channel.high)],
                "tracked": round(channel.tracked, 4),
            }
            for channel in check.behaviour
        },
        "shifts": [
            {
                "first": shift.first,
                "last": shift.last,
                "lag": shift.lag,
                "there": _number(shift.there),
                "as_they_stand": _number(shift.as_they_stand),
            }
            for shift in check.shifts
        ],
        "silent_neurons": check.silent.tolist(),
        "constant_neurons": check.constant.tolist(),
        "duplicated_neurons": [list(pair) for pair in check.duplicated],
    }


def write_card(check: ScanCheck, path: Path) -> Path:
    """Write the card as a page that stands alone; it appears whole or not at all."""
    page = card_page(check)
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_whole(path, page)


def card_page(check: ScanCheck) -> str:
    """Return the card as the text of an HTML page."""
    return render(
        "scan_card.html.jinja",
        name=check.name,
        check=check,
        rows=_rows(check),
        figures=_figures(check),
        behaviour=[
            (
                channel.name,
                _said(channel.mean),
                _said(channel.spread),
                f"{_said(channel.low)} to {_said(channel.high)}",
                f"{100 * channel.tracked:.1f} %",
            )
            for channel in check.behaviour
        ],
    )


def _rows(check: ScanCheck) -> list[tuple[str, str]]:
    height, width = check.image_size
    rows = [
        ("neurons", f"{check.n_neurons:,}"),
        ("trials", f"{check.n_trials:,}"),
        ("images", f"{check.n_images:,} of {width}x{height} pixels"),
    ]
    for name, tier in check.tiers.items():
        repeats = f"{tier.least}" if tier.least == tier.most else f"{tier.least} to {tier.most}"
        shown = "once" if tier.most == 1 else f"{repeats} times"
        rows.append((f"{name} images", f"{tier.images:,}, shown {shown}: {tier.trials:,} trials"))
    if check.snr is not None and check.oracle is not None:
        rows.append(("SNR w (Eq. 1), median", f"{np.median(check.snr):.2f}"))
        rows.append(("oracle correlation, median", f"{np.median(check.oracle):.2f}"))
    if math.isfinite(check.signal_dimensions):
        rows.append(("dimensions of the signal", f"{check.signal_dimensions:.1f}"))
    if math.isfinite(check.response_dimensions):
        rows.append(("dimensions of single trials", f"{check.response_dimensions:.1f}"))
    return rows


def _figures(check: ScanCheck) -> list[tuple[str, Markup, str]]:
    """Return heading, drawing and caption of each figure that there are numbers for."""
    drawn = []
    with house_style():
        if check.snr is not None and check.oracle is not None:
            for heading, values, caption in (
                ("Signal to noise", check.snr, "w = σ/η (Eq. 1) over the repeated oracle images"),
                (
                    "Oracle correlation",
                    check.oracle,
                    "Of each response with the mean of the other trials of its image",
                ),
            ):
                median = float(np.median(values))
                figure = neuron_histogram(values, heading)
                drawn.append((heading, figure, f"{caption}. n = {len(values):,} neurons; dashed: median {median:.2f}."))
        if np.isfinite(check.alignment).all():
            figure = alignment_by_lag(LAGS, check.alignment, check.chance, CLEAR)
            caption = (
                "Of the whole session: mean cosine of two trials of one image less that of two images, responses taken "
                "so many trials later. "
                f"It should stand out at 0. Grey: images permuted, ± {CLEAR:g} standard deviations."
            )
            drawn.append(("Do responses belong to their images?", figure, caption))
    return [
        (heading, Markup(inline_svg(figure, f"card-{k}", f"{heading}. {caption}")), caption)
        for k, (heading, figure, caption) in enumerate(drawn)
    ]


def _spread(values: np.ndarray | None) -> dict[str, Any] | None:
    if values is None:
        return None
    counts, edges = np.histogram(values, bins=30)
    return {
        "quantiles": {f"{q:g}": _number(float(np.quantile(values, q))) for q in _QUANTILES},
        "histogram": {"counts": counts.tolist(), "edges": [_number(edge) for edge in edges.tolist()]},
    }


def _number(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _said(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "never tracked"
