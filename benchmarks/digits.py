"""The network that benchmarks of attacks attack: small, and trained on data that everyone has."""

import torch
from torch import nn

from neuroprior.classifier.datasets import load_packaged_digits

CHANNELS = (8, 16)
EPOCHS = 4


def trained_cnn(
    channels: tuple[int, int] = CHANNELS,
) -> tuple[nn.Module, torch.Tensor, torch.Tensor, float]:
    """Train on the packaged digits; return the network, the test images it gets right, their labels, its accuracy."""
    (x, y), (test_x, test_y) = (
        (torch.from_numpy(part.pixels[:, :, 2:-2, 2:-2]).float() / 255, torch.from_numpy(part.labels))
        for part in load_packaged_digits()
    )
    torch.manual_seed(0)
    narrow, wide = channels
    network = nn.Sequential(
        nn.Conv2d(1, narrow, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(narrow, wide, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(49 * wide, 10),
    )
    optimizer = torch.optim.Adam(network.parameters())
    # Smoothed labels keep logits small: softmax would else round to 1, and the cross-entropy's gradient to 0.
    loss = nn.CrossEntropyLoss(label_smoothing=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=EPOCHS * len(x) // 50)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x)).split(50):
            optimizer.zero_grad()
            loss(network(x[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()
    network.eval().requires_grad_(False)
    right = network(test_x).argmax(1) == test_y
    rows = torch.nonzero(right).squeeze(1)
    rows = rows[torch.randperm(len(rows))]
    return network, test_x[rows], test_y[rows], float(right.float().mean())
