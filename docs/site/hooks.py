"""MkDocs hook: what pages link to outside docs/ becomes part of the site.

The pages are read on a git host too, where `../recipes/quick.yaml` is right; a site made of docs/ alone has no such
file. So every file outside docs/ that a page links to is put into the site under `outside/`, as a page: Markdown as it
is, anything else as a listing. Links to it are rewritten. That needs no network and no address of a repository.
"""

import importlib.util
import re
from os.path import relpath
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

LINK = re.compile(r"(?<=\]\()([^)#:\s]+)(?=[)#])")
_paths: dict[str, Path] = {}  # of pages under outside/: where they come from


def on_files(files: Files, config: Any) -> Files:
    """Add what is linked to outside docs/, and what that links to."""
    docs = Path(config.docs_dir)
    files.append(File.generated(config, "commands.md", content=_commands()))
    _paths.clear()
    waiting = [Path(file.abs_src_path) for file in files.documentation_pages() if file.abs_src_path]
    while waiting:
        page = waiting.pop()
        for link in LINK.findall(page.read_text(encoding="utf-8")):
            there = (page.parent / link).resolve()
            name = _name(there, docs)
            if name is None or name in _paths:
                continue
            _paths[name] = there
            text = there.read_text(encoding="utf-8")
            if there.suffix == ".md":
                waiting.append(there)
            else:
                kind = {".yaml": "yaml", ".json": "json", ".py": "python"}.get(there.suffix, "text")
                text = f"# {there.name}\n\n```{kind}\n{text.rstrip()}\n```\n"
            files.append(File.generated(config, name, content=text, inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def _commands() -> str:
    """The page of commands: as they describe themselves, so no copy of it is kept."""
    spec = importlib.util.spec_from_file_location("site_commands", Path(__file__).with_name("commands.py"))
    assert spec is not None and spec.loader is not None  # noqa: PT018 - the file lies beside this one
    written = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(written)
    text: str = written.page()
    return text


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Lead links to where the files are in the site."""
    docs = Path(config.docs_dir)
    uri = page.file.src_uri
    origin = _paths.get(uri, docs / uri).parent

    def lead(match: re.Match[str]) -> str:
        there = (origin / match[0]).resolve()
        if there.is_relative_to(docs):
            name = there.relative_to(docs).as_posix()
            name += "/README.md" if (there / "README.md").is_file() else ""
        else:
            name = _name(there, docs) or ""
        if name not in _paths and (uri not in _paths or not name):
            return match[0]
        return relpath(name, PurePosixPath(uri).parent).replace("\\", "/")

    return LINK.sub(lead, markdown)


def _name(there: Path, docs: Path) -> str | None:
    """Where a file of the repository outside docs/ stands in the site; None for anything else."""
    root = docs.parent
    if not there.is_file() or there.is_relative_to(docs) or not there.is_relative_to(root):
        return None
    name = f"outside/{there.relative_to(root).as_posix()}"
    return name if there.suffix == ".md" else f"{name}.md"
