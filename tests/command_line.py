"""The command line, called as a person does."""

import pytest

from neuroprior import cli


def call(capsys, *arguments) -> tuple[int, str, str]:
    """Return exit status, what was printed, and what was said."""
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err
