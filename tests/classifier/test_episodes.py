"""Episodes and their loss: the printed equations, what the loss cannot see, and what it must."""

import math

import pytest
import torch

from neuroprior.classifier.episodes import EpisodeLoss, episode_rows
from neuroprior.classifier.transfer import few_shot_accuracy
from neuroprior.types import InputError

LOSS = EpisodeLoss(ways=3, shots=2, queries=4)
LABELS = torch.tensor([7, 2, 9]).repeat(6)


def features(scale: float = 1.0, width: int = 5) -> torch.Tensor:
    return scale * torch.randn(18, width, generator=torch.Generator().manual_seed(0))


def slow_loss(z: torch.Tensor, labels: torch.Tensor, shots: int) -> float:
    """As printed, a query at a time."""
    rows = {k: [i for i in range(len(z)) if labels[i] == k] for k in labels.tolist()}
    prototype = {k: sum(z[i] for i in rows[k][:shots]) / shots for k in rows}
    losses = []
    for k, of_class in rows.items():
        for i in of_class[shots:]:
            weight = {j: math.exp(-float(((z[i] - c) ** 2).sum())) for j, c in prototype.items()}
            losses.append(-math.log(weight[k] / sum(weight.values())))
    return sum(losses) / len(losses)


def test_loss_is_the_printed_one():
    shuffled = torch.randperm(18, generator=torch.Generator().manual_seed(1))
    for labels in (LABELS, LABELS[shuffled]):
        assert float(LOSS(features(), labels)) == pytest.approx(slow_loss(features().double(), labels, 2), rel=1e-5)


def test_loss_is_log_ways_without_knowledge_and_0_with_all():
    assert float(LOSS(torch.ones(18, 5), LABELS)) == pytest.approx(math.log(3))
    far = 20 * torch.nn.functional.one_hot(LABELS).float()
    assert float(LOSS(far, LABELS)) == pytest.approx(0)


def test_loss_sees_distances_alone():
    z = features().double()
    rotation, _ = torch.linalg.qr(features(width=18).double()[:5, :5])
    loss = LOSS(z, LABELS)
    assert torch.allclose(LOSS(z @ rotation + 3, LABELS), loss)
    assert not torch.allclose(LOSS(2 * z, LABELS), loss)
    names = torch.tensor([0, 0, 40, 0, 0, 0, 0, 13, 0, 5])
    assert torch.allclose(LOSS(z, names[LABELS]), loss)


def test_order_between_classes_is_free_and_within_a_class_tells_shots_from_queries():
    z = features().double()
    by_class = LABELS.argsort(stable=True)
    assert torch.equal(LOSS(z[by_class], LABELS[by_class]), LOSS(z, LABELS))
    turned = torch.arange(17, -1, -1)
    assert not torch.allclose(LOSS(z[turned], LABELS[turned]), LOSS(z, LABELS))


def test_gradient_reaches_shots_and_queries_and_descends():
    z = features().requires_grad_()
    loss = LOSS(z, LABELS)
    loss.backward()
    assert z.grad is not None
    assert bool((z.grad.abs().sum(dim=1) > 0).all())
    assert float(LOSS(z.detach() - 0.1 * z.grad, LABELS)) < float(loss.detach())
    small = features(width=2).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: LOSS(x, LABELS), small)


def test_what_is_learnt_in_episodes_holds_for_new_classes():
    """Classes differ along 2 of 16 axes; a projection learnt from ten of them finds these axes for ten others."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(20).repeat_interleave(40)
    signal = 3 * torch.randn(20, 2, generator=random)
    images = torch.cat([signal[labels], 2 * torch.randn(800, 14, generator=random)], dim=1)
    images[:, :2] += 0.5 * torch.randn(800, 2, generator=random)
    known = labels < 10
    weight = (0.1 * torch.randn(16, 3, generator=random)).requires_grad_()
    loss = EpisodeLoss(ways=5, shots=5, queries=5)

    def accuracy() -> float:
        features = (images @ weight.detach())[~known].numpy()
        return few_shot_accuracy(features, labels[~known].numpy(), episodes=100).accuracy

    before = accuracy()
    for _ in range(100):
        rows = episode_rows(labels[known], ways=5, shots=5, queries=5, random=random)
        (gradient,) = torch.autograd.grad(loss(images[known][rows] @ weight, labels[known][rows]), weight)
        weight.data -= 0.02 * gradient
    assert before < 0.4
    assert accuracy() > before + 0.3


def test_loss_is_float32_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        loss = LOSS(features().bfloat16(), LABELS)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(LOSS(features().bfloat16().float(), LABELS)))


def test_a_batch_that_is_no_episode_is_refused():
    with pytest.raises(InputError, match="2 classes for 3 ways"):
        LOSS(features(), torch.arange(18) % 2)
    wrong = LABELS.clone()
    wrong[0] = 9
    with pytest.raises(InputError, match=r"class 7 has 5 images in the batch; it must have 2 shots \+ 4 queries = 6"):
        LOSS(features(), wrong)
    with pytest.raises(InputError, match="shots 0"):
        EpisodeLoss(shots=0)


def draw(labels: torch.Tensor, seed: int = 0, **sizes: int) -> torch.Tensor:
    return episode_rows(
        labels, random=torch.Generator().manual_seed(seed), **{"ways": 3, "shots": 2, "queries": 4, **sizes}
    )


def test_drawn_rows_are_an_episode():
    labels = torch.arange(200) % 11
    rows = draw(labels)
    assert len(rows) == LOSS.batch_size == 18
    assert len(set(rows.tolist())) == 18
    of_rows = labels[rows].reshape(3, 6)
    assert bool((of_rows == of_rows[:, :1]).all())
    assert len(set(of_rows[:, 0].tolist())) == 3
    assert math.isfinite(float(LOSS(features(), labels[rows])))


def test_same_generator_same_rows():
    labels = torch.arange(200) % 11
    assert torch.equal(draw(labels), draw(labels))
    assert not torch.equal(draw(labels), draw(labels, seed=1))
    random = torch.Generator().manual_seed(0)
    first, second = (episode_rows(labels, ways=3, shots=2, queries=4, random=random) for _ in range(2))
    assert torch.equal(first, draw(labels))
    assert not torch.equal(first, second)


def test_every_image_is_drawn_equally_often_whatever_the_size_of_its_class():
    """An image's chance is ways / classes * (shots + queries) / images of its class."""
    labels = torch.cat([torch.full((n,), k) for k, n in enumerate((6, 12, 24))])
    random = torch.Generator().manual_seed(0)
    episodes = 4000
    drawn = torch.stack([episode_rows(labels, ways=2, shots=1, queries=2, random=random) for _ in range(episodes)])
    frequency = drawn.flatten().bincount(minlength=42) / episodes
    expected = torch.tensor([2 / 3 * 3 / n for n in (6, 12, 24)])[labels]
    error = (expected * (1 - expected) / episodes).sqrt()
    assert bool(((frequency - expected).abs() < 4 * error).all())


def test_what_cannot_be_drawn_is_named():
    labels = torch.tensor([4] * 6 + [5] * 5 + [6] * 9)
    with pytest.raises(InputError, match=r"class 5 has 5 images for 2 shots \+ 4 queries"):
        draw(labels)
    with pytest.raises(InputError, match="3 classes for 4 ways"):
        draw(labels, ways=4)
    with pytest.raises(InputError, match="ways 1"):
        draw(labels, ways=1)
