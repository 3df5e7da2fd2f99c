"""Recipe -> the graph of steps. Planning reads files' digests but computes nothing."""

from collections.abc import Callable, Iterable

from neuroprior.experiment.conditions import CONDITIONS
from neuroprior.experiment.inputs import stimuli_paths
from neuroprior.experiment.recipe import Recipe, RobustnessSection
from neuroprior.experiment.store import Step, digest_file
from neuroprior.experiment.work import Machine, MeasureWork, TargetWork, TrainWork
from neuroprior.sources import data_path

TARGET = "target"

_Files = Callable[[Iterable[str | None]], tuple[tuple[str, str], ...]]


def plan(recipe: Recipe, digests: dict[str, str]) -> list[Step]:
    """Return the steps in an order in which each comes after its inputs.

    `digests`, by the path that the recipe gives, gains those of all files that are read. A step's settings are those
    that it uses, and no others: what does not go into a result does not make it be computed again.
    """
    machine = Machine.model_validate(recipe.compute.model_dump(exclude={"workers", "checkpoint_seconds"}))

    def files(paths: Iterable[str | None]) -> tuple[tuple[str, str], ...]:
        given = [path for path in paths if path is not None]
        for path in given:
            if path not in digests:
                digests[path] = digest_file(data_path(path))
        return tuple((path, digests[path]) for path in given)

    target = Step(
        kind=TARGET,
        label="target",
        work=TargetWork(stimuli=recipe.stimuli, target=recipe.target, machine=machine),
        files=files(stimuli_paths(recipe)),
        cost=4.0,
    )
    steps = [target]
    for seed in recipe.seeds:
        for condition in recipe.conditions:
            trained = _training(recipe, machine, condition, seed, target, files)
            steps += [trained, _measurement(recipe, machine, condition, seed, target, trained, files)]
    return steps


def _training(recipe: Recipe, machine: Machine, condition: str, seed: int, target: Step, files: _Files) -> Step:
    regularized = CONDITIONS[condition].target != "none"
    return Step(
        kind="train",
        label=f"train-{condition}-seed{seed}",
        work=TrainWork(
            condition=condition,
            seed=seed,
            # The test images are none of this step's: what stands for them follows from those it trains on.
            task=recipe.task.model_copy(update={"n_test": None, "test": recipe.task.train}),
            network=recipe.network,
            training=recipe.training,
            regularizer=recipe.regularizer if regularized else None,
            blur_sigma=_blur_sigma(recipe, condition),
            machine=machine,
        ),
        inputs=(("target", target.key),) if regularized else (),
        files=files([recipe.task.path("train")]),
        cost=3.0 if regularized else 2.0,
    )


def _measurement(
    recipe: Recipe, machine: Machine, condition: str, seed: int, target: Step, trained: Step, files: _Files
) -> Step:
    return Step(
        kind="measure",
        label=f"measure-{condition}-seed{seed}",
        work=MeasureWork(
            condition=condition,
            seed=seed,
            task=recipe.task.model_copy(update={"n_train": None, "train": recipe.task.test}),
            network=recipe.network,
            taps=recipe.regularizer.taps,
            mean=recipe.regularizer.mean,
            blur_sigma=_blur_sigma(recipe, condition),
            noise=recipe.noise,
            robustness=recipe.robustness if recipe.robustness.radii else RobustnessSection(),
            machine=machine,
        ),
        inputs=(("target", target.key), ("network", trained.key)),
        files=files([recipe.task.path("test")]),
    )


def _blur_sigma(recipe: Recipe, condition: str) -> float | None:
    return recipe.blur_sigma if CONDITIONS[condition].blurred else None
