"""Griffe extension: `S[p][:, p]` in a docstring is an array's index, not Markdown's link."""

import re
from typing import Any

import griffe

_OUTSIDE_CODE = re.compile(r"(`[^`]*`)|\]\[")


class Indices(griffe.Extension):
    """Escapes what Markdown would take for a link by reference."""

    def on_instance(self, *, obj: griffe.Object, **rest: Any) -> None:
        """Called for every module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = _OUTSIDE_CODE.sub(lambda found: found[1] or r"]\[", obj.docstring.value)
