"""Finished run to figures, tables and one HTML page."""

from neuroprior.report.page import publish, write_figures, write_report

__all__ = ["publish", "write_figures", "write_report"]
