"""Finished run to figures, tables and one HTML page."""

from neuroprior.report.page import write_figures, write_report

__all__ = ["write_figures", "write_report"]
