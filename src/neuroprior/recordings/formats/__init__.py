"""Recordings in files: one module a format, one entry each in the registry."""

from neuroprior.recordings.formats.registry import SCAN_FORMATS, load_scan, save_scan
from neuroprior.recordings.formats.scan_format import ScanFormat

__all__ = ["SCAN_FORMATS", "ScanFormat", "load_scan", "save_scan"]
