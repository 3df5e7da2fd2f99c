"""One HTML page from a finished run: everything inline, no script, the same bytes for the same run."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from markupsafe import Markup
from matplotlib.figure import Figure

from neuroprior.experiment.plan import STABILITY
from neuroprior.experiment.results import RunResults
from neuroprior.files import write_whole
from neuroprior.recordings import ScanStability
from neuroprior.report.accuracy_plates import attack_plate, examples_plate, noise_plate
from neuroprior.report.corruption_plate import corruption_plate
from neuroprior.report.corruptions import corruption_csv, corruption_error_csv, corruption_table, kinds_table
from neuroprior.report.effects import effects_csv, effects_tables
from neuroprior.report.frequencies import METRICS as FREQUENCIES
from neuroprior.report.frequencies import frequency_csv, frequency_table
from neuroprior.report.frequency_plate import frequency_plate
from neuroprior.report.further import (
    ATTACK,
    ATTACKED,
    FEW_SHOT,
    LINEAR_PROBE,
    SALT_AND_PEPPER,
    UNIFORM,
    ensemble_table,
    measure_csv,
    measure_table,
)
from neuroprior.report.masking import masking_csv, masking_tables
from neuroprior.report.matched import matched_csv, matched_table
from neuroprior.report.over_scans import ceiling_table, over_scans_csv, over_scans_table
from neuroprior.report.paired import paired_csv, paired_tables
from neuroprior.report.perturbation_plate import perturbation_plate
from neuroprior.report.perturbations import NORMS, norms_attacked, perturbation_csv, perturbation_table
from neuroprior.report.plate import Plate, origin_of
from neuroprior.report.published import ledger_csv, ledger_table
from neuroprior.report.schematic_plate import schematic_plate
from neuroprior.report.similarity_plates import histogram_plate, matrix_plate, pairs_plate, truth_plate
from neuroprior.report.smallest import smallest_csv, tried_table
from neuroprior.report.stability_plates import fluctuations_plate, recorded_plate, scatter_plate
from neuroprior.report.supplement_plate import supplement_plate
from neuroprior.report.svg import house_style, inlined, pdf_bytes, png_bytes, svg_text
from neuroprior.report.sweep import alpha_series, gamma_table, recipe_of
from neuroprior.report.sweep_plate import sweep_plate
from neuroprior.report.tables import csv_text, headline_table, noise_csv, noise_table, summary_csv, tap_table
from neuroprior.report.templates import render
from neuroprior.report.tradeoff import tradeoff_csv, tradeoff_table
from neuroprior.report.tradeoff_plate import tradeoff_plate
from neuroprior.report.training_plates import gamma_plate, taps_plate, training_plate
from neuroprior.report.tuning import MEASURES, tuning_csv, tuning_table
from neuroprior.report.tuning_plate import tuning_plate
from neuroprior.report.twins_table import twins_table
from neuroprior.report.units_plate import units_plate
from neuroprior.report.verdict import verdict

_NAMED = 6  # conditions; more are not all named in the first sentence, the table below it does
_Maker = Callable[[RunResults], Plate]
_Format = Literal["svg", "png", "pdf"]
_NOISE: tuple[_Maker, ...] = (noise_plate,)
_TRADEOFF: tuple[_Maker, ...] = (tradeoff_plate,)
_SWEEP: tuple[_Maker, ...] = (sweep_plate,)
_ATTACK: tuple[_Maker, ...] = (attack_plate,)
_PERTURBATION: tuple[_Maker, ...] = (perturbation_plate,)
_SUPPLEMENT: tuple[_Maker, ...] = (supplement_plate,)
_CORRUPTION: tuple[_Maker, ...] = (corruption_plate,)
_FREQUENCY: tuple[_Maker, ...] = (frequency_plate,)
_TUNING: tuple[_Maker, ...] = (tuning_plate, units_plate)
_SCHEMATIC: tuple[_Maker, ...] = (schematic_plate,)
_RECORDED: tuple[_Maker, ...] = (recorded_plate, fluctuations_plate, scatter_plate)
_REST: tuple[_Maker, ...] = (
    examples_plate,
    matrix_plate,
    histogram_plate,
    truth_plate,
    pairs_plate,
    training_plate,
    gamma_plate,
    taps_plate,
)
_ALL: tuple[_Maker, ...] = (
    *_NOISE,
    *_TRADEOFF,
    *_SWEEP,
    *_ATTACK,
    *_PERTURBATION,
    *_SUPPLEMENT,
    *_CORRUPTION,
    *_FREQUENCY,
    *_TUNING,
    *_SCHEMATIC,
    *_RECORDED,
    *_REST,
)
_MAIN = tuple(maker for maker in _ALL if maker not in (examples_plate, schematic_plate, pairs_plate))  # no pictures


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A plate with its panels as elements of the page, and as SVG files, a text each by the panel's name."""

    plate: Plate
    elements: tuple[Markup, ...]
    svgs: Mapping[str, str]


def write_report(results: RunResults) -> Path:
    """Write `report/index.html` into the run's folder; return it. Beside it tables as CSV, `figures/` as SVG and PDF.

    The page stands alone (styles and figures inside, no script, nothing loaded), appears whole or not at all, and is
    byte for byte the same when written again. Figures without data are left out with one line that says so.
    """
    folder = results.folder / "report"
    tables = _tables(results)
    drawn = _draw(results, _ALL)
    page = _page(results, drawn, tables)
    files = {name: text.encode() for name, text in tables.items()}  # all is made before the first byte is written
    for one in drawn.values():
        files |= {f"figures/{name}.svg": text.encode() for name, text in one.svgs.items()}
        files |= {f"figures/{panel.name}.pdf": pdf_bytes(panel.figure) for panel in one.plate.panels}
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_whole(folder / name, content)
    return write_whole(folder / "index.html", page.encode())


def write_figures(results: RunResults, folder: Path, formats: Sequence[_Format] = ("svg", "png", "pdf")) -> list[Path]:
    """Write the main figures (noise, similarity, training, gamma) in these formats; return what was written."""
    made: Mapping[_Format, Callable[[Figure], bytes]] = {
        "svg": lambda figure: svg_text(figure).encode(),
        "png": png_bytes,
        "pdf": pdf_bytes,
    }
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for maker in _wanted(results, _MAIN):
        with house_style():
            plate = maker(results)
        for panel in plate.panels:
            for kind in formats:
                written.append(write_whole(folder / f"{panel.name}.{kind}", made[kind](panel.figure)))
    return written


def publish(results: RunResults, folder: Path) -> list[Path]:
    """Write what is small enough to commit: figures, CSV tables, metrics, recipe, provenance; return the paths."""
    written = write_figures(results, folder, formats=("svg",))
    for name, text in _tables(results).items():
        written.append(write_whole(folder / name, text.encode()))
    for name in ("metrics.parquet", "recipe.yaml", "provenance.json"):
        written.append(write_whole(folder / name, (results.folder / name).read_bytes()))
    return written


def render_page(results: RunResults) -> str:
    """Return the page as text."""
    return _page(results, _draw(results, _ALL), _tables(results))


def _page(results: RunResults, figures: Mapping[_Maker, _Drawn], csv_names: Iterable[str]) -> str:
    def drawn(makers: Sequence[_Maker]) -> list[tuple[Plate, tuple[Markup, ...]]]:
        found = [figures[maker] for maker in makers if maker in figures]
        return [(one.plate, one.elements) for one in found]

    stability = results.stability if isinstance(results.stability, ScanStability) else None
    return render(
        "page.html.jinja",
        name=results.name,
        tiny=recipe_of(results).get("scale") == "tiny",
        lede=_lede(results),
        missing=results.missing,
        conditions=results.conditions,
        headline=headline_table(results),
        verdict=verdict(results),
        csv_names=list(csv_names),
        origin=origin_of(results),
        ledger=ledger_table(results),
        matched_table=matched_table(results),
        paired=paired_tables(results),
        effects=effects_tables(results),
        noise_plates=drawn(_NOISE),
        noise_table=noise_table(results),
        tradeoff_plates=drawn(_TRADEOFF),
        tradeoff_table=tradeoff_table(results),
        sweep_plates=drawn(_SWEEP),
        gamma_table=gamma_table(results),
        attack_plates=drawn(_ATTACK),
        attack_table=measure_table(results, ATTACK),
        perturbation_plates=drawn(_PERTURBATION),
        perturbation_tables=[
            (NORMS[norm], found)
            for norm in norms_attacked(results)
            if (found := perturbation_table(results, norm)) is not None
        ],
        supplement_plates=drawn(_SUPPLEMENT),
        tried_table=tried_table(results),
        corruption_plates=drawn(_CORRUPTION),
        corruption_table=corruption_table(results),
        kind_tables=[
            (heading, found)
            for heading, extra in (("Each corruption", False), ("Extra corruptions", True))
            if (found := kinds_table(results, extra=extra)) is not None
        ],
        frequency_plates=drawn(_FREQUENCY),
        frequency_table=frequency_table(results),
        masking_tables=masking_tables(results),
        tuning_plates=drawn(_TUNING),
        tuning_tables=[
            (measure.heading, found) for measure in MEASURES if (found := tuning_table(results, measure)) is not None
        ],
        further=[
            (measure.heading, found) for measure in ATTACKED if (found := ensemble_table(results, measure)) is not None
        ]
        + [
            (measure.heading, found)
            for measure in (UNIFORM, SALT_AND_PEPPER, FEW_SHOT, LINEAR_PROBE)
            if (found := measure_table(results, measure)) is not None
        ],
        schematic_plates=drawn(_SCHEMATIC),
        recorded_plates=drawn(_RECORDED),
        ceiling_table=None if stability is None else ceiling_table(stability),
        over_scans_table=None if stability is None else over_scans_table(stability),
        plates=drawn(_REST),
        tap_table=tap_table(results),
        twins_table=twins_table(results),
        provenance=results.provenance,
        recipe=results.recipe_yaml,
    )


def _wanted(results: RunResults, makers: Sequence[_Maker]) -> list[_Maker]:
    """Return the plates that the recipe asks for (`noise` by `noise_plate`); some only if run, or still to be run."""
    measured = set(results.metrics["metric"].to_pylist())
    recipe = recipe_of(results) if results.missing else {}
    attacked = any(recipe.get("perturbations", {}).get(norm) for norm in NORMS)
    run: Mapping[_Maker, bool] = {
        attack_plate: "linf_accuracy" in measured or bool(recipe.get("robustness", {}).get("radii")),
        perturbation_plate: results.attacks is not None or attacked,
        supplement_plate: results.attacks is not None or attacked,
        sweep_plate: bool(alpha_series(results)),
        corruption_plate: any(metric.startswith("corruption.") for metric in measured)
        or bool(recipe.get("corruptions")),
        frequency_plate: not measured.isdisjoint(FREQUENCIES) or bool(recipe.get("frequencies")),
        **dict.fromkeys(_RECORDED, results.stability is not None or STABILITY in results.missing),
        units_plate: bool(results.units),
        tuning_plate: not measured.isdisjoint(one.metric for one in MEASURES) or bool(recipe.get("tuning")),
    }
    asked = [m for m in makers if results.figures is None or m.__name__.removesuffix("_plate") in results.figures]
    return [maker for maker in asked if run.get(maker, True)]


def _draw(results: RunResults, makers: Sequence[_Maker]) -> dict[_Maker, _Drawn]:
    """Draw the plates that the recipe asks for, each once."""
    drawn = {}
    for maker in _wanted(results, makers):
        with house_style():
            plate = maker(results)
        svgs = {panel.name: svg_text(panel.figure) for panel in plate.panels}
        # Safe to mark as such: matplotlib escapes every label in its SVG, and inlined the alt text.
        elements = tuple(Markup(inlined(svgs[panel.name], panel.name, panel.alt)) for panel in plate.panels)
        drawn[maker] = _Drawn(plate, elements, svgs)
    return drawn


def _lede(results: RunResults) -> str:
    """Say in plain words what was run."""
    count = len(results.conditions)
    words = f"{count} condition{'' if count == 1 else 's'}"
    labels = f" ({', '.join(card.label for card in results.conditions)})" if count <= _NAMED else ""
    seeds = results.seeds
    said = [f"{results.description.strip().rstrip('.')}."] if results.description.strip() else []
    said += [f"Networks were trained to classify {results.task} under {words}{labels}."]
    if len(seeds) == 1:
        said.append(f"Each was trained once (seed {seeds[0]}), so nothing here has a spread over seeds.")
    elif seeds:
        said.append(f"There are results for {len(seeds)} seeds ({', '.join(map(str, seeds))}).")
    else:
        said.append("No result is finished yet.")
    levels = sorted(results.noise_levels)
    if levels:
        said.append(
            f"Every network is tested on the same images with Gaussian noise at {len(levels)} levels, "
            f"σ = {levels[0]:g} to {levels[-1]:g}."
        )
    if results.targets:
        said.append(
            "A target is a matrix that says how alike images should look to the network; which one a condition was "
            "given, and how its neurons were weighted, stands in the table."
        )
    return " ".join(said)


def _tables(results: RunResults) -> dict[str, str]:
    """Return the CSV files by name: summary, noise and ledger always, the others where they have a row."""
    always = {"summary.csv": summary_csv(results), "noise.csv": noise_csv(results), "ledger.csv": ledger_csv(results)}
    where_any = {
        "paired.csv": paired_csv(results),
        "effects.csv": effects_csv(results),
        "matched.csv": matched_csv(results),
        "scans.csv": over_scans_csv(results.stability) if isinstance(results.stability, ScanStability) else [],
        "tradeoff.csv": tradeoff_csv(results),
        "attack.csv": measure_csv(results, ATTACK),
        "perturbations.csv": perturbation_csv(results),
        "smallest.csv": smallest_csv(results),
        "corruptions.csv": corruption_csv(results),
        "corruption_errors.csv": corruption_error_csv(results),
        "frequencies.csv": frequency_csv(results),
        "tuning.csv": tuning_csv(results),
        "masking.csv": masking_csv(results),
        **{f"{measure.metric}.csv": measure_csv(results, measure) for measure in ATTACKED},
        "uniform_noise.csv": measure_csv(results, UNIFORM),
        "salt_and_pepper_noise.csv": measure_csv(results, SALT_AND_PEPPER),
        "few_shot.csv": measure_csv(results, FEW_SHOT),
        "linear_probe.csv": measure_csv(results, LINEAR_PROBE),
    }
    kept = {**always, **{name: rows for name, rows in where_any.items() if len(rows) > 1}}
    return {name: csv_text(rows) for name, rows in kept.items()}
