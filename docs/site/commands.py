"""The page of commands, from what every command says of itself; the site's hook asks for it."""

import contextlib
import io
import os
import re
from collections.abc import Iterator
from unittest import mock

from neuroprior import cli

HEAD = """# Commands

What each command says with `--help`. Of all of them:

- Exit status 0: done. 1: ran, and found faults or failed steps. 2: something that you can mend, told in one line that
  names it and the mend ([what they mean](troubleshooting.md)). 130: stopped with Ctrl-C.
- `--debug`, anywhere on the line, shows the traceback of an error. `--json`, where there is one, prints one object.
- `neuroprior` alone lists the commands; `python -m neuroprior` is the same program.
"""


def page() -> str:
    """The whole page, the same whatever the terminal's width."""
    with mock.patch.dict(os.environ, COLUMNS="80"):
        parts = [f"\n## {' '.join(words)}\n\n```text\n{said(words)}\n```\n" for words in commands()]
    return "".join([HEAD, *parts])


def commands(words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command that does something, groups opened, in the order in which the help lists them."""
    listed = re.search(r"\nCommands:\n(.*)", said(words), re.DOTALL)
    if listed is None:
        yield words
        return
    for name in re.findall(r"^  ([a-z-]+)", listed[1], re.MULTILINE):
        yield from commands((*words, name))


def said(words: tuple[str, ...]) -> str:
    """What `neuroprior WORDS --help` prints, without the line about `--help`."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        cli.app([*words, "--help"], standalone_mode=False, prog_name="neuroprior")
    text = re.sub(r"^ *--help +Show this message and exit\.$", "", out.getvalue(), flags=re.MULTILINE)
    return re.sub(r"\n+Options:\n*$", "", "\n".join(line.rstrip() for line in text.splitlines()).strip())
