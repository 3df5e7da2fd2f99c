"""What excites some units of each network most: a run to a `Plate` of pictures."""

from neuroprior.experiment.results import RunResults
from neuroprior.report.image_drawings import unit_pictures
from neuroprior.report.plate import Panel, Plate


def units_plate(results: RunResults) -> Plate:
    """A panel a condition: a row a tap, in each some of its units, evenly among those that answer to gratings."""
    panels = []
    for k, card in enumerate(results.conditions):
        units = results.units.get(card.name)
        if units is None or not len(units.images):
            continue
        taps = list(dict.fromkeys(units.layers))
        alt = f"{card.label}: the most exciting images of {len(units.images)} units at {', '.join(taps)}."
        panels.append(Panel(f"units-{k}", unit_pictures(card.label, units), alt))
    heading = "What excites units most"
    if not panels:
        return Plate(heading, absent="No network's units were asked.")
    return Plate(
        heading,
        tuple(panels),
        "Gradient ascent on the pixels, at fixed contrast, for the unit in the middle of a channel's map: some "
        "channels of each tap, by their number, of each condition's first network. Colour is shown as gray.",
    )
