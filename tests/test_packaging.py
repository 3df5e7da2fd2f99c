"""What a stranger installs: what it imports to start, what is in the wheel and the sdist, and that it works."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import get_args

import pytest

from neuroprior import types
from neuroprior.cli import options

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
HEAVY = (
    "torch",
    "matplotlib",
    "pyarrow",
    "scipy",
    "numpy",
    "h5py",
    "numba",
    "PIL",
    "requests",
    "pooch",
    "yaml",
    "jinja2",
)


def imported_by(code: str) -> set[str]:
    """The packages at the root that a fresh process holds after it ran this."""
    code = f"import sys\ntry:\n    {code}\nfinally:\n    print('\\n@', *{{m.partition('.')[0] for m in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return set(done.stdout.rpartition("@")[2].split())


@pytest.mark.parametrize(
    ("line", "also"),
    [
        (["--help"], ("pydantic",)),
        (["--version"], ("pydantic",)),
        (["runs", "--help"], ()),  # typer itself takes pydantic for a command's arguments
        (["runs", "ls", "--help"], ()),
        (["report", "--help"], ()),
        (["target", "build", "--help"], ()),
        (["no-such-command"], ()),
    ],
    ids=" ".join,
)
def test_help_imports_nothing_heavy(line, also):
    found = imported_by(f"from neuroprior.cli import main; main({line!r})")
    assert "typer" in found
    assert not found & {*HEAVY, *also}


def test_runs_ls_needs_no_torch(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "torch" not in imported_by(f"from neuroprior.cli import main; main(['runs', 'ls', {str(tmp_path)!r}])")


def test_importing_the_package_imports_nothing():
    assert not imported_by("import neuroprior") & {*HEAVY, "typer", "pydantic", "rich"}


def test_words_that_the_command_line_repeats_are_those_of_the_types():
    """`cli.options` spells two types out, so that `--help` needs no NumPy."""
    assert get_args(options.Tier) == get_args(types.Tier)
    assert get_args(options.Weighting) == get_args(types.Weighting)


def test_every_extra_that_a_message_names_exists():
    """A missing extra is told in one line with the pip command; what that names is there, and pinned or in range."""
    named = set()
    for file in (ROOT / "src").rglob("*.py"):
        named |= set(re.findall(r"neuroprior\[([a-z]+)\]", file.read_text()))
    extras = PYPROJECT["project"]["optional-dependencies"]
    assert {"nwb", "cluster", "hub"} <= named <= set(extras)


MISSING = {
    "nwb": (
        "pynwb",
        "npr.save_scan(npr.simulate_scan(p, p.ids[4:], n_neurons=5, n_repeats=2).scan, 'x.nwb', format='nwb')",
        "pip install 'neuroprior[nwb]'",
    ),
    "hub": (
        "huggingface_hub",
        "from neuroprior.experiment.exchange import require_hub; require_hub()",
        "pip install 'neuroprior[hub]'",
    ),
    "ray": (
        "ray",
        "from neuroprior.cli import main; main(['demo', '--set', 'scale=tiny', '--engine', 'ray'])",
        "pip install 'neuroprior[cluster]'",
    ),
    "submitit": (
        "submitit",
        "from neuroprior.cli import main; main(['demo', '--set', 'scale=tiny', '--engine', 'slurm'])",
        "pip install 'neuroprior[cluster]'",
    ),
    "tensorboard": (
        "torch.utils.tensorboard",
        "from neuroprior.logs import TensorBoard; from pathlib import Path; TensorBoard(Path('events')).scalars(0, {})",
        "tensorboard is not installed; pip install",
    ),
}


@pytest.mark.parametrize("extra", MISSING)
def test_a_missing_extra_is_told_in_one_line(extra, tmp_path):
    library, code, mend = MISSING[extra]
    code = (
        f"import sys\nsys.modules[{library!r}] = None\nimport neuroprior as npr\n"
        f"p = npr.packaged_photographs(n_train=4, n_oracle=4)\n{code}"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode, done.stdout
    last = done.stderr.splitlines()[-1]
    assert mend in last, done.stderr
    assert "InputError: " in last or last.startswith("neuroprior: ")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel and the sdist; skipped where hatchling can neither be imported nor fetched."""
    folder = tmp_path_factory.mktemp("dist")
    environment = tmp_path_factory.mktemp("build") / "venv"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = environment / "bin" / "python"
    pip = [
        python,
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
        "build",
        *PYPROJECT["build-system"]["requires"],
    ]
    if subprocess.run(pip, capture_output=True).returncode:
        pytest.skip("no index of packages can be reached")
    done = subprocess.run(
        [python, "-m", "build", "--no-isolation", "--outdir", folder, ROOT], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


@pytest.mark.slow
def test_the_wheel_holds_what_a_user_needs_and_nothing_else(built):
    with zipfile.ZipFile(built[0]) as wheel:
        names = wheel.namelist()
    assert all(
        name.startswith(("neuroprior/", f"neuroprior-{PYPROJECT['project']['version']}.dist-info/")) for name in names
    )
    source = ROOT / "src"
    there = {
        str(file.relative_to(source))
        for file in source.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert {name for name in names if name.startswith("neuroprior/")} == there
    assert {"neuroprior/py.typed", "neuroprior/experiment/demo.yaml", "neuroprior/report/style.css"} <= set(names)
    assert {Path(name).suffix for name in there} == {".py", ".jinja", ".css", ".yaml", ".typed"}
    assert built[0].stat().st_size < 1_000_000


@pytest.mark.slow
def test_the_sdist_holds_what_builds_and_tests_it(built):
    with tarfile.open(built[1]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    for folder in ("src", "tests", "recipes", "docs", "benchmarks", "gpu"):
        kept = {
            str(file.relative_to(ROOT))
            for file in (ROOT / folder).rglob("*")
            if file.suffix in (".py", ".md", ".yaml", ".ipynb", ".csv", ".parquet", ".svg", ".json", ".jinja")
            and not {"__pycache__", ".ipynb_checkpoints"} & set(file.parts)
        }
        assert kept <= names, sorted(kept - names)[:5]
    files = (
        "Makefile pyproject.toml constraints.txt README.md CHANGELOG.md CONTRIBUTING.md LICENSE CITATION.cff mkdocs.yml"
    )
    for file in [*files.split(), "Dockerfile", "Dockerfile.cuda", ".dockerignore"]:
        assert file in names, file


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_wheel_installed_and_used(built, tmp_path):
    """In an environment of its own, which sees this one's libraries but not this one's neuroprior."""
    clean = tmp_path / "clean"
    subprocess.run([sys.executable, "-m", "venv", clean], check=True)
    subprocess.run([clean / "bin/python", "-m", "pip", "install", "-q", "--no-deps", built[0]], check=True)
    libraries = next(path for path in sys.path if path.endswith("site-packages"))
    (place,) = (clean / "lib").glob("python*/site-packages")
    # A plain path entry: the editable install's own .pth files, which would put src/ first, are not followed.
    (place / "libraries.pth").write_text(libraries + "\n")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)

    def say(*line: str) -> str:
        done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    where = say(str(clean / "bin/python"), "-c", "import neuroprior; print(neuroprior.__file__)")
    assert Path(where.strip()).is_relative_to(clean)
    program = str(clean / "bin/neuroprior")
    assert say(program, "--version") == f"neuroprior {PYPROJECT['project']['version']}\n"
    assert say(str(clean / "bin/python"), "-m", "neuroprior", "--version").startswith("neuroprior ")
    assert "Report: " in say(program, "demo", "--set", "scale=tiny", "--set", "conditions=[none, neural_model]")
    page = (tmp_path / "runs/demo/report/index.html").read_text()
    assert "<style" in page
    say(program, "scan", "simulate", "--out", "mice", "--neurons", "20", "--repeats", "4")
    say(program, "scan", "check", *map(str, sorted((tmp_path / "mice").glob("*[0-9].npz"))[:1]))
