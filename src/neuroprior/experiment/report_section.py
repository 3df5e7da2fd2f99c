"""What the report of a run shows."""

from typing import Annotated, Literal, get_args

from pydantic import Field

from neuroprior.experiment.section import Section

Figure = Literal[
    "noise",
    "tradeoff",
    "sweep",
    "attack",
    "perturbation",
    "supplement",
    "corruption",
    "frequency",
    "tuning",
    "units",
    "examples",
    "schematic",
    "recorded",
    "fluctuations",
    "scatter",
    "matrix",
    "histogram",
    "truth",
    "pairs",
    "training",
    "gamma",
    "taps",
]


class ReportSection(Section):
    """What the report shows; no step depends on it."""

    title: str | None = Field(default=None, description="in place of the recipe's name")
    levels: tuple[Annotated[float, Field(ge=0)], ...] = Field(
        default=(0.05, 0.10, 0.15), description="noise levels of the headline table: the nearest ones measured"
    )
    figures: tuple[Figure, ...] = Field(default=get_args(Figure), description="which figures, in the page's own order")
