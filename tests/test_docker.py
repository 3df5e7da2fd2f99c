"""The Dockerfiles, as far as they can be tried where no container engine is.

Shown: every source of a COPY exists and `.dockerignore` lets it through; every RUN parses; what pip is asked for is
pinned; the two files differ in torch alone; and (slow) the pip lines of the CPU file, in order, on the files that the
COPY lines would bring, give a working `neuroprior` in an environment of its own.
Not shown: that the base image exists, that an engine accepts the files, `useradd` and `chown` (they need root), the CPU
build from PyTorch's own index (here pip's configured index decides), and anything about a GPU.
"""

import fnmatch
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = ["Dockerfile", "Dockerfile.cuda"]
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"


def instructions(name: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile: comments left out, continued lines joined."""
    lines = [line for line in (ROOT / name).read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line.strip())]


def of(name: str, word: str) -> list[str]:
    return [rest for instruction, rest in instructions(name) if instruction == word]


def copied(name: str) -> list[tuple[list[str], str]]:
    return [(shlex.split(rest)[:-1], shlex.split(rest)[-1]) for rest in of(name, "COPY")]


@pytest.mark.parametrize("name", FILES)
def test_every_file_that_is_copied_exists_and_is_sent(name):
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    let_through = [line[1:] for line in ignored if line.startswith("!")]
    assert ignored[0] == "*"
    for sources, _ in copied(name):
        for source in sources:
            assert (ROOT / source).exists(), source
            assert any(fnmatch.fnmatch(source, pattern) for pattern in let_through), source
    assert all((ROOT / pattern).exists() for pattern in let_through)


@pytest.mark.parametrize("name", FILES)
def test_commands_parse_and_pin(name):
    for command in of(name, "RUN"):
        subprocess.run(["sh", "-n", "-c", command], check=True)
        if command.startswith("pip install"):
            assert "-c /src/constraints.txt" in command
    assert instructions(name)[0][0] == "FROM"
    for rest in [*of(name, "ENTRYPOINT"), *of(name, "CMD")]:
        assert isinstance(json.loads(rest), list)


@pytest.mark.parametrize("name", FILES)
def test_nobody_is_root(name):
    order = [word for word, _ in instructions(name)]
    (user,) = of(name, "USER")
    assert user == "1000:1000"
    assert "RUN" not in order[order.index("USER") :]


def test_they_differ_in_torch_alone():
    cpu, cuda = ([(word, rest) for word, rest in instructions(name) if word != "ENV"] for name in FILES)
    assert [(word, rest.replace(f"--extra-index-url {TORCH_INDEX} ", "")) for word, rest in cpu] == cuda
    assert any(TORCH_INDEX in rest for _, rest in cpu)


def test_what_the_build_of_the_package_reads_is_copied():
    """The wheel needs the readme and the licence that pyproject.toml names."""
    text = (ROOT / "pyproject.toml").read_text()
    for name in FILES:
        sources = {source for found, _ in copied(name) for source in found}
        assert {"pyproject.toml", "src", *re.findall(r"\b(README\.md|LICENSE)\b", text)} <= sources


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_pip_lines_give_a_working_program(tmp_path):
    """Half a minute to two, 1.8 GB; skipped where no index of packages can be reached."""
    python = tmp_path / "image" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "image"], check=True)
    reachable = subprocess.run(
        [python, "-m", "pip", "download", "--no-deps", "-q", "-d", tmp_path / "probe", "mdurl==0.1.2"],
        capture_output=True,
    )
    if reachable.returncode:
        pytest.skip("no index of packages can be reached")
    ran = 0
    for word, rest in instructions("Dockerfile"):
        if word == "COPY":
            *sources, to = shlex.split(rest)
            for source in sources:
                here = tmp_path / to.strip("/")
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, here, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    here.mkdir(parents=True, exist_ok=True)
                    shutil.copy(ROOT / source, here)
        elif word == "RUN" and rest.startswith("pip "):
            words = shlex.split(
                rest.replace("/src", str(tmp_path / "src")).replace(f"--extra-index-url {TORCH_INDEX}", "")
            )
            done = subprocess.run([python, "-m", *words], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr[-2000:]
            ran += 1
    assert ran == 2
    (entry,) = (json.loads(rest) for rest in of("Dockerfile", "ENTRYPOINT"))
    program = [str(tmp_path / "image" / "bin" / entry[0]), *entry[1:]]
    said = subprocess.run([*program, "--version"], capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert said.startswith("neuroprior ")
    (offered,) = (json.loads(rest) for rest in of("Dockerfile", "CMD"))
    said = subprocess.run([*program, *offered], capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert "demo" in said
    recipes = tmp_path / "recipes"
    shown = subprocess.run(
        [*program, "recipe", "show", recipes / "quick.yaml"], capture_output=True, text=True, cwd=tmp_path
    )
    assert shown.returncode == 0, shown.stderr
