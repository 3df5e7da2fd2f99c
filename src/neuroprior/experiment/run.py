"""Recipe in, finished run out: the one function behind `neuroprior run` and `neuroprior demo`."""

import json
import operator
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial, reduce
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import Timeout

from neuroprior.experiment.compute import resolve_compute
from neuroprior.experiment.conditions import condition_named
from neuroprior.experiment.engine import Failure, Watch, run_steps
from neuroprior.experiment.engines import EngineName, check_engine, make_engine
from neuroprior.experiment.engines.local import warm_up
from neuroprior.experiment.forecast import AssumedGPUs, Forecast, forecast
from neuroprior.experiment.inputs import check_inputs
from neuroprior.experiment.plan import STABILITY, TARGET, control_label, control_of, masking_label, plan, step_label
from neuroprior.experiment.provenance import provenance
from neuroprior.experiment.recipe import Recipe, parse_recipe
from neuroprior.experiment.results import METRICS_SCHEMA, ConditionCard, NoiseExamples, RunResults, UnitImages
from neuroprior.experiment.runs import PlannedStep, RunPlan, driver_name, named_store, register_run, store_of
from neuroprior.experiment.steps import ABSENT_FILE, MASKING_FILE, STABILITY_FILE, UNITS_FILE, do_work, taught_target
from neuroprior.experiment.store import Store
from neuroprior.files import appearing_whole, disk_fault, read_json, write_json
from neuroprior.recordings import ScanStability, load_stability, load_stimuli
from neuroprior.robustness import Ledger
from neuroprior.types import InputError, SimilarityTarget

_FREE = ("description", "report")  # of these no step depends
_FREE_COMPUTE = frozenset({"workers", "checkpoint_seconds", "tensorboard", "retries", "cluster"})


def run_recipe(
    recipe: Recipe,
    out: Path,
    *,
    command: Sequence[str],
    watch: Watch,
    store: Path | None = None,
    engine: EngineName = "local",
) -> list[Failure]:
    """Run `recipe` into the folder `out`, or finish what is there; return the steps that failed.

    `engine`: where the steps run; the numbers are the same. `store`: where steps are kept that other runs share; the
    one that NEUROPRIOR_STORE names, else the run's own.

    Raises `InputError` when `out` holds something else, a file that the recipe names is missing, or the engine is not
    there; nothing is then changed.
    """
    _refuse_other_content(out)
    check_engine(engine, debug=recipe.compute.cluster.debug)
    # torch imports the second at the first optimiser, for seconds: once here, not in every worker.
    if engine == "local":
        warm_up(do_work.__module__, "torch._dynamo")
    check_inputs(recipe)
    recipe = _resolved(recipe, out)
    out.mkdir(parents=True, exist_ok=True)
    _keep_recipe(recipe, out)
    recipe = _resolved(recipe, out)  # two commands at once: the first one's `compute` holds for both
    digests: dict[str, str] = {}
    steps = plan(recipe, digests)
    shared = named_store() if store is None else str(store.absolute())
    planned = RunPlan(tuple(PlannedStep(s.label, s.kind, s.key) for s in steps), shared)
    if (out / "plan.json").exists():
        planned = _as_begun(out, planned)
    else:
        write_json(out / "provenance.json", provenance(recipe, command, digests))
    planned.write(out)
    kept = Store(Path(planned.store)) if planned.store else store_of(out)
    try:
        kept.create()
        register_run(out, kept, (step.name for step in steps))
    except OSError as error:
        if not all(kept.has(step) for step in steps):  # a store where all is there may be read-only
            raise InputError(f"{kept.root}: {disk_fault(error, kept.root) or error}") from None
    compute = recipe.compute
    do = partial(do_work, checkpoint_seconds=compute.checkpoint_seconds, tensorboard=compute.tensorboard)
    with _driving(kept, out):
        failures = run_steps(steps, kept, make_engine(engine, kept, do, compute), watch=watch)
    folders = [kept.folder(step) for step in steps]
    gather_metrics(folders, out)
    gather_attacks(folders, out)
    return failures


@contextmanager
def _driving(store: Store, out: Path) -> Iterator[None]:
    """Hold a lock that says to whoever looks on that a command is at work; the second of two goes without."""
    lock = store.lock(driver_name(out), timeout=0.0)
    with suppress(Timeout, OSError):
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _keep_recipe(recipe: Recipe, out: Path) -> None:
    """Write `recipe.yaml`, unless another command just did; what no step depends on may change later."""
    kept, text = out / "recipe.yaml", recipe.to_yaml()
    if kept.exists():
        if kept.read_text(encoding="utf-8") != text:
            with appearing_whole(kept) as temporary:
                temporary.write_text(text, encoding="utf-8")
        return
    mine = out / f".recipe.{os.getpid()}"
    try:
        mine.write_text(text, encoding="utf-8")
        try:
            os.link(mine, kept)  # unlike a rename, refused where the file is there: the first command's stays
        except FileExistsError:
            pass
        except OSError:  # a disk without links
            os.replace(mine, kept)
    finally:
        with suppress(OSError):
            mine.unlink(missing_ok=True)


def plan_recipe(recipe: Recipe, out: Path, *, watch: Watch, assumed: AssumedGPUs | None = None) -> Forecast:
    """Predict what `run_recipe` would cost, here or on `assumed` GPUs; nothing is written.

    Raises `InputError` as it would.
    """
    watch("plan", "looking at the data", 0.0)
    _refuse_other_content(out)
    check_inputs(recipe)
    watch("plan", "short trials", 0.3)
    recipe = _resolved(recipe, out)
    return forecast(recipe, plan(recipe, {}), store_of(out).has, assumed=assumed)


def packaged_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Return a recipe that comes inside the package (`demo`)."""
    text = resources.files("neuroprior.experiment").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    return parse_recipe(text, f"{name}.yaml", overrides)


def load_run(out: Path) -> RunResults:
    """Read a run's folder, finished or not, for a report. Raises `InputError` where there is no run to report."""
    if out.is_file():
        raise InputError(f"{out}: is a file; name the folder of a run")
    try:
        recipe = parse_recipe((out / "recipe.yaml").read_text(encoding="utf-8"), str(out / "recipe.yaml"))
        origin = json.loads((out / "provenance.json").read_text(encoding="utf-8"))
        store = store_of(out)
        folders = {step.label: store.root / step.name for step in RunPlan.read(out).steps}
        # Again: the run may have been stopped since it last did.
        metrics, attacks = gather_metrics(folders.values(), out), gather_attacks(folders.values(), out)
    except FileNotFoundError as error:
        raise InputError(
            f"{out}: no run in it ({Path(error.filename).name} is missing); `neuroprior run` makes one"
        ) from None
    except (pa.ArrowInvalid, json.JSONDecodeError) as error:
        raise InputError(f"{out}: damaged ({str(error).splitlines()[0][:120]}); run the same command again") from None
    missing = tuple(label for label, folder in folders.items() if not folder.is_dir())
    made = folders[TARGET]
    if not made.is_dir():
        raise InputError(f"{out}: its target is not made yet; run the same command again to finish it")
    examples, n_classes = _examples([folder for folder in folders.values() if (folder / "examples.npz").is_file()])
    return RunResults(
        folder=out,
        name=recipe.report.title or recipe.name,
        description=recipe.description,
        task=task_said(recipe),
        n_classes=n_classes,
        recipe_yaml=recipe.to_yaml(),
        provenance=origin,
        conditions=tuple(card_of(recipe, name) for name in recipe.conditions),
        metrics=metrics,
        attacks=attacks,
        targets={name: target for name in recipe.conditions if (target := _taught(recipe, name, folders)) is not None},
        truth=SimilarityTarget.load(made / _TRUTH_OF[kind]) if (kind := recipe.target.kind) in _TRUTH_OF else None,
        stimuli=load_stimuli(made / "stimuli.npz"),
        stability=_stability(folders),
        examples=examples,
        units={name: units for name in recipe.conditions if (units := _units(recipe, name, folders)) is not None},
        masking={seed: found for seed in recipe.seeds if (found := _masking(seed, folders))},
        noise_levels=recipe.noise.sigmas,
        shown_levels=recipe.report.levels,
        figures=recipe.report.figures,
        missing=missing,
    )


def task_said(recipe: Recipe) -> str:
    """What is classified, in words that end a sentence."""
    return "handwritten digits" if recipe.task.path("test") is None else f"the images of {recipe.task.path('test')}"


def _taught(recipe: Recipe, name: str, folders: Mapping[str, Path]) -> SimilarityTarget | None:
    """Return what a condition is taught, of the first seed (others permute otherwise); None where it is not there."""
    condition, seed = condition_named(name), recipe.seeds[0]
    label = control_label(recipe, condition, seed)
    control = None if label is None else folders[label]
    if condition.second != "similarity" or condition.target is None or (control is not None and not control.is_dir()):
        return None
    return taught_target(
        condition.target, shuffled=condition.shuffled, seed=seed, made=folders[TARGET], control=control
    )


_TRUTH_OF = {"simulated_mouse": "model.safetensors", "simulated_twins": "truth.safetensors"}
_MADE_OF = {
    "twin": "a real mouse-V1 digital twin's predictions",
    "simulated_mouse": "noise-free rates of a simulated mouse",
    "scans": "recorded responses",
    "fitted_twins": "predictions of the twins fitted to the recordings",
    "simulated_twins": "predictions of twins fitted to scans of simulated mice",
    "matrix": "a matrix of the user's own",
}
_CONTROL_OF = {
    "vgg": "VGG-19 conv3_1",
    "pixel": "thresholded pixel similarity",
    "pixel_raw": "pixel similarity",
    "lowpass": "similarity of blurred pixels",
    "random_twin": "an untrained network of the twin's architecture",
    "simulated_data": "simulated single trials of the twin's rates, not a recording",
    "spectrum": "a random matrix with the eigenvalues of the brain's",
}


def card_of(recipe: Recipe, name: str) -> ConditionCard:
    """Say what a condition of a recipe is."""
    condition, kind = condition_named(name), recipe.target.kind
    control = control_of(recipe, condition)
    if condition.second != "similarity":
        target = "none"
    elif control is not None:
        target = _CONTROL_OF[control]
    elif condition.target == "data" and kind == "simulated_mouse":
        target = "single trials of a simulated mouse"
    elif condition.target == "data" and kind == "simulated_twins":
        target = "single trials of simulated mice"
    elif condition.target == "data" and kind == "fitted_twins":
        target = _MADE_OF["scans"]
    else:
        target = _MADE_OF[kind]
    simulated = condition.target == "data" and kind in ("twin", "simulated_mouse", "simulated_twins")
    return ConditionCard(
        name=name,
        label=condition.label.replace("(data)", "(simulated data)") if simulated else condition.label,
        description=condition.description,
        target=target + (", images permuted" if condition.shuffled else ""),
        base=condition.base,
        adversarial=condition.adversarial,
        alpha=recipe.settings(condition).alpha if condition.second != "exposure" else None,
        plain=condition.plain,
        options=condition.options,
    )


def _examples(measured: Sequence[Path]) -> tuple[NoiseExamples, int | None]:
    """Return the test images that the first measurement kept, and how many classes there are."""
    if not measured:
        return NoiseExamples(np.zeros((0, 1, 1), np.float32), ()), None
    with np.load(measured[0] / "examples.npz", allow_pickle=False) as kept:
        images = (kept["images"].mean(axis=1) / 255).astype(np.float32)
        return NoiseExamples(images, tuple(kept["labels"].tolist())), len(kept["classes"])


def _units(recipe: Recipe, condition: str, folders: Mapping[str, Path]) -> UnitImages | None:
    """Return what a condition's first network left of its units; None where they were not asked."""
    folder = folders.get(step_label("tuning", condition, recipe.seeds[0]))
    if folder is None or not (folder / UNITS_FILE).is_file():
        return None
    with np.load(folder / UNITS_FILE, allow_pickle=False) as kept:
        return UnitImages(tuple(kept["layer"].tolist()), tuple(kept["channel"].tolist()), kept["images"])


def _stability(folders: Mapping[str, Path]) -> ScanStability | str | None:
    folder = folders.get(STABILITY)
    if folder is None or not folder.is_dir():
        return None
    if (folder / ABSENT_FILE).is_file():
        return str(read_json(folder / ABSENT_FILE)["absent"])
    try:
        return load_stability(folder / STABILITY_FILE)
    except InputError as error:  # the rest of the run is none the worse
        return str(error)


def _masking(seed: int, folders: Mapping[str, Path]) -> tuple[Mapping[str, Any], ...]:
    folder = folders.get(masking_label(seed))
    file = None if folder is None else folder / MASKING_FILE
    return tuple(json.loads(file.read_text(encoding="utf-8"))) if file is not None and file.is_file() else ()


def read_metrics(folders: Iterable[Path], out: Path) -> pa.Table:
    """Return the rows of all finished steps, in the order of the plan; `metrics.parquet` where that has more.

    Its steps are then not where they were (a store that is not mounted, or tidied), and what was gathered still holds.
    """
    rows = []
    for folder in folders:
        metrics = folder / "metrics.json"
        if metrics.is_file():
            rows += json.loads(metrics.read_text(encoding="utf-8"))
    kept = out / "metrics.parquet"
    if kept.is_file() and pq.read_metadata(kept).num_rows > len(rows):
        return published_metrics(out)
    return pa.Table.from_pylist(rows, schema=METRICS_SCHEMA)


def published_metrics(folder: Path) -> pa.Table:
    """Return what `metrics.parquet` holds, as it was gathered or published."""
    return pq.read_table(folder / "metrics.parquet").select(METRICS_SCHEMA.names).cast(METRICS_SCHEMA)


def gather_metrics(folders: Iterable[Path], out: Path) -> pa.Table:
    """Write `metrics.parquet`, and return it: see `read_metrics`."""
    table = read_metrics(folders, out)
    with appearing_whole(out / "metrics.parquet") as temporary:
        pq.write_table(table, temporary, compression="zstd")
    return table


def gather_attacks(folders: Iterable[Path], out: Path) -> Ledger | None:
    """Write `attacks.parquet`, and return it: the ledgers of all finished attack steps; None where there is none."""
    ledgers = [Ledger.load(file) for folder in folders if (file := folder / "attacks.parquet").is_file()]
    if not ledgers:
        return None
    whole = reduce(operator.add, ledgers)
    kept = out / "attacks.parquet"
    if kept.is_file() and pq.read_metadata(kept).num_rows > whole.table.num_rows:
        return Ledger.load(kept)
    whole.save(kept)
    return whole


def _refuse_other_content(out: Path) -> None:
    if out.is_file():
        raise InputError(f"{out}: is a file; --out must be a folder")
    visible = [entry for entry in out.iterdir() if not entry.name.startswith(".")] if out.is_dir() else []
    if visible and not (out / "recipe.yaml").exists():
        raise InputError(f"{out}: holds other files; choose an empty or new folder for --out")


def _as_begun(out: Path, planned: RunPlan) -> RunPlan:
    """Return the plan of a run that goes on, in the store that it has where no other is named.

    One whose data or code changed since would mix two runs: its finished steps are of the old ones.
    """
    begun = RunPlan.read(out)
    if begun.steps != planned.steps:
        raise InputError(
            f"{out}: its data files, this package or a library changed since that run was made; choose another --out"
        )
    return RunPlan(planned.steps, planned.store or begun.store)


def _resolved(recipe: Recipe, out: Path) -> Recipe:
    """Settle `compute`: as the run in `out` did when it was created, else by measuring."""
    kept = out / "recipe.yaml"
    if not kept.exists():
        return recipe.model_copy(update={"compute": resolve_compute(recipe)})
    old = parse_recipe(kept.read_text(encoding="utf-8"), str(kept))
    asked, had = recipe.model_dump(mode="json"), old.model_dump(mode="json")
    for part, value in asked["compute"].items():
        if part not in _FREE_COMPUTE and value not in ("auto", had["compute"][part]):
            raise InputError(
                f"{out}: its run has compute.{part}={had['compute'][part]}, not {value}; choose another --out"
            )
    differing = [key for key in asked if key not in ("compute", *_FREE) and asked[key] != had[key]]
    if differing:
        raise InputError(f"{out}: holds a run of another recipe ({differing[0]} differs); choose another --out")
    said = recipe.compute.model_fields_set & _FREE_COMPUTE
    changed = {part: getattr(recipe.compute, part) for part in said if getattr(recipe.compute, part) != "auto"}
    compute = old.compute.model_copy(update=changed)
    return old.model_copy(update={"compute": compute, **{key: getattr(recipe, key) for key in _FREE}})
