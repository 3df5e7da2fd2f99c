"""Recipe -> the graph of steps. Planning reads files' digests but computes nothing."""

from collections.abc import Callable, Iterable
from typing import get_args

from neuroprior.experiment.conditions import Condition, Control, condition_named
from neuroprior.experiment.inputs import stimuli_paths
from neuroprior.experiment.recipe import Recipe
from neuroprior.experiment.sections import MADE, MatrixTarget, RobustnessSection, Target, TaskSection, TwinTarget
from neuroprior.experiment.simulated_twins import SimulatedTwinsTarget
from neuroprior.experiment.steps.settings import (
    AttackWork,
    ControlWork,
    Machine,
    MaskingWork,
    MeasureWork,
    ProbeWork,
    ScansWork,
    StabilityWork,
    TargetWork,
    TrainWork,
    TwinsWork,
)
from neuroprior.experiment.store import Step, digest_file
from neuroprior.sources import data_path

TARGET, STABILITY = "target", "stability"

_DRAWN = ("spectrum", "random_twin")  # anew for each seed, as `shuffle` has a permutation for each
_Files = Callable[[Iterable[str | None]], tuple[tuple[str, str], ...]]


def plan(recipe: Recipe, digests: dict[str, str]) -> list[Step]:
    """Return the steps in an order in which each comes after its inputs.

    `digests`, by the path that the recipe gives, gains those of all files that are read. A step's settings are those
    that it uses, and no others: what does not go into a result does not make it be computed again.
    """
    machine = Machine.model_validate(recipe.compute.model_dump(include=set(Machine.model_fields)))

    def files(paths: Iterable[str | None]) -> tuple[tuple[str, str], ...]:
        given = [path for path in paths if path is not None]
        for path in given:
            if path not in digests:
                digests[path] = digest_file(data_path(path))
        return tuple((path, digests[path]) for path in given)

    scans, twins = _simulated(recipe, machine, files)
    target = _target(recipe, machine, scans, twins, files)
    steps = {step.key: step for step in (scans, *twins.values(), target) if step is not None}
    for seed in recipe.seeds:
        networks: dict[str, Step] = {}
        for name in recipe.conditions:
            condition = condition_named(name)
            taught = recipe.settings(condition).twin
            control = _control(recipe, machine, condition, seed, target, files) if taught is None else twins[taught]
            trained = _training(recipe, machine, condition, seed, target, control, files)
            measured = _measurement(recipe, machine, condition, seed, target, trained, files)
            attacked = _attack(recipe, machine, condition, seed, trained, files)
            probed = _probes(recipe, machine, condition, seed, trained, files)
            steps |= {step.key: step for step in (control, trained, measured, attacked, *probed) if step is not None}
            networks[name] = trained
        compared = _masking(recipe, machine, seed, networks, files)
        if compared is not None:
            steps[compared.key] = compared
    stability = _stability(recipe, machine, scans, twins, files)
    if stability is not None:
        steps[stability.key] = stability
    return list(steps.values())


def _simulated(recipe: Recipe, machine: Machine, files: _Files) -> tuple[Step | None, dict[str, Step]]:
    """The step that simulates scans, and those that fit each variant of twins to them; none for other targets."""
    target = recipe.target
    if not isinstance(target, SimulatedTwinsTarget):
        return None, {}
    scans = Step(
        kind="scans",
        label="scans",
        work=ScansWork(stimuli=recipe.stimuli, mice=target.mice, machine=machine),
        files=files(stimuli_paths(recipe)),
        cost=8.0,
    )
    twins = {}
    for variant in target.variants:
        architecture, settings = target.fitting(variant)
        twins[variant] = Step(
            kind="twins",
            label=twins_label(variant),
            work=TwinsWork(
                condition=target.condition(variant), architecture=architecture, settings=settings, machine=machine
            ),
            inputs=(("scans", scans.key),),
            cost=7.0 if variant == target.first else 6.0,  # more waits for the first
        )
    return scans, twins


def _target(recipe: Recipe, machine: Machine, scans: Step | None, twins: dict[str, Step], files: _Files) -> Step:
    target, inputs = _first_variant(recipe.target), tuple[tuple[str, str], ...]()
    if isinstance(target, SimulatedTwinsTarget) and scans is not None:
        inputs = (("scans", scans.key), ("twins", twins[target.first].key))
    return Step(
        kind=TARGET,
        label="target",
        work=TargetWork(stimuli=recipe.stimuli, target=target, machine=machine),
        inputs=inputs,
        files=files(stimuli_paths(recipe)),
        cost=5.0,
    )


def _first_variant(target: Target) -> Target:
    """The target as its own step sees it: another variant of simulated twins makes no other one."""
    if not isinstance(target, SimulatedTwinsTarget):
        return target
    return target.model_copy(update={"variants": {target.first: target.variants[target.first]}})


def _stability(
    recipe: Recipe, machine: Machine, scans: Step | None, twins: dict[str, Step], files: _Files
) -> Step | None:
    """The step that looks at the recordings themselves; none where the target is made of something else."""
    target, inputs = _first_variant(recipe.target), tuple[tuple[str, str], ...]()
    if isinstance(target, TwinTarget | MatrixTarget):
        return None
    if isinstance(target, SimulatedTwinsTarget) and scans is not None:
        inputs = (("scans", scans.key), ("twins", twins[target.first].key))
    asked = {condition_named(name).target for name in recipe.conditions}
    vgg = recipe.controls.vgg if "vgg" in asked else None
    return Step(
        kind=STABILITY,
        label=STABILITY,
        work=StabilityWork(
            stimuli=recipe.stimuli,
            target=target,
            lowpass_sigma=recipe.controls.lowpass_sigma,
            vgg=vgg,
            random_twin=recipe.seeds[0] if "random_twin" in asked else None,
            machine=machine,
        ),
        inputs=inputs,
        files=files([*stimuli_paths(recipe), vgg]),
        cost=1.0,
    )


def control_of(recipe: Recipe, condition: Condition) -> Control | None:
    """Which control's step makes what a condition is taught; None where the target step does, or nothing is taught."""
    if condition.target == "data" and "data" not in MADE[recipe.target.kind]:
        return "simulated_data"
    return condition.target if condition.target in get_args(Control) else None  # type: ignore[return-value]


def control_label(recipe: Recipe, condition: Condition, seed: int) -> str | None:
    """The label of the step that makes what a condition is taught, beside the target step; None where that does."""
    twin = recipe.settings(condition).twin
    if twin is not None:
        return twins_label(twin)
    control = control_of(recipe, condition)
    if control in _DRAWN:
        return f"control-{control}-seed{seed}"
    sigma = recipe.settings(condition).lowpass_sigma
    return None if control is None else f"control-{control}" + ("" if sigma is None else f"-sigma{sigma:g}")


def _control(
    recipe: Recipe, machine: Machine, condition: Condition, seed: int, target: Step, files: _Files
) -> Step | None:
    control, label = control_of(recipe, condition), control_label(recipe, condition, seed)
    if control is None or label is None:
        return None
    of_target = control in ("random_twin", "simulated_data", "responses")
    options = recipe.controls
    return Step(
        kind="control",
        label=label,
        work=ControlWork(
            control=control,
            target=recipe.target if of_target else None,
            threshold=options.pixel_threshold if control == "pixel" else None,
            sigma=recipe.settings(condition).lowpass_sigma,
            vgg=options.vgg if control == "vgg" else None,
            seed=seed if control in _DRAWN else options.seed if control == "simulated_data" else 0,
            machine=machine,
        ),
        inputs=(("target", target.key),),
        files=files([*(stimuli_paths(recipe) if of_target else ()), options.vgg if control == "vgg" else None]),
        cost=4.0,
    )


def _training(
    recipe: Recipe,
    machine: Machine,
    condition: Condition,
    seed: int,
    target: Step,
    control: Step | None,
    files: _Files,
) -> Step:
    settings = recipe.settings(condition)
    inputs = (("target", target.key),) if condition.second is not None else ()
    return Step(
        kind="train",
        label=step_label("train", condition.name, seed),
        work=TrainWork(
            condition=condition.name,
            seed=seed,
            # The test images are none of this step's: what stands for them follows from those it trains on.
            task=recipe.task.model_copy(update={"n_test": None, "test": recipe.task.train}),
            network=recipe.network,
            training=recipe.training,
            objective=recipe.objective,
            second=condition.second,
            target=condition.target,
            shuffled=condition.shuffled,
            regularizer=settings.regularizer,
            regression=settings.regression,
            adversarial=settings.adversarial,
            blur_sigma=settings.blur_sigma,
            machine=machine,
        ),
        inputs=inputs if control is None else (*inputs, ("control", control.key)),
        files=files([recipe.task.path("train")]),
        cost=3.0 if condition.second is not None or condition.adversarial else 2.0,
    )


def _measurement(
    recipe: Recipe, machine: Machine, condition: Condition, seed: int, target: Step, trained: Step, files: _Files
) -> Step:
    settings, transfer = recipe.settings(condition), recipe.transfer
    regularizer = settings.regularizer or recipe.regularizer
    return Step(
        kind="measure",
        label=step_label("measure", condition.name, seed),
        work=MeasureWork(
            condition=condition.name,
            seed=seed,
            task=_test_of(recipe),
            network=recipe.network,
            taps=regularizer.taps,
            mean=regularizer.mean,
            blur_sigma=settings.blur_sigma,
            noise=recipe.noise,
            robustness=recipe.robustness if recipe.robustness.radii else RobustnessSection(),
            transfer=transfer,
            machine=machine,
        ),
        inputs=(("target", target.key), ("network", trained.key)),
        files=files(
            [
                recipe.task.path("test"),
                *((transfer.task.path(part) for part in ("train", "test")) if transfer is not None else ()),
            ]
        ),
    )


def _attack(
    recipe: Recipe, machine: Machine, condition: Condition, seed: int, trained: Step, files: _Files
) -> Step | None:
    if not recipe.perturbations.by_norm:
        return None
    return Step(
        kind="attack",
        label=step_label("attack", condition.name, seed),
        work=AttackWork(
            condition=condition.name,
            seed=seed,
            task=_test_of(recipe),
            network=recipe.network,
            blur_sigma=recipe.settings(condition).blur_sigma,
            perturbations=recipe.perturbations,
            machine=machine,
        ),
        inputs=(("network", trained.key),),
        files=files([recipe.task.path("test")]),
        cost=2.0,
    )


def _probes(
    recipe: Recipe, machine: Machine, condition: Condition, seed: int, trained: Step, files: _Files
) -> list[Step]:
    settings = recipe.settings(condition)
    asked = {
        "ensemble": recipe.ensemble,
        "corruptions": recipe.corruptions,
        "frequencies": recipe.frequencies,
        "tuning": recipe.tuning,
    }
    return [
        Step(
            kind=kind,
            label=step_label(kind, condition.name, seed),
            work=ProbeWork(
                condition=condition.name,
                seed=seed,
                task=_test_of(recipe),
                network=recipe.network,
                blur_sigma=settings.blur_sigma,
                probe=probe,
                taps=(settings.regularizer or recipe.regularizer).taps if kind == "tuning" else None,
                machine=machine,
            ),
            inputs=(("network", trained.key),),
            files=files([recipe.task.path("test")]),
        )
        for kind, probe in asked.items()
        if probe is not None
    ]


def _masking(recipe: Recipe, machine: Machine, seed: int, networks: dict[str, Step], files: _Files) -> Step | None:
    if recipe.masking is None:
        return None
    return Step(
        kind="masking",
        label=masking_label(seed),
        work=MaskingWork(
            seed=seed,
            task=_test_of(recipe),
            network=recipe.network,
            blur_sigmas=tuple((name, recipe.settings(condition_named(name)).blur_sigma) for name in networks),
            masking=recipe.masking,
            machine=machine,
        ),
        inputs=tuple((name, step.key) for name, step in networks.items()),
        files=files([recipe.task.path("test")]),
        cost=2.0,
    )


def _test_of(recipe: Recipe) -> TaskSection:
    """The task as steps that look at test images alone see it."""
    return recipe.task.model_copy(update={"n_train": None, "train": recipe.task.test})


def twins_label(variant: str) -> str:
    """The label of the step that fits a variant of the recipe's twins."""
    return f"twins-{variant}"


def masking_label(seed: int) -> str:
    """The label of the step that compares a seed's networks."""
    return f"masking-seed{seed}"


def step_label(kind: str, condition: str, seed: int) -> str:
    """The label of a network's step. What a shell or another system would stumble over in a folder is replaced."""
    return f"{kind}-{condition.replace('@', '.').replace('=', '').replace(',', '.').replace('+', '-')}-seed{seed}"
