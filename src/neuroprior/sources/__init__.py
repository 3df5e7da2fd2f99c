"""Data that can be downloaded: the catalogue, and the code that brings it and says what is there."""

from neuroprior.sources.catalogue import SOURCES, RemoteFile, Source, find_source, hint
from neuroprior.sources.fetch import SourceState, fetch, listing
from neuroprior.sources.unpack import Progress

__all__ = ["SOURCES", "Progress", "RemoteFile", "Source", "SourceState", "fetch", "find_source", "hint", "listing"]
