"""Twins on one page: what they are, how they were fitted, what they have learnt and how well they predict."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from neuroprior.report.plate import Panel, Plate, write_plates
from neuroprior.report.svg import house_style, inline_svg
from neuroprior.report.tables import NOT_MEASURED, Table, minus
from neuroprior.report.templates import render
from neuroprior.report.twin_drawings import (
    exciting_figure,
    filters_figure,
    learning_figure,
    oracle_figure,
    positions_figure,
    scores_figure,
)
from neuroprior.twin import FitEpoch, Twin, TwinScores, exciting_images
from neuroprior.twin.model import field_centres
from neuroprior.twin.predict import pixel_scale
from neuroprior.types import Float32, InputError, Scan

_DRAWN = 4  # scans with panels of their own
_LONGEST = 40  # letters of a scan's name above its panel
_CONTRAST, _BLUR, _STEPS = 0.2, (4.0, 1.5), 40  # of exciting images, as the caption says


def write_twin_page(
    twins: Sequence[Twin],
    folder: Path,
    *,
    history: Sequence[FitEpoch] = (),
    scores: Mapping[str, TwinScores] | None = None,
    scans: Mapping[str, Scan] | None = None,
    notes: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    n_exciting: int = 8,
    seed: int = 0,
) -> list[Path]:
    """Write `index.html`, which stands alone, and each figure as SVG; return the paths.

    `scores`, `scans`: of twins, by their names; what is not given is said to be left out. `settings`: shown as they
    are, nested as they are. `n_exciting`: neurons of each twin (of four at most) whose most exciting image is sought,
    from noise of this `seed`: a second or two for 8 neurons of a small twin.
    Raises `InputError` for no twin, two of one name, scores or scans of no twin here or of other neurons, and an
    `n_exciting` below 0.
    """
    scores, scans = scores or {}, scans or {}
    _check(twins, scores, scans)
    if n_exciting < 0:
        raise InputError(f"twin page: n_exciting is {n_exciting}; it must be 0 or more")
    with house_style():
        plates = [
            _learning(history),
            _filters(twins),
            _positions(twins, scans),
            _exciting(twins, scores, scans, n_exciting, seed),
            _histograms(twins, scores),
            _against_oracle(twins, scores),
        ]
    drawn = [(plate, [Markup(inline_svg(one.figure, one.name, one.alt)) for one in plate.panels]) for plate in plates]
    page = render(
        "twin_page.html.jinja",
        names=[twin.name for twin in twins],
        n_neurons=sum(twin.n_neurons for twin in twins),
        sizes=list(dict.fromkeys(f"{height}x{width}" for height, width in (twin.input_size for twin in twins))),
        table=_table(twins, scores, scans),
        notes=list(notes),
        plates=drawn,
        settings=settings,
    )
    return write_plates(folder, page, plates)


def _check(twins: Sequence[Twin], scores: Mapping[str, TwinScores], scans: Mapping[str, Scan]) -> None:
    if not twins:
        raise InputError("twin page: no twin given; pass one or more")
    neurons = {twin.name: twin.n_neurons for twin in twins}
    if len(neurons) < len(twins):
        names = [twin.name for twin in twins]
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"twin page: two twins are called {twice!r}; give each a name of its own")
    counts = [("scores", name, len(one.single_trial)) for name, one in scores.items()]
    counts += [("scan", name, one.responses.shape[1]) for name, one in scans.items()]
    for what, name, n in counts:
        if name not in neurons:
            raise InputError(f"twin page: {what} of {name!r}, and no twin is called so; there are {', '.join(neurons)}")
        if n != neurons[name]:
            raise InputError(f"twin page: {what} of {name!r}: {n} neurons, and the twin has {neurons[name]}")


def _table(twins: Sequence[Twin], scores: Mapping[str, TwinScores], scans: Mapping[str, Scan]) -> Table:
    rows = [_row(twin, scores.get(twin.name), scans.get(twin.name)) for twin in twins]
    tiers = dict.fromkeys(one.tier for one in scores.values())
    thresholds = dict.fromkeys(f"{one.fev_threshold:g}" for one in scores.values())
    caption = "v: mean over neurons of the correlation on oracle trials, negative ones 0 (Eq. 6). – : not measured."
    if scores:
        caption = (
            f"Scored: trials of tier {', '.join(tiers)} (of how many images), each at its own behaviour and gaze. Mean "
            "over neurons (5 to 95 % of them) of Pearson's r of prediction and response, over trials and over the "
            "means of repeated images. FEVE: fraction of explainable variance explained, median over the neurons at "
            f"least {', '.join(thresholds)} of whose variance is explainable (how many these are, of all). Oracle "
            "fraction: slope through 0 of single-trial r over the oracle correlation (Walker et al. 2019). "
            f"{caption}"
        )
    header = (
        "Scan",
        "Neurons",
        "Trials",
        "Scored (images)",
        "Single-trial r",
        "r to average",
        "FEVE",
        "Oracle fraction",
        "v",
    )
    return Table(caption, header, tuple(rows))


def _row(twin: Twin, scores: TwinScores | None, scan: Scan | None) -> tuple[str, ...]:
    v = _accuracy(twin, scores)
    known = (
        twin.name,
        f"{twin.n_neurons:,}",
        NOT_MEASURED if scan is None else f"{len(scan.trial_image):,}",
    )
    mean_v = NOT_MEASURED if v is None else f"{v.mean():.2f}"
    if scores is None:
        return (*known, *[NOT_MEASURED] * 5, mean_v)
    feve, fraction = _finite(scores.feve), scores.oracle_fraction
    return (
        *known,
        f"{scores.n_trials:,} ({scores.n_images:,})",
        _mean_said(scores.single_trial),
        _mean_said(scores.to_average),
        _two(float(np.median(feve))) + f" ({len(feve):,} of {twin.n_neurons:,})" if len(feve) else NOT_MEASURED,
        NOT_MEASURED if fraction is None else _two(fraction),
        mean_v,
    )


def _mean_said(values: np.ndarray | None) -> str:
    there = _finite(values)
    if not len(there):
        return NOT_MEASURED
    low, high = np.quantile(there, (0.05, 0.95)).tolist()
    blank = "\N{NO-BREAK SPACE}"  # so that a narrow cell breaks before the bracket
    return f"{_two(float(there.mean()))} ({_two(low)}{blank}to{blank}{_two(high)})"


def _learning(history: Sequence[FitEpoch]) -> Plate:
    heading = "Training"
    if not history:
        return Plate(heading, absent="no history of a fit was given.")
    best = max(history, key=lambda epoch: np.nan_to_num(epoch.validation_correlation, nan=-2.0))
    fell = any(row.learning_rate < before.learning_rate for before, row in pairwise(history))
    slowed = " Dashed: from here on at a lower learning rate, beginning with the best weights." if fell else ""
    caption = (
        f"{_count(len(history), 'epoch')}; the weights are those of epoch {best.epoch}. Loss: mean over training "
        "trials and neurons of ρ − r log ρ (Poisson), r in each neuron's standard deviations, without the penalties "
        f"(last: {history[-1].penalty:.2g}). Validation r: of prediction and response over validation trials, mean "
        f"over neurons.{slowed}"
    )
    return Plate(heading, (Panel("learning", learning_figure(history), caption),), caption)


def _filters(twins: Sequence[Twin]) -> Plate:
    cores: list[tuple[list[str], Float32[np.ndarray, "filter height width"]]] = []
    for twin in twins:
        filters = twin.model.core.filters[:, 0].detach().float().numpy()
        same = [names for names, known in cores if np.array_equal(known, filters)]
        if same:
            same[0].append(twin.name)
        else:
            cores.append(([twin.name], filters))
    panels = tuple(
        Panel(f"filters-{k}", filters_figure(filters), f"The {len(filters)} first-layer filters of {', '.join(names)}.")
        for k, (names, filters) in enumerate(cores[:_DRAWN])
    )
    said = "; ".join(
        f"{len(filters)} of {filters.shape[1]}x{filters.shape[2]} pixels ({', '.join(names)})"
        for names, filters in cores[:_DRAWN]
    )
    beside = any(twin.model.core.filters.shape[1] > 1 for twin in twins)
    caption = (
        f"{said}. Each from black (minus its largest absolute weight) over gray (0) to white."
        f"{' Of the image; weights of behaviour are not drawn.' * beside}{_not_drawn(len(cores), 'core')}"
    )
    return Plate("Filters of the first layer", panels, caption)


def _positions(twins: Sequence[Twin], scans: Mapping[str, Scan]) -> Plate:
    panels = []
    colored = False
    for k, twin in enumerate(twins[:_DRAWN]):
        centres = field_centres(twin)
        scan = scans.get(twin.name)
        alt = f"Receptive-field positions of the {twin.n_neurons} neurons of {twin.name}"
        if scan is None or scan.neuron_xyz is None:
            figure = positions_figure(centres, twin.input_size, title=_short(twin.name))
            panels.append(Panel(f"positions-{k}", figure, f"{alt}."))
            continue
        colored = True
        for axis, name in enumerate("xy"):
            cortex = scan.neuron_xyz[:, axis].astype(np.float64)
            along = f"cortex, {name}"
            figure = positions_figure(centres, twin.input_size, cortex=cortex, along=along, title=_short(twin.name))
            panels.append(Panel(f"positions-{k}-{name}", figure, f"{alt}, coloured by {name} in the cortex."))
    numbers = ", ".join(f"n = {twin.n_neurons:,} ({twin.name})" for twin in twins[:_DRAWN])
    colours = " Colour: the neuron's place along the two axes of the cortex." if colored else ""
    caption = (
        f"Where in the image each neuron's readout lies, before gaze shifts it; a dot a neuron, {numbers}. The frame "
        f"is the image.{colours}{_not_drawn(len(twins), 'scan')}"
    )
    return Plate("Receptive-field positions", tuple(panels), caption)


def _exciting(
    twins: Sequence[Twin], scores: Mapping[str, TwinScores], scans: Mapping[str, Scan], n: int, seed: int
) -> Plate:
    heading = "Most exciting images"
    panels, unknown, raised = [], [], []
    for k, twin in enumerate(twins[:_DRAWN] if n else ()):
        scan = scans.get(twin.name)
        if scan is None and (twin.pixel_mean is None or twin.pixel_std is None):
            unknown.append(twin.name)
            continue
        scale = None if scan is None else pixel_scale(twin, scan.stimuli)
        v = _accuracy(twin, scores.get(twin.name))
        order = np.arange(twin.n_neurons) if v is None else np.argsort(-v, kind="stable")
        neurons = order[:n].tolist()
        found = exciting_images(
            twin, neurons, pixel_scale=scale, contrast=_CONTRAST, seed=seed, steps=_STEPS, blur=_BLUR
        )
        images = found.images[:, 0]
        raised += (found.activities[-1] / np.maximum(found.activities[0], 1e-6)).tolist()
        titles = [f"{a}" if v is None else f"{a}: v = {v[a]:.2f}" for a in neurons]
        reach = float(np.abs(images - images.mean()).max())
        grays = (float(images.mean()) - reach, float(images.mean()) + reach)
        alt = f"Most exciting images, of neurons {', '.join(map(str, neurons))} of {twin.name}."
        figure = exciting_figure(images, titles, grays, heading=_short(twin.name))
        panels.append(Panel(f"exciting-{k}", figure, alt))
    if not panels:
        why = (
            f"no file says what pixels are z-scored with ({', '.join(unknown)}); give scans."
            if unknown
            else "none was asked for."
        )
        return Plate(heading, absent=why)
    left_out = f" Not of {', '.join(unknown)}, whose pixel scale is not known." if unknown else ""
    caption = (
        f"The {_count(min(n, max(twin.n_neurons for twin in twins)), 'neuron')} of largest v of each scan (the first "
        "ones where v is not known), by number, at neutral behaviour and gaze. Gradient ascent on pixels from one "
        f"noise image, {_STEPS} steps, blur {_BLUR[0]:g} to {_BLUR[1]:g} pixels (standard deviation), at the mean gray "
        f"and {_CONTRAST:g} of the contrast of the training images; shown with more contrast, one scale a panel. "
        f"Rates rose {np.median(raised):.1f}-fold from the noise (median of n = {len(raised)})."
        f"{_not_drawn(len(twins), 'scan')}{left_out}"
    )
    return Plate(heading, tuple(panels), caption)


def _histograms(twins: Sequence[Twin], scores: Mapping[str, TwinScores]) -> Plate:
    heading = "How well neurons are predicted"
    scored = [(twin.name, scores[twin.name]) for twin in twins if twin.name in scores]
    if not scored:
        return Plate(heading, absent="no scores were given.")
    panels = tuple(
        Panel(
            f"scores-{k}",
            scores_figure(one.single_trial, one.to_average, one.feve, title=_short(name)),
            f"Histograms of the scores of the {len(one.single_trial)} neurons of {name}.",
        )
        for k, (name, one) in enumerate(scored[:_DRAWN])
    )
    once = ", ".join(name for name, one in scored[:_DRAWN] if one.feve is None)
    single = f" No image was repeated: {once}." if once else ""
    caption = (
        "Neurons by score, on one scale; n: neurons for which it is defined. Dashed: mean, or median. A fraction of "
        "explainable variance is above 1 where behaviour explains what repeats would call noise; what lies beyond an "
        "end of the axis is drawn there."
        f"{single}{_not_drawn(len(scored), 'scan')}"
    )
    return Plate(heading, panels, caption)


def _against_oracle(twins: Sequence[Twin], scores: Mapping[str, TwinScores]) -> Plate:
    heading = "Against the oracle"
    panels, said = [], []
    scored = [(twin.name, scores[twin.name]) for twin in twins if twin.name in scores]
    scored = [(name, one) for name, one in scored if one.oracle_fraction is not None]
    for k, (name, one) in enumerate(scored[:_DRAWN]):
        fraction = one.oracle_fraction
        assert fraction is not None
        assert one.oracle is not None
        n = int(np.count_nonzero(np.isfinite(one.oracle) & np.isfinite(one.single_trial)))
        figure = oracle_figure(one.oracle, one.single_trial, fraction, title=_short(name))
        alt = f"Single-trial correlation against oracle correlation of {n} neurons of {name}; slope {fraction:.2f}."
        panels.append(Panel(f"oracle-{k}", figure, alt))
        said.append(f"{name}: slope {_two(fraction)}, n = {n:,} neurons")
    if not panels:
        return Plate(heading, absent="it needs scores on images with two trials or more.")
    caption = (
        f"Correlation of each response with the prediction, against that with the mean of the image's other trials; a "
        f"dot a neuron. {'; '.join(said)}. Line: slope through 0, the oracle fraction. Dashed: identity; the mean of a "
        f"few trials is noisy itself, so a perfect model lies above it.{_not_drawn(len(scored), 'scan')}"
    )
    return Plate(heading, tuple(panels), caption)


def _accuracy(twin: Twin, scores: TwinScores | None) -> Float32[np.ndarray, " neuron"] | None:
    """v_a: the twin's own, or that of scores on oracle trials."""
    if twin.accuracy is not None:
        return twin.accuracy
    return scores.accuracy if scores is not None and scores.tier == "oracle" else None


def _finite(values: np.ndarray | None) -> np.ndarray:
    return np.empty(0) if values is None else values[np.isfinite(values)]


def _number(value: float) -> float | None:
    return float(f"{value:.6g}") if np.isfinite(value) else None


def _two(value: float) -> str:
    return minus(f"{value:z.2f}")


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _not_drawn(n: int, what: str) -> str:
    left = n - _DRAWN
    return f" {_count(left, f'more {what}')} {'is' if left == 1 else 'are'} not drawn." if left > 0 else ""
