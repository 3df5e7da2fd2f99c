"""The documentation site: it builds strictly, loads nothing from elsewhere, and says what the program says."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


@pytest.mark.slow
def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path):
    for needed in ("mkdocs", "material", "mkdocstrings_handlers.python"):
        pytest.importorskip(needed.partition(".")[0])
    site = tmp_path / "site"
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)],
        cwd=ROOT, capture_output=True, text=True, timeout=200, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        for tag in re.findall(r"<(?:script|img|iframe|link)\b[^>]*>", page.read_text()):
            assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", tag), f"{page.name}: {tag}"
    assert 'href="outside/recipes/quick.yaml.html"' in (site / "recipes.html").read_text()
    quick = (site / "outside/recipes/quick.yaml.html").read_text()
    assert "neural_model" in quick, "what lies outside docs/ is in the site"


def test_every_page_has_a_place():
    found = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    listed = set(_leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])) - {
        "commands.md"
    }  # made by the hook
    assert found - listed == set(), "name the page in mkdocs.yml's nav"
    assert listed - found == set(), "the nav of mkdocs.yml names a page that is not there"


def _leaves(nav: object) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    return [leaf for part in (nav.values() if isinstance(nav, dict) else nav) for leaf in _leaves(part)]


def test_the_page_of_commands_is_what_the_commands_say():
    spec = importlib.util.spec_from_file_location("site_commands", DOCS / "site/commands.py")
    written = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(written)
    page = written.page()
    for command in ("run", "report compare", "scan check", "twin fit", "campaign merge", "export", "watch"):
        assert f"\n## {command}\n" in page
    assert "--engine" in page


def test_python_pages_have_all_public_names():
    import neuroprior

    pages = "\n".join(page.read_text() for page in (DOCS / "api").glob("*.md"))
    asked = set(re.findall(r"^::: neuroprior\.(\w+)$", pages, re.MULTILINE))
    assert asked == set(neuroprior.__all__)


def _said() -> str:
    """Every text in the code, a line each; what is filled in stands as …"""
    texts = []
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                texts.append("".join(str(v.value) if isinstance(v, ast.Constant) else "…" for v in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return "\n".join(" ".join(text.split()) for text in texts)


TROUBLES = re.findall(r"^\| `([^`]+)`", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE)


@pytest.fixture(scope="module")
def said():
    return _said()


def test_many_troubles_are_named():
    assert len(TROUBLES) >= 25
    assert len(set(TROUBLES)) == len(TROUBLES)


@pytest.mark.parametrize("text", TROUBLES)
def test_troubles_are_what_the_code_says(text, said):
    pattern = ".*".join(re.escape(part.strip()) for part in text.split("..."))
    assert re.search(pattern, said), f"nothing in src says: {text}"
