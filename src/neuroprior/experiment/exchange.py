"""One network of a finished run, or a target, as a folder to pass on: it needs nothing of this package to be used."""

import importlib
import io
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow.compute as pc
import torch

import neuroprior
from neuroprior.classifier import GaussianBlur, ResNet
from neuroprior.experiment.conditions import condition_named
from neuroprior.experiment.plan import step_label
from neuroprior.experiment.recipe import Recipe, parse_recipe
from neuroprior.experiment.results import RunResults
from neuroprior.experiment.runs import RunPlan, store_of
from neuroprior.experiment.store import digest_file, manifest
from neuroprior.files import said_of
from neuroprior.networks.folder import CARD, NETWORK_FOLDER, PROGRAM, SUMS, write_sums
from neuroprior.types import AnyTarget, FactoredTarget, InputError, NetworkCard, load_target

__all__ = [
    "RIGHTS",
    "TARGET_FILE",
    "WEIGHTS",
    "TrainedNetwork",
    "check_out",
    "network_of_run",
    "push_folder",
    "require_hub",
    "write_network",
    "write_target",
]

TARGET_FOLDER = "neuroprior.target_folder/1"
"""What `card.json` of a target's folder has as its `format`."""
WEIGHTS, TARGET_FILE = "weights.safetensors", "target.safetensors"
RIGHTS = (
    "The code that made this is under the MIT licence. What was learnt from data is also subject to the terms of that "
    "data: of the images, and of the recordings or networks behind a target. `neuroprior data list` says those of the "
    "packaged sources; whoever passes this on answers for the licence that it names."
)

_OF_TRAINING = ("task_loss", "similarity_loss", "validation_loss", "validation_accuracy", "gamma")
_FORMATS = (NETWORK_FOLDER, TARGET_FOLDER)


@dataclass(frozen=True, slots=True, eq=False)
class TrainedNetwork:
    """One network of a run, in evaluation mode on the processor, and what is known of it.

    `weights`: the file that training left. `size`: channel, height, width of the images that it was measured on.
    """

    network: ResNet
    card: NetworkCard
    weights: Path
    classes: tuple[str, ...]
    size: tuple[int, int, int]
    blur_sigma: float | None
    recipe: Recipe
    results: RunResults


def network_of_run(results: RunResults, condition: str, seed: int) -> TrainedNetwork:
    """Read one network of a run of which everything of this seed is finished: what it is compared with belongs to it.

    Raises `InputError` for a condition or seed that the run has not, a step that is missing, and weights that are no
    longer those which training left.
    """
    import numpy as np
    from safetensors.torch import load_file

    run, recipe = results.folder, parse_recipe(results.recipe_yaml, str(results.folder / "recipe.yaml"))
    if condition not in recipe.conditions:
        raise InputError(f"{run}: no condition {condition!r} in it; give --condition {' or '.join(recipe.conditions)}")
    if seed not in recipe.seeds:
        raise InputError(f"{run}: no seed {seed} in it; give --seed {' or '.join(map(str, recipe.seeds))}")
    for label in results.missing:
        if label.rpartition("-seed")[2] == str(seed) or "-seed" not in label:
            raise InputError(f"{run}: {label} is not finished; give the command of the run again, then export")
    store = store_of(run)
    folders = {step.label: store.root / step.name for step in RunPlan.read(run).steps}
    trained = folders[step_label("train", condition, seed)]
    written = manifest(trained).get("files", {})
    for name in (WEIGHTS, CARD):
        if not (trained / name).is_file() or digest_file(trained / name) != written.get(name):
            raise InputError(
                f"{trained / name}: missing, or edited since training; delete {trained} and give the command of the "
                "run again"
            )
    with np.load(folders[step_label("measure", condition, seed)] / "examples.npz", allow_pickle=False) as kept:
        shown, classes = kept["images"], tuple(kept["classes"].tolist())
    channels, height, width = shown.shape[1:]
    sigma = recipe.settings(condition_named(condition)).blur_sigma
    network = ResNet(
        recipe.network.architecture,
        width=recipe.network.width,
        classes=len(classes),
        channels=channels,
        front=None if sigma is None else GaussianBlur(sigma),
    )
    network.load_state_dict(load_file(trained / WEIGHTS))
    return TrainedNetwork(
        network=network.eval().requires_grad_(False),
        card=NetworkCard(**json.loads((trained / CARD).read_text(encoding="utf-8"))),
        weights=trained / WEIGHTS,
        classes=classes,
        size=(channels, height, width),
        blur_sigma=sigma,
        recipe=recipe,
        results=results,
    )


def write_network(one: TrainedNetwork, out: Path, *, readme: str, licence: str, replace: bool = False) -> list[Path]:
    """Write the folder of a network; return its files. It appears whole or not at all.

    `network.pt2` (a `torch.export` program, any number of images, front and scaling in it), `weights.safetensors`,
    `card.json`, `recipe.yaml`, `provenance.json`, `README.md` (the text given) and `SHA256SUMS`. `replace`: an earlier
    export at `out`; anything else there is refused with `InputError`.
    """
    check_out(out, replace)
    with _appearing_folder(out) as folder:
        shutil.copyfile(one.weights, folder / WEIGHTS)
        (folder / PROGRAM).write_bytes(_program(one))
        _write_json(folder / CARD, _network_card(one, licence))
        (folder / "recipe.yaml").write_text(one.results.recipe_yaml, encoding="utf-8")
        _write_json(folder / "provenance.json", dict(one.results.provenance))
        (folder / "README.md").write_text(readme, encoding="utf-8")
        write_sums(folder)
    return sorted(out.iterdir())


def write_target(file: Path, out: Path, *, readme: str, licence: str, replace: bool = False) -> list[Path]:
    """Write the folder of a target: the file as it is, `card.json`, `README.md`, `SHA256SUMS`. As `write_network`."""
    check_out(out, replace)
    target = load_target(file)
    with _appearing_folder(out) as folder:
        shutil.copyfile(file, folder / TARGET_FILE)
        _write_json(folder / CARD, _target_card(target, licence))
        (folder / "README.md").write_text(readme, encoding="utf-8")
        write_sums(folder)
    return sorted(out.iterdir())


def check_out(out: Path, replace: bool) -> None:
    """Raise `InputError` where `out` cannot be written, or is there and not an earlier export to be replaced."""
    if any(parent.is_file() for parent in out.parents):
        raise InputError(f"--out {out}: lies below a file; name a folder that can be made")
    if not (out.exists() or out.is_symlink()):
        return
    if not replace:
        raise InputError(f"{out}: is there already; name another place, or give --force to replace an earlier export")
    if not (out.is_dir() and not out.is_symlink() and _exported(out)):
        raise InputError(f"{out}: is no earlier export, so --force leaves it alone; remove it, or name another place")


def _exported(folder: Path) -> bool:
    try:
        said = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return (folder / SUMS).is_file() and isinstance(said, dict) and said.get("format") in _FORMATS


@contextmanager
def _appearing_folder(out: Path) -> Iterator[Path]:
    """Give a folder to write into, which becomes `out` when the block ends well, and goes otherwise."""
    out = Path(os.path.abspath(out))  # "." has no name to put another beside
    temporary, before = (out.with_name(f".{out.name}.{os.getpid()}{end}") for end in ("", ".before"))
    try:
        with said_of(out, temporary):
            shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed and had the same number
            temporary.mkdir(parents=True)
            yield temporary
            if out.exists():
                os.replace(out, before)
            os.replace(temporary, out)
    finally:
        if before.exists() and not out.exists():
            os.replace(before, out)
        for left in (temporary, before):
            shutil.rmtree(left, ignore_errors=True)


def _program(one: TrainedNetwork) -> bytes:
    n = torch.export.Dim("image", min=1)
    shown = (torch.zeros(2, *one.size),)  # two to trace it with: of one, the program would take one alone
    with torch.no_grad():
        exported = torch.export.export(one.network, shown, dynamic_shapes=({0: n},), strict=False)
    held = io.BytesIO()
    torch.export.save(exported, held)
    return held.getvalue()


def _network_card(one: TrainedNetwork, licence: str) -> dict[str, Any]:
    network, compute = one.recipe.network, one.recipe.compute
    channels, height, width = one.size
    return {
        "format": NETWORK_FOLDER,
        **asdict(one.card),
        "recipe": {"name": one.recipe.name, "scale": one.recipe.scale, "file": "recipe.yaml"},
        "architecture": {"name": network.architecture, "width": network.width, "blur_sigma": one.blur_sigma},
        "inputs": {
            "axes": ["image", "channel", "height", "width"],
            "shape": ["any number", channels, height, width],
            "dtype": "float32",
            "range": [0.0, 1.0],
            "scaling": "done by the network itself: give pixels, nothing subtracted or divided",
        },
        "outputs": {"axes": ["image", "class"], "values": "logits"},
        "classes": list(one.classes),
        "metrics": metrics_excerpt(one.results, one.card.condition, one.card.seed),
        "measured": {"device": compute.device, "precision": compute.precision, "task": one.results.task},
        **_origin(licence),
        "versions": dict(one.results.provenance.get("versions", {})),
        "commit": one.results.provenance.get("commit"),
    }


def metrics_excerpt(results: RunResults, condition: str, seed: int) -> list[dict[str, Any]]:
    """Return what was measured of one trained network, with n; a value that is not finite as the text "inf" or "nan".

    JSON has no such numbers, and the median of perturbations most of which were not found is infinite.
    """
    chosen = (pc.field("condition") == condition) & (pc.field("seed") == seed)
    return [
        {key: _as_json(row[key]) for key in ("metric", "tap", "x", "value", "n")}
        for row in results.metrics.filter(chosen).to_pylist()
        if row["metric"] not in _OF_TRAINING
    ]


def _as_json(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _target_card(target: AnyTarget, licence: str) -> dict[str, Any]:
    factored = isinstance(target, FactoredTarget)
    return {
        "format": TARGET_FOLDER,
        "kind": "factored" if factored else "matrix",
        "images": len(target),
        "source": target.source,
        "n_scans": target.n_scans,
        "stimuli_digest": target.stimuli_digest,
        **({"rank": target.rank, "tolerance": target.tolerance} if isinstance(target, FactoredTarget) else {}),
        "details": {key: _as_json(value) for key, value in target.details.items()},
        "tensors": {
            ("coordinates" if factored else "matrix"): ["image", "rank" if factored else "image"],
            "image_ids": "a JSON list of names, as bytes",
        },
        **_origin(licence),
    }


def _origin(licence: str) -> dict[str, Any]:
    written_by = {"neuroprior": neuroprior.__version__, "torch": str(torch.__version__)}
    return {"license": licence, "license_note": RIGHTS, "exported_by": written_by}


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(
        json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def require_hub() -> Any:
    """Return the library that uploads. Raises `InputError` where it is not installed."""
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError:
        raise InputError("--push: huggingface_hub is not installed; pip install 'neuroprior[hub]'") from None


def push_folder(folder: Path, repo_id: str, *, kind: Literal["model", "dataset"], private: bool) -> str:
    """Upload a folder to the Hugging Face hub as one commit, and return the repository's address.

    The repository is made where there is none. `private`: one that is there and public is refused, nothing uploaded.
    Raises `InputError` for that, and for whatever the hub or the way to it has against it.
    """
    hub = require_hub()
    asked = {"private": True} if private else {}  # else what the account's own setting says
    try:
        api = hub.HfApi()
        address = api.create_repo(repo_id, repo_type=kind, exist_ok=True, **asked)
        if private and not api.repo_info(repo_id, repo_type=kind).private:
            raise InputError(f"--push {repo_id}: is there and public; name another, or leave out --private")
        api.upload_folder(
            folder_path=str(folder), repo_id=repo_id, repo_type=kind, commit_message="Exported by neuroprior"
        )
    except InputError:
        raise
    except Exception as error:  # its own kinds, and those of whichever library carries it: several, by version
        said = " ".join((str(error) or type(error).__name__).split())[:200].rstrip(".")
        raise InputError(
            f"--push {repo_id}: {said}; log in (`hf auth login`, or HF_TOKEN), see that the hub can be reached, then "
            f"the same command with --force ({folder} is written)"
        ) from error
    return str(address)
