"""`neuroprior export` as a person meets it; the hub is one that stands in sys.modules."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from command_line import call
from neuroprior import load_network_folder
from neuroprior.experiment import packaged_recipe, run_recipe
from small_demo import SMALL as DEMO

SMALL = [*DEMO, "conditions=[none, blur]"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run") / "demo"
    assert run_recipe(packaged_recipe("demo", SMALL), out, command=["test"], watch=lambda *_: None) == []
    return out


@pytest.fixture
def target_file(tmp_path, target) -> Path:
    target.save(tmp_path / "mouse.safetensors")
    return tmp_path / "mouse.safetensors"


def refused(capsys, *arguments: object) -> str:
    """The one line of a refusal."""
    status, out, err = call(capsys, *arguments)
    assert (status, out) == (2, "")
    lines = [line for line in err.splitlines() if not line.startswith("export: ")]  # progress
    assert len(lines) == 1, err
    return lines[0]


class Hub:
    """What `push_folder` asks of `huggingface_hub`, remembered; `fails` is raised by the upload."""

    def __init__(self, *, fails: Exception | None = None, public: bool = False) -> None:
        self.asked: list[tuple[str, dict]] = []
        self.fails, self.public = fails, public

    def HfApi(self) -> "Hub":  # its name there
        return self

    def create_repo(self, repo_id: str, **asked: object) -> str:
        self.asked.append(("create_repo", {"repo_id": repo_id, **asked}))
        return f"https://huggingface.co/{repo_id}"

    def repo_info(self, repo_id: str, *, repo_type: str) -> SimpleNamespace:
        return SimpleNamespace(private=not self.public)

    def upload_folder(self, *, folder_path: str, **asked: object) -> None:
        if self.fails is not None:
            raise self.fails
        files = sorted(p.name for p in Path(folder_path).iterdir())
        self.asked.append(("upload_folder", {"files": files, **asked}))


def test_a_network_of_a_run(capsys, run, tmp_path):
    out = tmp_path / "out"
    status, said, _ = call(capsys, "export", run, "--condition", "blur", "--out", out, "--license", "mit")
    assert (status, said) == (0, f"Wrote 7 files in {out}\n")
    assert load_network_folder(out)[1].condition == "blur"
    assert json.loads((out / "card.json").read_text())["license"] == "mit"
    line = refused(capsys, "export", run, "--condition", "none", "--out", out)
    assert (
        line == f"neuroprior: {out}: is there already; name another place, or give --force to replace an earlier export"
    )
    assert call(capsys, "export", run, "--condition", "none", "--out", out, "--force")[0] == 0
    assert load_network_folder(out)[1].condition == "none"


def test_such_a_folder_is_a_model_that_robustness_measures(capsys, run, tmp_path):
    out = tmp_path / "out"
    call(capsys, "export", run, "--condition", "none", "--out", out)
    asked = ("--data", "digits", "--n", 10, "--attacks", "ddn", "--sigmas", "0", "--color", "gray", "--json")
    status, said, err = call(capsys, "robustness", out, *asked)
    assert status == 0, err
    assert json.loads(said)["noise"]["n"] == 10


def test_a_target(capsys, target_file, tmp_path):
    out = tmp_path / "out"
    assert call(capsys, "export", target_file, "--out", out)[:2] == (0, f"Wrote 4 files in {out}\n")
    assert (out / "target.safetensors").read_bytes() == target_file.read_bytes()
    assert "# mouse\n" in (out / "README.md").read_text()


def test_what_cannot_be_exported_is_one_line_and_leaves_nothing(capsys, run, target_file, tmp_path):
    out = tmp_path / "out"
    for arguments, says in (
        ((run,), "a run of several networks; say which one: --condition none or blur"),
        ((run, "--condition", "vgg"), "no condition 'vgg' in it; give --condition none or blur"),
        ((run, "--condition", "none", "--seed", 7), "no seed 7 in it; give --seed 0"),
        ((target_file, "--condition", "none"), "a file; --condition and --seed are of a run"),
        ((run / "metrics.parquet",), "not a similarity target"),
        ((tmp_path / "nowhere", "--condition", "none"), "no run in it (recipe.yaml is missing)"),
        ((target_file, "--private"), "--private: is of --push"),
    ):
        assert says in refused(capsys, "export", *arguments, "--out", out)
    assert [p.name for p in tmp_path.iterdir()] == [target_file.name]


@pytest.mark.parametrize("private", [True, False])
def test_push_uploads_the_folder(capsys, run, target_file, tmp_path, monkeypatch, private):
    hub = Hub()
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    more = ("--private",) if private else ()
    for source, condition, kind in ((run, ("--condition", "none"), "model"), (target_file, (), "dataset")):
        out = tmp_path / kind
        status, said, _ = call(capsys, "export", source, *condition, "--out", out, "--push", "me/net", *more)
        assert (status, said.splitlines()[1]) == (0, "Uploaded: https://huggingface.co/me/net")
        (_, made), (_, sent) = hub.asked[-2:]
        # without --private nothing is said, so that an organisation's own setting holds
        assert made == {"repo_id": "me/net", "repo_type": kind, "exist_ok": True} | (
            {"private": True} if private else {}
        )
        assert (sent["repo_id"], sent["repo_type"]) == ("me/net", kind)
        assert sent["files"] == sorted(p.name for p in out.iterdir())


def test_what_the_hub_refuses_is_one_line(capsys, target_file, tmp_path, monkeypatch):
    out = tmp_path / "out"
    hub = Hub(fails=RuntimeError("401 Client Error.\n\nInvalid username or password."))
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    status, said, err = call(capsys, "export", target_file, "--out", out, "--push", "me/target")
    assert (status, said) == (2, f"Wrote 4 files in {out}\n")
    assert err.splitlines()[-1] == (
        "neuroprior: --push me/target: 401 Client Error. Invalid username or password; log in (`hf auth login`, or "
        f"HF_TOKEN), see that the hub can be reached, then the same command with --force ({out} is written)"
    )
    monkeypatch.setitem(sys.modules, "huggingface_hub", public := Hub(public=True))
    options = ("--out", out, "--force", "--push", "me/target", "--private")
    _, _, err = call(capsys, "export", target_file, *options)
    assert "me/target: is there and public; name another, or leave out --private" in err
    assert [name for name, _ in public.asked] == ["create_repo"]  # nothing was sent


def test_push_without_the_library_is_said_before_anything_is_written(capsys, target_file, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    line = refused(capsys, "export", target_file, "--out", tmp_path / "out", "--push", "me/target")
    assert line == "neuroprior: --push: huggingface_hub is not installed; pip install 'neuroprior[hub]'"
    assert not (tmp_path / "out").exists()
