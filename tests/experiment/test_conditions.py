"""The conditions: how they are named, what they are made of, and that their numbers stay what they were."""

import json

import pytest
import torch

from experiment.loss_curves import FROZEN, loss_curves
from neuroprior.classifier import (
    EpisodeLoss,
    FewShotTask,
    LabelledImages,
    ResNet,
    TrainingSettings,
    class_means_head,
    core_features,
    evaluate,
    load_packaged_digits,
    train,
)
from neuroprior.experiment import packaged_recipe
from neuroprior.experiment.conditions import CONDITIONS, condition_named
from neuroprior.experiment.plan import plan
from neuroprior.robustness import linf_accuracy, pgd_perturbation
from neuroprior.types import InputError


def test_the_losses_are_what_they_were(tmp_path):
    """A refactor must reproduce them; what separates roundings, machines and versions of torch is less than that.

    Fused forms against plain torch: at most 0.4 % of a training loss, 1 % of a similarity loss, 0.1 % in validation.
    """
    tolerance = {"task_loss": 0.005, "similarity_loss": 0.03, "validation_loss": 0.02}
    frozen, now = json.loads(FROZEN.read_text()), loss_curves(tmp_path)
    assert now.keys() == frozen.keys()
    for condition, curves in frozen.items():
        for metric, values in curves.items():
            assert now[condition][metric] == pytest.approx(values, rel=tolerance[metric]), (condition, metric)
    seen = {name: tuple(curves["validation_loss"]) for name, curves in now.items()}
    assert len(set(seen.values())) == len(seen)  # no two conditions are the same by accident
    # Mere exposure changes what batch norm remembers, and not one weight.
    assert now["exposure"]["task_loss"] == now["none"]["task_loss"]


def test_a_variant_is_its_base_with_options():
    plain, variant = condition_named("neural_model"), condition_named("neural_model@alpha=2,taps=[stem]")
    assert (variant.target, variant.second) == (plain.target, plain.second)
    assert dict(variant.options) == {"alpha": 2, "taps": ["stem"]}
    assert dict(condition_named("pixel").options) == {"alpha": 10.0, "scale": "lineage"}
    assert dict(condition_named("pixel@alpha=3").options) == {"alpha": 3, "scale": "lineage"}
    assert condition_named("neural_model@alpha=2").label == "Neural (model) α 2"
    both = condition_named("adversarial+blur@sigma=2")
    assert both.adversarial
    assert both.blurred
    assert both.label == "Adversarial + Blur σ 2"
    assert not CONDITIONS["blur"].adversarial


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("neural_modle", "'neural_modle' is unknown; did you mean 'neural_model'"),
        ("adversarial+adversarial", r"'adversarial\+adversarial' is unknown"),
        ("neural_model@", "'' is not key=value"),
        ("neural_model@alpha", "'alpha' is not key=value"),
        ("neural_model@alpha=2,alpha=3", "alpha stands twice"),
    ],
)
def test_names_that_are_no_condition(name, says):
    with pytest.raises(InputError, match=says):
        condition_named(name)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("neural_model@alfa=2", "'alfa' is no option of its second loss.*did you mean 'alpha'"),
        ("none@alpha=2", "'alpha' is no option"),
        ("exposure@alpha=2", "'alpha' is no option"),
        ("neural_model@alpha=-1", "alpha: Input should be greater"),
        ("blur@sigma=0", "sigma is 0; it must be above 0"),
        ("vgg", "needs controls.vgg"),
        ("random_twin", "needs target.kind twin or fitted_twins, not simulated_mouse"),
        ("user_matrix", "needs target.kind matrix"),
    ],
)
def test_conditions_that_this_recipe_cannot_have(name, says):
    with pytest.raises(InputError, match=says):
        packaged_recipe("demo", [f"conditions=['{name}']"])


def test_what_conditions_share_is_one_step():
    recipe = packaged_recipe(
        "demo",
        ["scale=tiny", "conditions=[pixel, pixel@alpha=2, spectrum, lowpass, lowpass@sigma=3]", "seeds=[0, 1]"],
    )
    recipe = recipe.model_copy(update={"compute": recipe.compute.model_copy(update={"device": "cpu", "threads": 1})})
    recipe = recipe.model_copy(
        update={"compute": recipe.compute.model_copy(update={"precision": "float32", "workers": 1})}
    )
    labels = [step.label for step in plan(recipe, {})]
    assert sorted(label for label in labels if label.startswith("control")) == [
        "control-lowpass-sigma3",
        "control-lowpass-sigma4",
        "control-pixel",
        "control-spectrum-seed0",
        "control-spectrum-seed1",
    ]
    assert len(labels) == len(set(labels))


def test_adversarial_images_stay_in_the_ball_and_fool_more_than_random_ones():
    train_images, _ = load_packaged_digits()
    some = train_images.rows(slice(None, None, 5))
    torch.manual_seed(0)
    network = ResNet(width=4)
    settings = TrainingSettings(epochs=4, learning_rate=0.05, augmentation="none", schedule="linear")
    train(network, some, settings, seed=0)
    images, labels = torch.from_numpy(some.pixels).float() / 255, torch.from_numpy(some.labels)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    epsilon = 0.1
    network.train()
    start = torch.empty(images.shape).uniform_(-1, 1, generator=torch.Generator().manual_seed(0))
    moved = pgd_perturbation(network, images, labels, epsilon=epsilon, steps=5, start=start)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert float((moved - images).abs().max()) <= epsilon + 1e-6
    assert 0 <= float(moved.min()) <= float(moved.max()) <= 1
    random = (images + epsilon * torch.empty(images.shape).uniform_(-1, 1)).clamp(0, 1)
    network.eval()
    with torch.no_grad():
        accuracy = {
            name: float((network(x).argmax(1) == labels).float().mean()) for name, x in (("m", moved), ("r", random))
        }
    assert accuracy["m"] < accuracy["r"] - 0.2


@pytest.mark.slow
def test_adversarial_training_hardens():
    """The networks see as many steps; the one that was attacked in training withstands an attack it never saw."""
    train_images, test_images = load_packaged_digits()
    some, tested = train_images.rows(slice(None, None, 5)), test_images.rows(slice(None, None, 5))
    left = {}
    for hardened in (False, True):
        torch.manual_seed(0)
        network = ResNet(width=4)

        def perturb(net, images, labels, noise):
            return pgd_perturbation(net, images, labels, epsilon=0.1, steps=3, start=noise)

        settings = TrainingSettings(epochs=4, learning_rate=0.05, augmentation="none", schedule="linear")
        train(network, some, settings, seed=0, perturb=perturb if hardened else None)
        images, labels = torch.from_numpy(tested.pixels).float() / 255, torch.from_numpy(tested.labels)
        left[hardened] = linf_accuracy(network, images, labels, [0.1], steps=10).accuracy[0]
    assert left[True] > left[False] + 0.15


def test_few_shot_as_the_task_trains_a_core_that_classifies():
    train_images, test_images = load_packaged_digits()
    some, tested = train_images.rows(slice(None, None, 4)), test_images.rows(slice(None, None, 4))
    torch.manual_seed(0)
    network = ResNet(width=4)
    untouched = network.head.weight.clone()
    task = FewShotTask(EpisodeLoss(ways=5, shots=3, queries=3))
    settings = TrainingSettings(
        epochs=3, learning_rate=0.02, augmentation="none", schedule="linear", validation_fraction=0.2
    )
    history = train(network, some, settings, seed=0, task=task)
    assert history[-1].validation_accuracy > 0.5
    assert torch.equal(network.head.weight, untouched)
    class_means_head(network, some)
    assert evaluate(network, tested)[1] > 0.5


def test_the_head_of_class_means_is_nearest_class_mean():
    train_images, _ = load_packaged_digits()
    some = train_images.rows(slice(None, None, 40))
    torch.manual_seed(0)
    network = ResNet(width=2)
    class_means_head(network, some)
    features = torch.from_numpy(core_features(network, some.pixels))
    labels = torch.from_numpy(some.labels)
    means = torch.stack([features[labels == k].mean(0) for k in range(10)])
    network.eval()
    with torch.no_grad():
        logits = network(torch.from_numpy(some.pixels).float() / 255)
    assert torch.equal(logits.argmax(1), torch.cdist(features, means).argmin(1))
    lacking = LabelledImages(some.pixels[some.labels != 3], some.labels[some.labels != 3], some.classes)
    with pytest.raises(InputError, match="no image of class '3'"):
        class_means_head(network, lacking)
