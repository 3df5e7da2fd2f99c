"""Where data lies, and what of it can be downloaded: the catalogue, and the code that brings it."""

from neuroprior.sources.catalogue import SOURCES, RemoteFile, Source, find_source, hint, how_to_get
from neuroprior.sources.fetch import SourceState, fetch, listing
from neuroprior.sources.folder import data_folder, data_path
from neuroprior.sources.unpack import Progress

__all__ = [
    "SOURCES",
    "Progress",
    "RemoteFile",
    "Source",
    "SourceState",
    "data_folder",
    "data_path",
    "fetch",
    "find_source",
    "hint",
    "how_to_get",
    "listing",
]
