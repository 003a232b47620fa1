"""Published data sets: the split on made-up files of torchvision's classes, and the real ones where they are there."""

import os

import numpy as np
import pytest
import torch

from s2snet import data, torchvision_cpu

torchvision_cpu.mend()
from torchvision import datasets  # noqa: E402

REAL = os.environ.get("S2SNET_DATA")


def pretend(monkeypatch, kind: str, shape: tuple, labels: str = "targets", classes: int = 10):
    """In place of torchvision's class one that holds random pixels: 40 training images, 10 for testing."""
    asked = []

    class Pretended:
        def __init__(self, root, train=None, split=None, download=False):
            asked.append((str(root), train if split is None else split, download))
            count = 40 if train or split == "train" else 10
            random = np.random.default_rng(count)
            self.data = random.integers(0, 256, (count, *shape), dtype=np.uint8)
            setattr(self, labels, random.integers(0, classes, count).tolist())
            self.classes = [f"class {number}" for number in range(classes)]

    monkeypatch.setattr(datasets, kind, Pretended)
    return asked


CASES = {
    "mnist": ("MNIST", (28, 28), "targets", (1, 32, 32)),
    "cifar10": ("CIFAR10", (32, 32, 3), "targets", (3, 32, 32)),
    "svhn": ("SVHN", (3, 32, 32), "labels", (3, 32, 32)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_test_set_is_the_published_one_and_validation_is_carved_from_train(monkeypatch, tmp_path, name):
    kind, shape, labels, wanted = CASES[name]
    asked = pretend(monkeypatch, kind, shape, labels)
    splits = data.load(name, data_root=tmp_path)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [36, 4, 10]
    assert splits.validation.index.tolist() == [0, 10, 20, 30]
    assert splits.test.index.tolist() == list(range(40, 50))
    assert {root for root, _, _ in asked} == {str(tmp_path)}
    image, label, index = splits.test[3]
    assert image.shape == wanted and image.dtype == torch.float32 and image.max() <= 1
    assert (label, index) == (int(splits.test.labels[3]), 43)


def test_pixels_are_the_files(monkeypatch, tmp_path):
    pretend(monkeypatch, "CIFAR10", (32, 32, 3))
    image = data.load("cifar10", data_root=tmp_path).test[0][0]
    stored = datasets.CIFAR10(tmp_path, train=False).data[0]
    assert torch.equal(image, torch.from_numpy(stored).permute(2, 0, 1).float() / 255)


def test_mnist_is_padded_with_zeros_and_repeated(monkeypatch, tmp_path):
    pretend(monkeypatch, "MNIST", (28, 28))
    plain = data.load("mnist", data_root=tmp_path).test[0][0]
    assert (plain[:, :2] == 0).all() and (plain[:, :, -2:] == 0).all() and plain[:, 2:-2, 2:-2].mean() > 0.3
    three = data.load("mnist", data_root=tmp_path, channels=3).test[0][0]
    assert torch.equal(three, plain.repeat(3, 1, 1))


@pytest.mark.parametrize(
    "options, line",
    [
        ({"size": 20}, "data.size=20: the originals have 32 pixels a side; at least 32"),
        ({"channels": 1}, "data.channels=1: the originals have 3"),
        ({"classes": 7}, "data.classes=7: cifar10 has 10"),
    ],
)
def test_bad_options_are_one_line(monkeypatch, tmp_path, options, line):
    pretend(monkeypatch, "CIFAR10", (32, 32, 3))
    with pytest.raises(ValueError) as error:
        data.load("cifar10", data_root=tmp_path, **options)
    assert str(error.value).startswith(line) and "\n" not in str(error.value)


@pytest.mark.parametrize("download", [False, True])
def test_what_is_not_there_and_cannot_be_downloaded_names_the_folder(monkeypatch, tmp_path, download):
    from urllib.error import URLError

    class Missing:
        def __init__(self, root, download=False, **part):
            raise URLError("no way out") if download else RuntimeError("Dataset not found")

    monkeypatch.setattr(datasets, "CIFAR10", Missing)
    with pytest.raises(ValueError) as error:
        data.load("cifar10", data_root=tmp_path, download=download)
    assert str(error.value).startswith(f"cifar10 is not below {tmp_path}")
    assert ("could not be downloaded" in str(error.value)) == download
    assert "\n" not in str(error.value)


@pytest.mark.skipif(not REAL, reason="needs S2SNET_DATA with cifar-10-batches-py")
def test_real_cifar10_has_its_published_sizes():
    try:
        splits = data.load("cifar10", data_root=REAL, download=False)
    except ValueError as missing:
        pytest.skip(str(missing))
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [45_000, 5_000, 10_000]
    assert splits.test.classes[:2] == ["airplane", "automobile"]
    assert torch.bincount(splits.test.labels).tolist() == [1_000] * 10
