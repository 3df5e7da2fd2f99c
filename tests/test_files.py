"""Files that appear whole: whose fault it is said to be when the disk takes no more."""

import ast
import errno
import os
from pathlib import Path

import pytest

from neuroprior import cli
from neuroprior.files import appearing_whole, disk_fault, write_whole

SOURCE = Path(__file__).parents[1] / "src" / "neuroprior"
needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")


@needs_full
def test_a_full_disk_is_said_of_the_file_that_was_written(tmp_path):
    """The write itself fails, and an open file's error names nothing."""
    path = tmp_path / "new" / "page.html"
    path.parent.mkdir()
    path.with_name(f".{path.name}.{os.getpid()}").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        write_whole(path, "x")
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(path)
    assert cli._disk_line(caught.value).startswith(f"{path}: no space left on the disk (")
    assert not list(path.parent.iterdir())


def test_the_passing_name_is_never_said(tmp_path):
    path = tmp_path / "gone" / "page.html"
    with pytest.raises(FileNotFoundError) as caught:
        write_whole(path, "x")
    assert caught.value.filename == str(path)


def test_what_is_no_disks_fault_is_of_no_file(tmp_path):
    """A download into a file that breaks off, and a file that was read meanwhile."""
    for error in (OSError("broken"), ConnectionResetError(errno.ECONNRESET, "reset")):
        with pytest.raises(OSError, match=str(error.args[-1])) as caught, appearing_whole(tmp_path / "file"):
            raise error
        assert caught.value.filename is None
    with pytest.raises(FileNotFoundError) as missing, appearing_whole(tmp_path / "file"):
        (tmp_path / "other").read_bytes()
    assert missing.value.filename == str(tmp_path / "other")


def test_without_a_file_no_disk_is_asked_for_room():
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert disk_fault(error, None) == "no space left on the disk (full); free some, then the same command resumes"
    assert "MB free" not in cli._disk_line(error)
    assert "MB free" in str(disk_fault(error, Path()))


def unsaid_encodings(source: str) -> list[int]:
    """Lines of calls that read or write text in whatever encoding the machine prefers: not UTF-8 on Windows."""
    lines = []
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call):
            continue
        named = {keyword.arg: keyword.value for keyword in call.keywords}
        what = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        position = 0 if isinstance(call.func, ast.Attribute) else 1  # Path.open(mode), open(file, mode)
        mode = named.get("mode", call.args[position] if len(call.args) > position else ast.Constant("r"))
        text = what in ("read_text", "write_text")
        if what == "open" and isinstance(mode, ast.Constant) and ast.unparse(call.func) != "member.open":  # bytes
            text = set(mode.value) <= set("rwxat+")
        if (text or "text" in named or "universal_newlines" in named) and "encoding" not in named:
            lines.append(call.lineno)
    return lines


def test_text_is_read_and_written_as_utf_8_whatever_the_machine_prefers():
    """ruff's PLW1514 looks for the same, and sees only what is plainly a path or a file."""
    unsaid = {str(file): lines for file in SOURCE.rglob("*.py") if (lines := unsaid_encodings(file.read_text("utf-8")))}
    assert unsaid == {}
    assert unsaid_encodings("p.read_text()\np.open('w')\nopen(p)\nrun(x, text=True)") == [1, 2, 3, 4]
    said = "p.read_text(encoding='utf-8')\np.open('rb')\nopen(p, 'wb')\nopen(p, encoding='utf-8')\nzip.open(info)"
    assert unsaid_encodings(said) == []
