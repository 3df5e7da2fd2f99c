"""Every recipe of CONTRIBUTING.md is followed to the letter in a copy of the tree, and then tried; and the picture."""

import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "CONTRIBUTING.md"


@dataclass
class Followed:
    """One section's listings: what is new, what changes, and how it is tried."""

    title: str
    files: list[tuple[str, bool, str]] = field(default_factory=list)  # path, whether it goes to a file's end, text
    changes: list[tuple[str, list[str]]] = field(default_factory=list)
    tried: list[str] = field(default_factory=list)


def sections() -> list[Followed]:
    found = []
    for section in re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]:
        one = Followed(section.splitlines()[0])
        for language, text in re.findall(r"```(python|diff)\n(.*?)```", section, re.DOTALL):
            first, _, rest = text.partition("\n")
            if language == "diff":
                one.changes.append((first.removeprefix("--- "), rest.splitlines()))
            elif first == "# try it":
                one.tried.append(rest)
            else:
                path, _, end = first.removeprefix("# ").partition(" ")
                one.files.append((path, bool(end), rest))
        if one.tried:
            found.append(one)
    return found


def changed(text: str, lines: list[str]) -> str:
    """Follow a diff without line numbers: ` ` finds a line, `-` takes one away, `+` puts one where that was."""
    at = 0
    for line in lines:
        sign, wanted = line[:1], line[1:] + "\n"
        if sign == "+":
            text = text[:at] + wanted + text[at:]
            at += len(wanted)
            continue
        assert text.count(wanted) == 1, f"stands {text.count(wanted)} times: {wanted}"
        at = text.index(wanted)
        if sign == "-":
            text = text[:at] + text[at + len(wanted) :]
        else:
            at += len(wanted)
    return text


SECTIONS = sections()


def test_four_recipes():
    assert [one.title.split()[2] for one in SECTIONS] == ["format", "condition", "attack", "core"]


def test_what_changes_is_there():
    for one in SECTIONS:
        for path, lines in one.changes:
            changed((ROOT / path).read_text(), lines)
        for path, at_the_end, _ in one.files:
            assert (ROOT / path).exists() == at_the_end


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("one", SECTIONS, ids=[one.title for one in SECTIONS])
def test_a_recipe_is_enough(one, tmp_path):
    """The change, and nothing else: its trial passes, and so do ruff, mypy and the import walls."""
    tree = tmp_path / "tree"
    tree.mkdir()
    shutil.copytree(ROOT / "src", tree / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "recipes", tree / "recipes")
    shutil.copy(ROOT / "pyproject.toml", tree)
    for path, at_the_end, text in one.files:
        before = (tree / path).read_text() + "\n\n" if at_the_end else ""
        (tree / path).write_text(before + text)
    for path, lines in one.changes:
        (tree / path).write_text(changed((tree / path).read_text(), lines))
    environment = {**os.environ, "PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"}
    for tried in one.tried:
        code = f"import neuroprior\nassert neuroprior.__file__.startswith({str(tree)!r})\n{tried}"
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code], cwd=tree, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]
    paths = [str(tree / path) for path, _, _ in one.files] + [str(tree / path) for path, _ in one.changes]
    for module, arguments in (("ruff", ["check", "--no-cache", *paths]), ("mypy", ["--no-incremental", *paths])):
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments], cwd=tree, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
    walls = "from importlinter.cli import lint_imports_command as c; c(['--no-cache'])"
    done = subprocess.run([sys.executable, "-c", walls], cwd=tree, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_picture_is_of_these_imports():
    """docs/architecture.svg is what its script makes of the tree; `python docs/site/architecture.py` makes it anew."""
    kept = ROOT / "docs" / "architecture.svg"
    drawn = subprocess.run(
        [sys.executable, ROOT / "docs" / "site" / "architecture.py", "--print"], capture_output=True, text=True
    )
    assert drawn.returncode == 0, drawn.stderr
    assert drawn.stdout == kept.read_text()
    assert len(drawn.stdout.encode()) < 12_000
    ET.fromstring(drawn.stdout)
    parts = {path.stem for path in (ROOT / "src" / "neuroprior").iterdir() if not path.name.startswith(("_", "."))}
    assert parts - {"py"} <= set(re.findall(r">([a-z]+)<", drawn.stdout))
