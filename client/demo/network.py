"""What the demo's two processes share: the handwritten digits and the network that reads them."""

import torch
from sklearn.datasets import load_digits


class Network(torch.nn.Module):
    """Two convolutions with batch normalisation, so that there are running statistics to average as well."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(1, 16, 3, padding=1),
            torch.nn.BatchNorm2d(16),
            torch.nn.ReLU(),
            torch.nn.Conv2d(16, 32, 3, padding=1),
            torch.nn.BatchNorm2d(32),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
            torch.nn.Flatten(),
            torch.nn.Linear(32 * 4 * 4, 64),
            torch.nn.ReLU(),
            torch.nn.Linear(64, 10),
        )

    def forward(self, images):
        return self.layers(images)


def digits():
    """1,797 images of 8 x 8 pixels, half of them to learn from: ((images, labels), (images, labels))."""
    found = load_digits()
    images = torch.tensor(found.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(found.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train, test = order[: len(order) // 2], order[len(order) // 2 :]
    return (images[train], labels[train]), (images[test], labels[test])


@torch.no_grad()
def accuracy(network, images, labels):
    """The part of the images that is read rightly."""
    was_training = network.training
    network.eval()
    right = (network(images).argmax(1) == labels).float().mean().item()
    network.train(was_training)
    return right
