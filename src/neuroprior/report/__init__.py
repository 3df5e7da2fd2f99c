"""Finished run to figures, tables and one HTML page."""

from neuroprior.report.page import publish, write_figures, write_report
from neuroprior.report.perturbation_plate import perturbation_figure

__all__ = ["perturbation_figure", "publish", "write_figures", "write_report"]
