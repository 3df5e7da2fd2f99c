"""The mean smallest perturbation, norm by norm (the paper's Figure 7): the run to a `Plate`."""

from collections.abc import Sequence

from neuroprior.experiment.results import Measurements
from neuroprior.report.palette import Look, looks_of
from neuroprior.report.perturbations import NORMS, norms_attacked
from neuroprior.report.plate import Panel, Plate
from neuroprior.report.smallest import SAID, Smallest, Tried, smallest_of, tried
from neuroprior.report.supplement_drawing import Alone, Row, smallest_rows
from neuroprior.report.tables import range_phrase, seeds_phrase

_SHORT = {norm: said.partition(" ")[0] for norm, said in NORMS.items()}


def supplement_plate(results: Measurements) -> Plate:
    """A panel a norm: mean over images of the smallest perturbation that any attack found, and what single ones did."""
    heading = "Mean smallest perturbation, norm by norm"
    looks = looks_of(results.conditions)
    panels, drawn, nothing = [], list[Smallest](), list[str]()
    for norm in norms_attacked(results):
        measured = smallest_of(results, norm)
        rows = [row for one in measured if (row := _row(one, looks[one.card.name])) is not None]
        drawn += [one for one in measured if one.best.estimate is not None]
        nothing += [f"{one.card.label} ({_SHORT[norm]})" for one in measured if one.best.estimate is None]
        if rows:
            at = [f"{row.label} {row.best.mean:.3g}" for row in rows]
            alt = f"Dots, one a condition: mean smallest {NORMS[norm]} perturbation that fools it: {', '.join(at)}."
            panels.append(
                Panel(
                    f"smallest-{norm}",
                    smallest_rows(rows, NORMS[norm], "" if norm == "l0" else " (pixels in [0, 1])"),
                    alt,
                )
            )
    if not panels:
        return Plate(heading, absent="No search for perturbations is finished, or nothing was found.")
    assert results.attacks is not None  # norms_attacked says so
    return Plate(heading, tuple(panels), _caption(drawn, tried(results.attacks), nothing))


def _row(one: Smallest, look: Look) -> Row | None:
    if one.best.estimate is None:
        return None
    order = [*SAID]
    alone = tuple(
        Alone(
            SAID.get(attack, attack),
            order.index(attack) if attack in order else len(order),
            mean.estimate.mean,
            complete=mean.not_found == one.best.not_found,
        )
        for attack, mean in one.alone.items()
        if mean.estimate is not None
    )
    return Row(one.card.label, look, one.best.estimate, alone)


def _caption(drawn: Sequence[Smallest], ran: Sequence[Tried], nothing: Sequence[str]) -> str:
    images = range_phrase([one.best.images // one.seeds for one in drawn])
    said = [
        f"Mean over {images} test images of the smallest perturbation that fools a network (as the paper's Figure 7), "
        f"pixels in [0, 1]; the smaller, the easier it is to fool. An image that is already wrong counts 0, one that "
        f"nothing fooled is left out. {_counts(drawn)}.",
        "Every adversarial was checked again: within [0, 1], misclassified at another batch size too, its length "
        "computed anew.",
        _spread(drawn),
        f"Attacks: {_attacks(ran)}; their settings stand in the table.",
    ]
    if any(one.alone for one in drawn):
        said.append("Small gray marks: what one attack finds by itself, over all of its settings and repetitions.")
        if any(mean.not_found > one.best.not_found for one in drawn for mean in one.alone.values()):
            said.append(
                "Hollow: on some images it found nothing where others did, so that its mean is of fewer images."
            )
    if not all(one.alone for one in ran):
        said.append("Attacks that began from what others had found have no mark of their own.")
    if nothing:
        said.append(f"Not drawn, nothing was found: {', '.join(nothing)}.")
    return " ".join(said)


def _counts(drawn: Sequence[Smallest]) -> str:
    """`Already wrong and not found a condition, L2: 3 to 5 and 0 of 200` images, over all of its seeds."""
    said = []
    for norm, words in _SHORT.items():
        mine = [one.best for one in drawn if one.norm == norm]
        if mine:
            wrong, missed, of = (
                range_phrase([getattr(best, name) for best in mine])
                for name in ("already_wrong", "not_found", "images")
            )
            lost = [best.quarantined for best in mine]
            quarantined = f" ({range_phrase(lost)} quarantined)" if any(lost) else ""
            said.append(f"{words} {wrong} and {missed} of {of}{quarantined}")
    return f"Already wrong and not found, of a condition's images (over its seeds): {'; '.join(said)}"


def _spread(drawn: Sequence[Smallest]) -> str:
    over_images = any(one.best.over_images for one in drawn)
    seeds = [one.seeds for one in drawn]
    if max(seeds) == 1:
        return f"{'Bars: ± SEM over images (ddof 1), not over trainings; ' if over_images else ''}n = 1 seed."
    return (
        f"Bars: ± SEM over seeds (ddof 1){', of one seed over images' if over_images else ''}; {seeds_phrase(seeds)}."
    )


def _attacks(ran: Sequence[Tried]) -> str:
    said = []
    for norm, words in _SHORT.items():
        named = []
        for one in (one for one in ran if one.norm == norm):
            settings = f"{len(one.settings)} setting{'s' if len(one.settings) > 1 else ''}"
            times = f", {one.repetitions} times" if one.repetitions > 1 else ""
            named.append(f"{SAID.get(one.attack, one.attack)} ({settings}{times})")
        if named:
            said.append(f"{words} {', '.join(named)}")
    return "; ".join(said)
